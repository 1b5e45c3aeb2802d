"""Assets of the models room: candidates for serving, each a registered version of one model."""

import tempfile
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from cryptoml_assets.features.catalog import FEATURES
from cryptoml_assets.features.service import return_service_name
from cryptoml_assets.models.provenance import git_commit
from cryptoml_assets.models.task import Task, TrainingConfig, input_digest
from cryptoml_assets.plots import figure_metadata
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.resources.tracker import Tracker
from cryptoml_assets.settings import Settings, settings
from cryptoml_assets.tables import described_columns, markdown_table
from cryptoml_serving.contract.bundle import FeatureSpec
from cryptoml_serving.contract.registry import (
    DIGEST_TAG,
    FAMILY_TAG,
    INPUT_TAG,
    SOURCE_TAG,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cryptoml_assets.models.candidates import Trained

_FAMILY = "mlp"
_NAMES = {
    "family": "kind of model",
    "model_name": "registered model",
    "model_version": "the registry's version",
    "run_id": "MLflow run that trained it",
    "bundle_digest": "SHA-256 of the bundle",
}
_HEADLINES = {
    "test_rows": "rows out of sample",
    "log_loss_skill": "share of the base rate's log loss saved",
    "direction_p_value": "chance of so much directional skill by luck",
    "crps_skill": "share of the past distribution's CRPS saved",
    "crps_p_value": "chance of so much distributional skill by luck",
    "information_coefficient": "correlation of expected return and label",
    "accuracy": "share of directions told right",
    "coverage": "share of labels inside the 90 % interval",
}
_TYPES = dict.fromkeys(_NAMES, pl.String()) | dict.fromkeys(_HEADLINES, pl.Float64())


@dg.asset(
    deps=["training_set"],
    group_name="models",
    kinds={"jax", "flax", "mlflow"},
    owners=["team:research"],
    code_version="1",
    io_manager_key="lake",
    metadata=described_columns(_TYPES, _NAMES | _HEADLINES, ("family",)),
)
def candidate_models(
    context: dg.AssetExecutionContext, lake: dg.ResourceParam[LakeIOManager], tracker: Tracker
) -> dg.MaterializeResult[pl.DataFrame]:
    """Trained, calibrated and registered models that ask to be approved.

    One row per model family: its registered version, the digest of its bundle, and its headline
    figures out of sample. Where rows, settings, code and libraries are those of the newest
    registered version, that version stands again and nothing is trained.
    """
    from cryptoml_assets.models.registration import newest_version  # noqa: PLC0415

    # Read at a pinned version, so that the manifest names the very rows the model learnt from.
    table_version = lake.lake.version("training_set")
    rows = lake.lake.scan("training_set", version=table_version).collect()
    task = _task(settings(), table_version)
    inputs = input_digest(rows, task)
    newest = newest_version(tracker.client(), task.model_name, task.family)
    if newest is not None and newest.tags.get(INPUT_TAG) == inputs:
        context.log.info("version %s was trained on all the same: reused", newest.version)
        return _result(tracker, newest, reused=True)
    return _train(context, tracker, task, rows, inputs)


def _train(
    context: dg.AssetExecutionContext, tracker: Tracker, task: Task, rows: pl.DataFrame, inputs: str
) -> dg.MaterializeResult[pl.DataFrame]:
    from cryptoml_assets.models.candidates import train_candidate  # noqa: PLC0415
    from cryptoml_assets.models.registration import Candidate, register  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as work:
        trained = train_candidate(rows, task, Path(work, "bundle"), log=context.log.info)
        if trained.unseen:
            names = ", ".join(trained.unseen)
            context.log.warning("too few changes of value to learn from: %s", names)
        plots = _plots(trained)
        candidate = Candidate(
            folder=trained.folder,
            digest=trained.digest,
            inputs=inputs,
            manifest=trained.manifest,
            parameters=_parameters(settings()),
            tags=_upstream_versions(context.instance, task.lake_versions["training_set"]),
            history=trained.history,
            predictions=trained.predictions,
            figures={f"{name}.png": figure for name, figure in plots.items()},
            training_set=rows,
        )
        with tracker.run(context, task.family) as run:
            version = register(tracker.client(), run.info.run_id, candidate, Path(work))
    return _result(tracker, version, reused=False, plots=plots)


def _result(
    tracker: Tracker, version: Any, *, reused: bool, plots: "Mapping[str, Figure] | None" = None
) -> dg.MaterializeResult[pl.DataFrame]:
    """The row and metadata of a registered version, as the tracker has them."""
    from cryptoml_assets.models.registration import out_of_sample_figures  # noqa: PLC0415

    run = tracker.client().get_run(version.run_id)
    figures = out_of_sample_figures(run)
    row = {
        "family": version.tags[FAMILY_TAG],
        "model_name": version.name,
        "model_version": str(version.version),
        "run_id": version.run_id,
        "bundle_digest": version.tags[DIGEST_TAG],
        **{name: figures[name] for name in _HEADLINES},
    }
    return dg.MaterializeResult(
        value=pl.DataFrame([row], schema=_TYPES),
        metadata={
            "model_version": row["model_version"],
            "bundle_digest": row["bundle_digest"],
            "reused": reused,
            "source": version.tags[SOURCE_TAG],
            "git_commit": run.data.tags["git_commit"],
            "figures": dg.MetadataValue.md(
                markdown_table(("figure", "out of sample"), sorted(figures.items()))
            ),
            **{name: figure_metadata(figure) for name, figure in (plots or {}).items()},
        },
    )


def _task(configured: Settings, training_set_version: int) -> Task:
    return Task(
        model_name=configured.model_name,
        family=_FAMILY,
        horizon=configured.horizon,
        bar=configured.bar,
        features=tuple(
            FeatureSpec(name=feature.name, view=feature.table)
            for feature in FEATURES
            if feature.model_input
        ),
        feature_service=return_service_name(),
        test_share=configured.test_share,
        embargo=configured.embargo,
        training=TrainingConfig(
            **{field.name: getattr(configured, field.name) for field in fields(TrainingConfig)}
        ),
        lake_versions={"training_set": training_set_version},
        git_commit=git_commit(),
    )


def _parameters(configured: Settings) -> dict[str, Any]:
    """The settings a candidate was trained with, spelled as in the environment."""
    names = {field.name for field in fields(TrainingConfig)} | {"test_share", "embargo"}
    return configured.model_dump(mode="json", include=names)


def _upstream_versions(instance: dg.DagsterInstance, training_set_version: int) -> dict[str, str]:
    """Tags that name the tables this version of the training set was made of, where recorded."""
    event = instance.get_latest_materialization_event(dg.AssetKey("training_set"))
    made = event.asset_materialization if event is not None else None
    recorded: dict[str, Any] = {}
    if made is not None:
        recorded = {name: entry.value for name, entry in made.metadata.items()}
    if recorded.get("table_version") != training_set_version:
        return {}
    return {f"lake.{table}": str(number) for table, number in recorded["lake_versions"].items()}


def _plots(trained: "Trained") -> "dict[str, Figure]":
    from cryptoml_assets.models import figures  # noqa: PLC0415

    return {
        "learning_curve": figures.learning_curve(trained.history),
        "calibration": figures.calibration_plot(trained.test, trained.answers),
    }
