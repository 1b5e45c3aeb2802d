"""MLflow, tied to the Dagster run that uses it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import dagster as dg

from cryptoml_serving.contract.registry import MLFLOW_ENVIRONMENT


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
            except BaseException:
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

    def _mlflow(self) -> Any:
        """The module, pointed at this tracker; imported only once its environment is set."""
        os.environ.update(MLFLOW_ENVIRONMENT)
        import mlflow  # noqa: PLC0415 - seconds to import

        mlflow.set_tracking_uri(self.tracking_uri)
        mlflow.set_registry_uri(self.tracking_uri)
        return mlflow


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what these libraries warn each other about: nothing here could change it."""
    with warnings.catch_warnings():
        # dagster-mlflow is old-style and marked beta; MLflow's tables use a deprecated loader.
        warnings.simplefilter("ignore", dg.BetaWarning)
        warnings.filterwarnings("ignore", "InitResourceContext", DeprecationWarning)
        warnings.filterwarnings("ignore", "The ``noload`` loader", DeprecationWarning)
        yield
