"""The comparison of families as an asset: which one asks to be approved, and why."""

import hashlib
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np
import polars as pl

from cryptoml_assets.features.catalog import model_features
from cryptoml_assets.models.comparison import (
    COMPARISON_COLUMNS,
    COMPARISON_TYPES,
    Contender,
    compare,
    contender,
    tracks,
)
from cryptoml_assets.models.coverage import coverage_table
from cryptoml_assets.models.planning import resource_tags, task_of
from cryptoml_assets.models.provenance import code_digest
from cryptoml_assets.models.rows import Rows, rows_from_frame
from cryptoml_assets.models.task import Task
from cryptoml_assets.models.trees import (
    BENCHMARKS,
    benchmark_versions,
    benchmarks,
    tree_answers,
)
from cryptoml_assets.plots import figure_metadata
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.resources.tracker import Tracker
from cryptoml_assets.settings import Settings, settings
from cryptoml_assets.tables import described_columns, markdown_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cryptoml_assets.models.splits import Split

#: Metadata that says what a comparison was made of.
_INPUTS = "inputs"
#: What says which registered version a row is about; null for a benchmark.
_VERSION_COLUMNS = {
    "model_name": "registered model",
    "model_version": "the registry's version",
    "run_id": "MLflow run that trained it",
    "bundle_digest": "SHA-256 of the bundle",
}
_TYPES = COMPARISON_TYPES | dict.fromkeys(_VERSION_COLUMNS, pl.String())
#: Columns of the table that the UI shows first.
_SHOWN = (
    "rank",
    "family",
    "chosen",
    "served",
    "choice_score",
    "log_loss_skill",
    "crps_skill",
    "accuracy",
    "coverage",
    "sharpe_net",
    "deflated_sharpe",
    "p_better_than_linear",
    "suspected_leak",
)


@dg.asset(
    deps=["training_set"],
    group_name="models",
    kinds={"jax", "polars", "deltalake"},
    owners=["team:research"],
    code_version="1",
    io_manager_key="lake",
    op_tags=resource_tags(settings()),
    metadata=described_columns(_TYPES, COMPARISON_COLUMNS | _VERSION_COLUMNS, ("family",)),
)
def model_comparison(
    context: dg.AssetExecutionContext,
    candidate_models: pl.DataFrame,
    lake: dg.ResourceParam[LakeIOManager],
    tracker: Tracker,
) -> dg.MaterializeResult[pl.DataFrame]:
    """Families side by side on the same out-of-sample rows, and the one that asks to be approved.

    One row per family, boosted trees beside them where LightGBM or XGBoost is installed. The
    chosen one was best in every walk-forward fold but the newest, which the gate judges it on.
    Where candidates, settings and libraries are those of the comparison before, that one stands.
    """
    from cryptoml_assets.models.registration import log_comparison  # noqa: PLC0415

    configured = settings()
    table_version = lake.lake.version("training_set")
    inputs = _inputs(candidate_models, configured, table_version)
    if lake.lake.exists("model_comparison") and _made_of(context) == inputs:
        context.log.info("candidates, settings and libraries are those of before: reused")
        table = lake.lake.scan("model_comparison").collect()
        return dg.MaterializeResult(value=table, metadata={**_facts(table, inputs), "reused": True})
    frame = lake.lake.scan("training_set", version=table_version).collect()
    contenders = _contenders(context, tracker, candidate_models, frame, configured)
    task = task_of(configured.families[0], configured, table_version)
    table = compare(
        contenders,
        claim=configured.gate_claim,
        leak_accuracy=configured.gate_suspected_leak,
        horizon=np.timedelta64(task.horizon),
        costs=task.costs,
        seed=configured.seed,
    ).join(candidate_models.select("family", *_VERSION_COLUMNS), on="family", how="left")
    table = table.sort("rank").select(*_TYPES)
    log_comparison(tracker.client(), table)
    plots = _plots(contenders, task, configured)
    return dg.MaterializeResult(
        value=table,
        metadata={
            **_facts(table, inputs),
            "reused": False,
            "coverage_of_chosen": dg.MetadataValue.md(_coverage(table, contenders)),
            **{name: figure_metadata(figure) for name, figure in plots.items()},
        },
    )


def _contenders(
    context: dg.AssetExecutionContext,
    tracker: Tracker,
    candidates: pl.DataFrame,
    frame: pl.DataFrame,
    configured: Settings,
) -> list[Contender]:
    """Every candidate as its run recorded it, and the benchmarks, trained here."""
    from cryptoml_assets.models.candidates import folds_of  # noqa: PLC0415

    task = task_of(configured.families[0], configured, 0)
    rows = rows_from_frame(frame, model_features())
    folds = folds_of(rows, task)
    found = [
        _candidate(tracker, row, rows, folds, task) for row in candidates.iter_rows(named=True)
    ]
    for name in benchmarks():
        context.log.info("training the benchmark %s on %s folds", name, len(folds))
        found.append(_benchmark(name, rows, folds, found[0], task))
    if missing := sorted(BENCHMARKS.keys() - set(benchmarks())):
        context.log.info("not installed, so not compared: %s", ", ".join(missing))
    return found


def _candidate(
    tracker: Tracker,
    row: dict[str, Any],
    rows: Rows,
    folds: "tuple[Split, ...]",
    task: Task,
) -> Contender:
    from cryptoml_assets.models.answers import answered_folds  # noqa: PLC0415
    from cryptoml_assets.models.evaluation import baseline  # noqa: PLC0415
    from cryptoml_assets.models.registration import (  # noqa: PLC0415
        fetch_answers,
        validation_skill,
    )
    from cryptoml_assets.models.training import Epoch  # noqa: PLC0415

    client = tracker.client()
    run = client.get_run(row["run_id"])
    with tempfile.TemporaryDirectory() as folder:
        answers, history = fetch_answers(client, row["run_id"], Path(folder))
    bases = [baseline(rows.labels[split.training]) for split in folds]
    return contender(
        row["family"],
        answered_folds(answers, bases),
        served=True,
        horizon=np.timedelta64(task.horizon),
        seed=task.training.seed,
        costs=task.costs,
        history=[Epoch(**each) for each in history.iter_rows(named=True)],
        trials=int(run.data.metrics["trials"]),
        choice_score=validation_skill(run, settings().gate_claim),
    )


def _benchmark(
    name: str, rows: Rows, folds: "tuple[Split, ...]", other: Contender, task: Task
) -> Contender:
    """A benchmark over every input there is, measured on the rows ``other`` answered."""
    seed = task.training.seed
    parts = [
        replace(part, answers=tree_answers(name, rows, split, seed=seed))
        for part, split in zip(other.parts, folds, strict=True)
    ]
    return contender(
        name, parts, served=False, horizon=np.timedelta64(task.horizon), seed=seed, costs=task.costs
    )


def _inputs(candidates: pl.DataFrame, configured: Settings, table_version: int) -> str:
    """Digest of all that decides the comparison."""
    decides = {
        "candidates": candidates.sort("family").rows(named=True),
        "training_set": table_version,
        "settings": configured.model_dump(mode="json"),
        "benchmarks": benchmark_versions(),
        "code": code_digest(),
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()


def _made_of(context: dg.AssetExecutionContext) -> str | None:
    """What the newest comparison was made of, where the instance still knows."""
    event = context.instance.get_latest_materialization_event(model_comparison.key)
    made = event.asset_materialization if event is not None else None
    return str(made.metadata[_INPUTS].value) if made and _INPUTS in made.metadata else None


def _facts(table: pl.DataFrame, inputs: str) -> dict[str, Any]:
    chosen = table.filter("chosen").row(0, named=True)
    return {
        _INPUTS: inputs,
        "chosen": chosen["family"],
        "model_version": chosen["model_version"],
        "trials": int(table["trials"].sum()),
        "comparison": dg.MetadataValue.md(
            markdown_table(_SHOWN, table.select(*_SHOWN).iter_rows())
        ),
    }


def _coverage(table: pl.DataFrame, contenders: list[Contender]) -> str:
    """Coverage of the chosen family by symbol and regime."""
    chosen = table.filter("chosen")["family"].item()
    (each,) = (one for one in contenders if one.name == chosen)
    covered = coverage_table(each.parts)
    return markdown_table(covered.columns, covered.iter_rows())


def _plots(contenders: list[Contender], task: Task, configured: Settings) -> "dict[str, Figure]":
    from cryptoml_assets.models import comparison_figures as figures  # noqa: PLC0415

    strategy = tracks(contenders, horizon=np.timedelta64(task.horizon), costs=task.costs)
    plots = {
        "calibration": figures.calibration_comparison(contenders),
        "equity": figures.equity_plot(contenders, strategy, task.costs),
        "skill_by_fold": figures.skill_by_fold(contenders, configured.gate_claim),
        "coverage": figures.coverage_comparison(contenders),
    }
    if any(each.history for each in contenders):
        plots["learning_curves"] = figures.learning_curves(contenders)
    return plots
