"""MLflow, tied to the Dagster run that uses it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import dagster as dg

from cryptoml_serving.contract.registry import MLFLOW_ENVIRONMENT
from cryptoml_serving.contract.tables import making_tables

_SQLITE = "sqlite:///"
_PARENT_TAG = "mlflow.parentRunId"


class Tracker(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Experiment tracking and the model registry, through dagster-mlflow.

    Attributes:
        tracking_uri: MLflow's address, such as ``sqlite:////home/…/mlflow.db``.
        artifact_location: where the artifacts of a new experiment go; empty: where the tracking
            server says.
        experiment: name of the experiment that runs belong to.
    """

    tracking_uri: str
    artifact_location: str = ""
    experiment: str = "cryptoml"

    def client(self) -> Any:
        """An ``MlflowClient``, with the experiment there to be used."""
        mlflow = self._mlflow()
        with _quiet():
            _create_at_once(mlflow, self.tracking_uri)
            client = mlflow.MlflowClient()
            if client.get_experiment_by_name(self.experiment) is None:
                client.create_experiment(self.experiment, self.artifact_location or None)
        return client

    @contextmanager
    def run(self, context: dg.AssetExecutionContext, name: str) -> Iterator[Any]:
        """An active MLflow run called ``name``.

        It is a child of the MLflow run that dagster-mlflow keeps for the whole Dagster run, tagged
        with its id, so that either UI leads to the other. A failure inside marks both as failed.
        """
        mlflow = self._mlflow()
        self.client()
        with ExitStack() as stack:
            tracked = self._dagster_mlflow(context, stack)
            tracked.set_tag("mlflow.runName", f"dagster {context.run.run_id[:8]}")
            try:
                with mlflow.start_run(run_name=name, nested=True) as run:
                    mlflow.set_tag("dagster_run_id", context.run.run_id)
                    yield run
            except BaseException:  # interrupted too: it would go on as running
                tracked.end_run("FAILED")
                raise
            tracked.end_run()

    def _dagster_mlflow(self, context: dg.AssetExecutionContext, stack: ExitStack) -> Any:
        """dagster-mlflow's resource, open until ``stack`` closes."""
        with _quiet():
            from dagster_mlflow import mlflow_tracking  # noqa: PLC0415 - imports mlflow

            config = {
                "experiment_name": self.experiment,
                "mlflow_tracking_uri": self.tracking_uri,
                "mlflow_run_id": self._whole_run(context.run.run_id),
                "extra_tags": {"dagster_job": context.run.job_name},
            }
            resources = stack.enter_context(
                dg.build_resources(
                    {"mlflow": mlflow_tracking},
                    instance=context.instance,
                    resource_config={"mlflow": {"config": config}},
                    dagster_run=context.run,
                    log_manager=context.log,
                )
            )
        return resources.mlflow

    def _whole_run(self, dagster_run_id: str) -> str | None:
        """The MLflow run of a Dagster run, where it has begun.

        Left to itself, dagster-mlflow takes the newest run with the tag, which may be a child.
        """
        client = self._mlflow().MlflowClient()
        experiment = client.get_experiment_by_name(self.experiment)
        found = client.search_runs(
            [experiment.experiment_id], f"tags.dagster_run_id = '{dagster_run_id}'"
        )
        return next((r.info.run_id for r in found if _PARENT_TAG not in r.data.tags), None)

    def _mlflow(self) -> Any:
        """The module, pointed at this tracker; imported only once its environment is set."""
        os.environ.update(MLFLOW_ENVIRONMENT)
        import mlflow  # noqa: PLC0415 - seconds to import

        mlflow.set_tracking_uri(self.tracking_uri)
        mlflow.set_registry_uri(self.tracking_uri)
        return mlflow


def _create_at_once(mlflow: Any, address: str) -> None:
    """Let a new database appear with all of its tables.

    The inference service looks for it and opens it; while the tables are being made, both would
    make them, and one of the two would fail.
    """
    with making_tables(address):
        if address.startswith("postgresql"):
            mlflow.MlflowClient(address, address).search_experiments(max_results=1)
    if not address.startswith(_SQLITE) or (path := Path(address.removeprefix(_SQLITE))).exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    mlflow.MlflowClient(f"{_SQLITE}{fresh}", f"{_SQLITE}{fresh}").search_experiments()
    # A link, unlike a rename, never replaces what another process made meanwhile.
    with suppress(FileExistsError):
        os.link(fresh, path)
    fresh.unlink()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what these libraries warn each other about: nothing here could change it."""
    with warnings.catch_warnings():
        # dagster-mlflow is old-style and marked beta; MLflow's tables use a deprecated loader.
        warnings.simplefilter("ignore", dg.BetaWarning)
        warnings.filterwarnings("ignore", "InitResourceContext", DeprecationWarning)
        warnings.filterwarnings("ignore", "The ``noload`` loader", DeprecationWarning)
        yield
