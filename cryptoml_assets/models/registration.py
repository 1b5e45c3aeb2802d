"""A trained candidate in MLflow: its run, its bundle, its registered version."""

from __future__ import annotations

import importlib.metadata
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import polars as pl
from mlflow.entities import Metric, Param, RunTag
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

from cryptoml_assets.models.answers import answers_table
from cryptoml_assets.models.record import RECORD_FILE
from cryptoml_serving.contract.manifest import Manifest
from cryptoml_serving.contract.registry import (
    BUNDLE_FOLDER,
    DIGEST_TAG,
    FAMILY_TAG,
    INPUT_TAG,
    PREDICTIONS_FILE,
    SOURCE_TAG,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure

    from cryptoml_assets.models.candidates import Trained
    from cryptoml_assets.models.training import Epoch

_MODEL = "model"
#: Artifacts of the training run: answers out of sample in every fold, and the learning curves.
WALK_FORWARD_FILE = "evaluation/walk_forward.parquet"
HISTORY_FILE = "evaluation/history.parquet"
_HISTORY = {
    "fold": pl.Int32,
    "member": pl.Int32,
    "epoch": pl.Int32,
    "training_loss": pl.Float64,
    "validation_loss": pl.Float64,
}
#: How the names of the metrics begin that are not of the newest test part: losses by fold, figures
#: with the fold as their step, of all folds pooled, of the validation part, and of the comparison.
_CURVES = ("training_loss_fold_", "validation_loss_fold_")
_FOLD, _POOLED, _VALIDATION = "fold_", "pooled_", "validation_part_"
_COMPARISON = "comparison_"
#: What the comparison adds to a family's figures.
_COMPARED = (
    "rank",
    "chosen",
    "choice_score",
    "deflated_sharpe",
    "suspected_leak",
    "p_better_than_linear",
)
#: Most metrics MLflow takes at a time.
_BATCH = 1000
_WRAPPER = Path(__file__).with_name("pyfunc_model.py")
_REQUIREMENTS = ("cryptoml", "jax", "mlflow", "numpy", "pandas")


@dataclass(frozen=True)
class Candidate:
    """Everything a training leaves behind.

    Attributes:
        trained: the bundle, its answers out of sample and their figures.
        inputs: digest of all that decided its numbers.
        record: what it takes to train it again; see `models.record`.
        parameters: settings it was trained with.
        tags: provenance that does not change its numbers, such as versions of upstream tables.
        figures: plots by file name.
        training_set: the rows, for MLflow's record of its inputs.
    """

    trained: Trained
    inputs: str
    record: bytes
    parameters: Mapping[str, Any]
    tags: Mapping[str, str]
    figures: Mapping[str, Figure]
    training_set: pl.DataFrame


def newest_version(client: Any, model_name: str, family: str) -> Any | None:
    """The newest registered version of one family of a model, if there is any."""
    versions = client.search_model_versions(f"name = '{model_name}'")
    own = (version for version in versions if version.tags.get(FAMILY_TAG) == family)
    return max(own, key=lambda version: int(version.version), default=None)


def out_of_sample_figures(run: Any) -> dict[str, float]:
    """The figures of a training run's newest test part by name."""
    metrics: dict[str, float] = run.data.metrics
    others = (*_CURVES, _FOLD, _POOLED, _VALIDATION, _COMPARISON)
    return {name: value for name, value in metrics.items() if not name.startswith(others)}


def validation_skill(run: Any, claim: str) -> float:
    """What chooses a family where there is no earlier fold: its skill in the validation part."""
    return float(run.data.metrics[f"{_VALIDATION}{claim}_skill"])


def log_comparison(client: Any, table: pl.DataFrame) -> None:
    """Write into the run of each family how it stood beside the others.

    Args:
        client: of the tracker.
        table: the comparison; benchmarks have no run.
    """
    now = int(time.time() * 1000)
    for row in table.drop_nulls("run_id").iter_rows(named=True):
        known = [(name, row[name]) for name in _COMPARED if row[name] is not None]
        metrics = [Metric(f"{_COMPARISON}{name}", float(value), now, 0) for name, value in known]
        client.log_batch(row["run_id"], metrics=metrics)


def fetch_answers(client: Any, run_id: str, folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A run's answers out of sample in every fold, and its learning curves, as tables."""
    tables = (WALK_FORWARD_FILE, HISTORY_FILE)
    answers, history = (
        pl.read_parquet(client.download_artifacts(run_id, name, str(folder))) for name in tables
    )
    return answers, history


def register(client: Any, run_id: str, candidate: Candidate, work: Path) -> Any:
    """Log a candidate into the active run and register it as a new version.

    Args:
        client: of the tracker.
        run_id: the active run.
        candidate: what to log.
        work: an empty folder for files on their way.

    Returns:
        The model version.
    """
    trained, manifest = candidate.trained, candidate.trained.manifest
    tags = {
        FAMILY_TAG: manifest.family,
        SOURCE_TAG: manifest.source,
        DIGEST_TAG: trained.digest,
        INPUT_TAG: candidate.inputs,
    }
    _log_figures(client, run_id, candidate, tags)
    _log_evaluation(candidate, work / "evaluation")
    for name, figure in candidate.figures.items():
        mlflow.log_figure(figure, f"plots/{name}")
    mlflow.log_artifacts(str(trained.folder), BUNDLE_FOLDER)
    dataset = mlflow.data.from_polars(candidate.training_set, name="training_set", targets="label")
    mlflow.log_input(dataset, context="training")
    logged = _log_model(candidate)
    if not client.search_registered_models(f"name = '{manifest.model_name}'"):
        client.create_registered_model(manifest.model_name)
    return client.create_model_version(
        manifest.model_name,
        source=logged.model_uri,
        run_id=run_id,
        model_id=logged.model_id,
        tags=tags,
    )


def _log_evaluation(candidate: Candidate, folder: Path) -> None:
    """The record of the training, its learning curves, and its answers out of sample."""
    folder.mkdir()
    trained = candidate.trained
    Path(folder, Path(RECORD_FILE).name).write_bytes(candidate.record)
    tables = {
        PREDICTIONS_FILE: trained.predictions,
        WALK_FORWARD_FILE: answers_table(trained.folds),
        HISTORY_FILE: pl.DataFrame([asdict(epoch) for epoch in trained.history], schema=_HISTORY),
    }
    for name, table in tables.items():
        table.write_parquet(folder / Path(name).name)
    mlflow.log_artifacts(str(folder), folder.name)


def _log_model(candidate: Candidate) -> Any:
    """The bundle as a model that ``mlflow.pyfunc.load_model`` finds."""
    with warnings.catch_warnings():
        # The signature is stated; guessing one from annotations or an example adds nothing.
        warnings.filterwarnings("ignore", "(?s).*(type hint|input example)", UserWarning)
        return mlflow.pyfunc.log_model(
            name=_MODEL,
            python_model=str(_WRAPPER),
            artifacts={"bundle": str(candidate.trained.folder)},
            model_config={"digest": candidate.trained.digest},
            signature=_signature(candidate.trained.manifest),
            pip_requirements=[
                f"{name}=={importlib.metadata.version(name)}" for name in _REQUIREMENTS
            ],
        )


def _log_figures(client: Any, run_id: str, candidate: Candidate, tags: Mapping[str, str]) -> None:
    """Parameters, tags and metrics, each in one call: one by one they cost 7 ms apiece."""
    trained, manifest = candidate.trained, candidate.trained.manifest
    now = int(time.time() * 1000)
    figures = manifest.metrics | {f"{_POOLED}{name}": v for name, v in trained.pooled.items()}
    for claim, skill in trained.validation_skill.items():
        figures[f"{_VALIDATION}{claim}_skill"] = skill
    metrics = [Metric(name, value, now, 0) for name, value in figures.items()]
    for fold, each in enumerate(trained.fold_figures):
        metrics += [Metric(f"{_FOLD}{name}", value, now, fold) for name, value in each.items()]
    for epoch, losses in _mean_losses(trained.history).items():
        for name, loss in zip(_CURVES, losses, strict=True):
            metrics.append(Metric(f"{name}{epoch[0]}", loss, now, epoch[1]))
    parameters = {
        **candidate.parameters,
        **{f"chosen_{name}": value for name, value in trained.hyper.items()},
        "feature_service": manifest.feature_service,
        "horizon_seconds": manifest.horizon_seconds,
        "bar_seconds": manifest.bar_seconds,
        **{f"lake.{table}": version for table, version in manifest.lake_versions.items()},
    }
    record = {"git_commit": manifest.git_commit, **candidate.tags, **tags}
    for start in range(0, len(metrics), _BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + _BATCH])
    client.log_batch(
        run_id,
        params=[Param(name, str(value)) for name, value in parameters.items()],
        tags=[RunTag(name, value) for name, value in record.items()],
    )


def _mean_losses(history: Sequence[Epoch]) -> dict[tuple[int, int], tuple[float, float]]:
    """Training and validation loss by fold and epoch, means over the networks that still train."""
    losses: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for each in history:
        both = (each.training_loss, each.validation_loss)
        losses.setdefault((each.fold, each.epoch), []).append(both)
    return {
        place: (sum(a for a, _ in known) / len(known), sum(b for _, b in known) / len(known))
        for place, known in losses.items()
    }


def _signature(manifest: Manifest) -> ModelSignature:
    inputs = [ColSpec("double", feature.name) for feature in manifest.features]
    outputs = [ColSpec("float", name) for name in manifest.outputs]
    return ModelSignature(Schema(inputs), Schema(outputs))
