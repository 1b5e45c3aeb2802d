"""A trained candidate in MLflow: its run, its bundle, its registered version."""

from __future__ import annotations

import importlib.metadata
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.entities import Metric, Param, RunTag
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

from cryptoml_serving.contract.bundle import Manifest
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

    import polars as pl
    from matplotlib.figure import Figure

    from cryptoml_assets.models.training import Epoch

_MODEL = "model"
_CURVE_PARTS = ("training", "validation")
_WRAPPER = Path(__file__).with_name("pyfunc_model.py")
_REQUIREMENTS = ("cryptoml", "jax", "mlflow", "numpy", "pandas")


@dataclass(frozen=True)
class Candidate:
    """Everything a training leaves behind.

    Attributes:
        folder: the bundle.
        digest: of the bundle.
        inputs: digest of all that decided its numbers.
        manifest: of the bundle.
        parameters: settings it was trained with.
        tags: provenance that does not change its numbers, such as versions of upstream tables.
        history: the learning curve.
        predictions: the trainer's answers to the out-of-sample rows, with symbol and
            event_timestamp.
        figures: plots by file name.
        training_set: the rows, for MLflow's record of its inputs.
    """

    folder: Path
    digest: str
    inputs: str
    manifest: Manifest
    parameters: Mapping[str, Any]
    tags: Mapping[str, str]
    history: Sequence[Epoch]
    predictions: pl.DataFrame
    figures: Mapping[str, Figure]
    training_set: pl.DataFrame


def newest_version(client: Any, model_name: str, family: str) -> Any | None:
    """The newest registered version of one family of a model, if there is any."""
    versions = client.search_model_versions(f"name = '{model_name}'")
    own = (version for version in versions if version.tags.get(FAMILY_TAG) == family)
    return max(own, key=lambda version: int(version.version), default=None)


def out_of_sample_figures(run: Any) -> dict[str, float]:
    """The figures of a training run's test part by name: its metrics less the learning curve."""
    metrics: dict[str, float] = run.data.metrics
    curve = tuple(f"{part}_loss_" for part in _CURVE_PARTS)
    return {name: value for name, value in metrics.items() if not name.startswith(curve)}


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
    manifest = candidate.manifest
    tags = {
        FAMILY_TAG: manifest.family,
        SOURCE_TAG: manifest.source,
        DIGEST_TAG: candidate.digest,
        INPUT_TAG: candidate.inputs,
    }
    _log_figures(client, run_id, candidate, tags)
    predictions = work / Path(PREDICTIONS_FILE).name
    candidate.predictions.write_parquet(predictions)
    mlflow.log_artifact(str(predictions), str(Path(PREDICTIONS_FILE).parent))
    for name, figure in candidate.figures.items():
        mlflow.log_figure(figure, f"plots/{name}")
    mlflow.log_artifacts(str(candidate.folder), BUNDLE_FOLDER)
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


def _log_model(candidate: Candidate) -> Any:
    """The bundle as a model that ``mlflow.pyfunc.load_model`` finds."""
    with warnings.catch_warnings():
        # The signature is stated; guessing one from annotations or an example adds nothing.
        warnings.filterwarnings("ignore", "(?s).*(type hint|input example)", UserWarning)
        return mlflow.pyfunc.log_model(
            name=_MODEL,
            python_model=str(_WRAPPER),
            artifacts={"bundle": str(candidate.folder)},
            model_config={"digest": candidate.digest},
            signature=_signature(candidate.manifest),
            pip_requirements=[
                f"{name}=={importlib.metadata.version(name)}" for name in _REQUIREMENTS
            ],
        )


def _log_figures(client: Any, run_id: str, candidate: Candidate, tags: Mapping[str, str]) -> None:
    """Parameters, tags and metrics, each in one call: one by one they cost 7 ms apiece."""
    manifest = candidate.manifest
    now = int(time.time() * 1000)
    metrics = [Metric(name, value, now, 0) for name, value in manifest.metrics.items()]
    for epoch in candidate.history:
        for part in _CURVE_PARTS:
            name = f"{part}_loss_{epoch.member}"
            metrics.append(Metric(name, getattr(epoch, f"{part}_loss"), now, epoch.epoch))
    parameters = {
        **candidate.parameters,
        "feature_service": manifest.feature_service,
        "horizon_seconds": manifest.horizon_seconds,
        "bar_seconds": manifest.bar_seconds,
        **{f"lake.{table}": version for table, version in manifest.lake_versions.items()},
    }
    record = {"git_commit": manifest.git_commit, **candidate.tags, **tags}
    client.log_batch(
        run_id,
        metrics=metrics,
        params=[Param(name, str(value)) for name, value in parameters.items()],
        tags=[RunTag(name, value) for name, value in record.items()],
    )


def _signature(manifest: Manifest) -> ModelSignature:
    inputs = [ColSpec("double", feature.name) for feature in manifest.features]
    outputs = [ColSpec("float", name) for name in manifest.outputs]
    return ModelSignature(Schema(inputs), Schema(outputs))
