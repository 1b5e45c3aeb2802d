"""Registries and artifact stores that only MLflow itself can reach: databases, object stores."""

from __future__ import annotations

import os
import posixpath
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptoml_serving.contract.registry import MLFLOW_ENVIRONMENT
from cryptoml_serving.contract.tables import making_tables
from cryptoml_serving.runtime.errors import RegistryUnavailableError, ServingError
from cryptoml_serving.runtime.registry_client import (
    Artifacts,
    RegisteredModel,
    artifacts_at,
    nothing_of_run,
    too_large,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

#: MLflow's own defaults wait for minutes; a look that fails is simply repeated. Log lines are left
#: to this service's own format.
_PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SQLALCHEMYSTORE_POOLCLASS": "NullPool",
    "MLFLOW_CONFIGURE_LOGGING": "false",
}
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


class MlflowRegistry:
    """MLflow's client for any address it knows."""

    def __init__(self, address: str) -> None:
        """Import nothing yet."""
        self._address = address
        self._client: Any = None

    def model(self, name: str) -> RegisteredModel | None:
        """What is registered by a name, if anything is."""
        with _answering("the model registry"):
            try:
                model = self._connected().get_registered_model(name)
            except _mlflow_error() as error:
                if error.error_code in _ABSENT:
                    return None
                raise
        aliases = {str(alias): str(version) for alias, version in model.aliases.items()}
        return RegisteredModel(dict(model.tags), aliases)

    def artifacts(self, run_id: str) -> Artifacts:
        """Where the files of a run are."""
        with _answering("the model registry"):
            uri = str(self._connected().get_run(run_id).info.artifact_uri)
        return artifacts_at(uri, self._address)

    def _connected(self) -> Any:
        if self._client is None:
            _import_mlflow()
            from mlflow import MlflowClient  # noqa: PLC0415 - takes seconds

            # It opens the database at once.
            with making_tables(self._address):
                self._client = MlflowClient(self._address, self._address)
        return self._client


class MlflowArtifacts:
    """Files of a run in a store that MLflow knows to read."""

    def __init__(self, uri: str, tracking: str) -> None:
        """Import nothing yet.

        Args:
            uri: the run's folder in the store.
            tracking: address of the tracking server, which may be the way to the store.
        """
        self._uri = uri
        self._tracking = tracking
        self._opened: Any = None

    def names(self, folder: str) -> list[str]:
        """Names of what lies in a folder; none where there is no such folder."""
        with _answering("the artifact store"):
            files = self._store().list_artifacts(folder)
            if not files and not self._store().list_artifacts(None):
                # Many stores say the same where they are not mounted.
                raise nothing_of_run(self._uri)
        return [posixpath.basename(file.path) for file in files]

    def read(self, path: str, limit: int) -> bytes:
        """Content of a file, by way of a temporary one."""
        with (
            _answering("the artifact store"),
            tempfile.TemporaryDirectory(prefix="cryptoml-artifact-") as folder,
        ):
            file = Path(self._store().download_artifacts(path, folder))
            if file.stat().st_size > limit:
                raise too_large(path, limit)
            return file.read_bytes()

    def _store(self) -> Any:
        if self._opened is None:
            _import_mlflow()
            from mlflow.store.artifact import artifact_repository_registry  # noqa: PLC0415

            self._opened = artifact_repository_registry.get_artifact_repository(
                self._uri, self._tracking
            )
        return self._opened


def _import_mlflow() -> None:
    """Set what MLflow reads from the environment when it is first imported."""
    os.environ.update(MLFLOW_ENVIRONMENT)
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)


def _mlflow_error() -> Any:
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - takes seconds

    return MlflowException


@contextmanager
def _answering(part: str) -> Iterator[None]:
    """Whatever MLflow and the libraries below it raise, as a part that does not answer."""
    try:
        yield
    except ServingError:
        raise
    except Exception as error:
        # Object stores and databases raise errors of their own libraries.
        message = f"{part} does not answer: {type(error).__name__}: {error}"
        raise RegistryUnavailableError(message) from error
