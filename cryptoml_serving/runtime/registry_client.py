"""What the service asks of a model registry, and which client answers for an address.

MLflow's own client takes seconds to import, most of a start. Its two usual registries are read
without it: a SQLite file, and a tracking server by its REST interface. Nothing read here is
trusted; what is served is signed.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlsplit

from cryptoml_serving.contract.stores import masked
from cryptoml_serving.runtime.errors import ModelRefusedError, RegistryUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Seconds a registry may take to be reached, and may be silent.
PATIENCE_SECONDS = 3.0
_SQLITE = re.compile(r"sqlite:///(?P<path>[^?]+)$")
#: Set for servers that ask for more than a password, a token or a certificate of their own.
_MLFLOW_ONLY = (
    "MLFLOW_TRACKING_AUTH",
    "MLFLOW_TRACKING_AWS_SIGV4",
    "MLFLOW_TRACKING_CLIENT_CERT_PATH",
    "MLFLOW_TRACKING_INSECURE_TLS",
    "MLFLOW_WORKSPACE",
)


@dataclass(frozen=True)
class RegisteredModel:
    """What a registry says of a model by its name.

    Attributes:
        tags: by key.
        aliases: version that each alias points at.
    """

    tags: Mapping[str, str]
    aliases: Mapping[str, str]


class Artifacts(Protocol):
    """The files of one run."""

    def names(self, folder: str) -> list[str]:
        """Names of what lies in a folder; none where there is no such folder.

        Raises:
            RegistryUnavailableError: the artifact store does not answer.
        """

    def read(self, path: str, limit: int) -> bytes:
        """Content of a file.

        Args:
            path: below the run's folder.
            limit: bytes past which it is refused.

        Raises:
            RegistryUnavailableError: the artifact store does not answer, or has no such file.
            ModelRefusedError: it is larger.
        """


class RegistryClient(Protocol):
    """A registry with its artifact store."""

    def model(self, name: str) -> RegisteredModel | None:
        """What is registered by a name, if anything is.

        Raises:
            RegistryUnavailableError: the registry does not answer.
        """

    def artifacts(self, run_id: str) -> Artifacts:
        """Where the files of a run are.

        Raises:
            RegistryUnavailableError: the registry does not answer, or has no such run.
        """


class LocalArtifacts:
    """Files of a run in a folder of this machine."""

    def __init__(self, root: Path) -> None:
        """Touch nothing yet; ``root`` is the run's folder."""
        self._root = root

    def names(self, folder: str) -> list[str]:
        """Names of what lies in a folder; none where there is no such folder."""
        try:
            return sorted(each.name for each in (self._root / folder).iterdir())
        except FileNotFoundError:
            return self._none()
        except OSError as error:
            raise RegistryUnavailableError(str(error)) from error

    def _none(self) -> list[str]:
        """No names, where there is a store that has none."""
        try:
            if self._root.is_dir():
                return []
        except OSError as error:
            raise RegistryUnavailableError(str(error)) from error
        message = f"the artifact store has no {self._root}"
        raise RegistryUnavailableError(message)

    def read(self, path: str, limit: int) -> bytes:
        """Content of a regular file."""
        file = self._root / path
        try:
            if not file.is_file():
                # A pipe would be waited for without end.
                message = f"{file} is no file"
                raise RegistryUnavailableError(message)
            with file.open("rb") as opened:
                data = opened.read(limit + 1)
        except OSError as error:
            raise RegistryUnavailableError(str(error)) from error
        if len(data) > limit:
            raise too_large(str(file), limit)
        return data


def connect(address: str) -> RegistryClient:
    """The client for a registry; nothing is asked of it yet.

    Args:
        address: MLflow's tracking and registry address.
    """
    if found := _SQLITE.match(address):
        from cryptoml_serving.runtime.registry_sqlite import SqliteRegistry  # noqa: PLC0415

        return SqliteRegistry(Path(found["path"]))
    if re.match(r"https?://", address) and not any(os.environ.get(n) for n in _MLFLOW_ONLY):
        from cryptoml_serving.runtime.registry_rest import RestRegistry  # noqa: PLC0415

        return RestRegistry(address)
    from cryptoml_serving.runtime.registry_mlflow import MlflowRegistry  # noqa: PLC0415

    return MlflowRegistry(address)


def artifacts_at(uri: str, tracking: str) -> Artifacts:
    """The files of a run.

    Args:
        uri: where they are: a folder of this machine, or what MLflow alone can reach.
        tracking: address of the registry that says so.
    """
    parts = urlsplit(uri)
    if parts.scheme == "":
        return LocalArtifacts(Path(uri))
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return LocalArtifacts(Path(unquote(parts.path)))
    from cryptoml_serving.runtime.registry_mlflow import MlflowArtifacts  # noqa: PLC0415

    return MlflowArtifacts(uri, tracking)


def too_large(path: str, limit: int) -> ModelRefusedError:
    """The refusal of a file that would fill memory or disk."""
    return ModelRefusedError(f"{path} has more than {limit:,} bytes")


def nothing_of_run(folder: str) -> RegistryUnavailableError:
    """A store without a single file of a run: it is not the one that the run was logged to."""
    where = masked(folder)
    return RegistryUnavailableError(f"the artifact store has nothing of the run at {where}")
