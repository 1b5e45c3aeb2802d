"""Assets of the models room: candidates for serving, each a registered version of one model."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from cryptoml_assets.features.catalog import FEATURES
from cryptoml_assets.plots import figure_metadata
from cryptoml_assets.resources.tracker import Tracker
from cryptoml_assets.settings import Settings, settings
from cryptoml_serving.contract.bundle import FeatureSpec
from cryptoml_serving.contract.registry import FEATURE_SERVICE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cryptoml_assets.models.candidates import Task, Trained
    from cryptoml_assets.models.registration import Candidate

_HEADLINES = (
    "test_rows",
    "log_loss_skill",
    "direction_p_value",
    "crps_skill",
    "crps_p_value",
    "information_coefficient",
    "accuracy",
    "coverage",
)


@dg.asset(
    group_name="models",
    kinds={"jax", "flax", "mlflow"},
    owners=["team:research"],
    code_version="1",
    io_manager_key="lake",
    required_resource_keys={"lake", "tracker"},
    metadata={
        "dagster/column_schema": dg.TableSchema(
            [
                dg.TableColumn("family", "String", description="kind of model"),
                dg.TableColumn("model_name", "String", description="registered model"),
                dg.TableColumn("model_version", "String", description="the registry's version"),
                dg.TableColumn("run_id", "String", description="MLflow run that trained it"),
                dg.TableColumn("bundle_digest", "String", description="SHA-256 of the bundle"),
                *(dg.TableColumn(name, "Float64", description="see docs") for name in _HEADLINES),
            ]
        )
    },
)
def candidate_models(
    context: dg.AssetExecutionContext, training_set: pl.DataFrame
) -> dg.MaterializeResult[pl.DataFrame]:
    """Trained, calibrated and registered models that ask to be approved.

    One row per model family: its registered version, the digest of its bundle, and its headline
    figures out of sample. Training again on the same rows with the same settings finds the same
    digest and registers nothing.
    """
    from cryptoml_assets.models import candidates, registration  # noqa: PLC0415

    configured, tracker = settings(), context.resources.tracker
    task = _task(configured, context.resources.lake.lake.version("training_set"))
    with tempfile.TemporaryDirectory() as work:
        trained = candidates.train_candidate(
            training_set, task, Path(work, "bundle"), log=context.log.info
        )
        if trained.unseen:
            names = ", ".join(trained.unseen)
            context.log.warning("too few changes of value to learn from: %s", names)
        figures = _figures(trained)
        known = registration.newest_version(tracker.client(), task.model_name, trained.digest)
        candidate = _candidate(context, configured, trained, training_set, figures)
        version = known or _register(context, tracker, candidate, Path(work))
    manifest = trained.manifest
    return dg.MaterializeResult(
        value=_row(trained, version),
        metadata={
            "model_version": str(version.version),
            "bundle_digest": trained.digest,
            "newly_registered": known is None,
            "source": manifest.source,
            "git_commit": manifest.git_commit,
            "figures": dg.MetadataValue.md(_table(manifest.metrics)),
            **{name: figure_metadata(figure) for name, figure in figures.items()},
        },
    )


def _row(trained: "Trained", version: Any) -> pl.DataFrame:
    manifest = trained.manifest
    row = {
        "family": manifest.family,
        "model_name": manifest.model_name,
        "model_version": str(version.version),
        "run_id": version.run_id,
        "bundle_digest": trained.digest,
        **{name: manifest.metrics[name] for name in _HEADLINES},
    }
    return pl.DataFrame([row])


def _register(
    context: dg.AssetExecutionContext, tracker: Tracker, candidate: "Candidate", work: Path
) -> Any:
    from cryptoml_assets.models.registration import register  # noqa: PLC0415

    with tracker.run(context, candidate.manifest.family) as run:
        return register(tracker.client(), run.info.run_id, candidate, work)


def _task(configured: Settings, training_set_version: int) -> "Task":
    from cryptoml_assets.models.candidates import Task  # noqa: PLC0415
    from cryptoml_assets.models.provenance import git_commit  # noqa: PLC0415
    from cryptoml_assets.models.training import TrainingConfig  # noqa: PLC0415

    return Task(
        model_name=configured.model_name,
        horizon=configured.horizon,
        bar=configured.bar,
        features=tuple(
            FeatureSpec(name=feature.name, view=feature.table)
            for feature in FEATURES
            if feature.model_input
        ),
        feature_service=FEATURE_SERVICE,
        test_share=configured.test_share,
        embargo=configured.embargo,
        training=TrainingConfig(
            hidden_units=configured.hidden_units,
            epochs=configured.epochs,
            batch_size=configured.batch_size,
            learning_rate=configured.learning_rate,
            weight_decay=configured.weight_decay,
            ensemble_size=configured.ensemble_size,
            seed=configured.seed,
        ),
        lake_versions={"training_set": training_set_version},
        git_commit=git_commit(),
    )


def _candidate(
    context: dg.AssetExecutionContext,
    configured: Settings,
    trained: "Trained",
    training_set: pl.DataFrame,
    figures: "dict[str, Figure]",
) -> "Candidate":
    from cryptoml_assets.models.registration import Candidate  # noqa: PLC0415

    lake = context.resources.lake.lake
    parameters = configured.model_dump(
        mode="json",
        include={
            "hidden_units",
            "epochs",
            "batch_size",
            "learning_rate",
            "weight_decay",
            "ensemble_size",
            "seed",
            "test_share",
            "embargo",
        },
    )
    return Candidate(
        folder=trained.folder,
        digest=trained.digest,
        manifest=trained.manifest,
        parameters=parameters,
        # What the training set was made of; its own version stands in the manifest.
        tags={f"lake.{table}": str(lake.version(table)) for table in lake.tables()},
        history=trained.history,
        predictions=trained.predictions,
        figures={f"{name}.png": figure for name, figure in figures.items()},
        training_set=training_set,
    )


def _figures(trained: "Trained") -> "dict[str, Figure]":
    from cryptoml_assets.models import figures  # noqa: PLC0415

    return {
        "learning_curve": figures.learning_curve(trained.history),
        "calibration": figures.calibration_plot(trained.test, trained.answers),
    }


def _table(figures: dict[str, float]) -> str:
    lines = [f"| {name} | {value:.6g} |" for name, value in sorted(figures.items())]
    return "\n".join(["| figure | out of sample |", "|---|---|", *lines])
