"""MLflow's registry in a SQLite file, read without MLflow and never written.

The three questions asked of it have kept their tables since MLflow 2.3; a file of another layout is
told as one that does not answer.
"""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Any

from cryptoml_serving.runtime.errors import RegistryUnavailableError
from cryptoml_serving.runtime.registry_client import (
    PATIENCE_SECONDS,
    Artifacts,
    RegisteredModel,
    artifacts_at,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MODEL = "SELECT 1 FROM registered_models WHERE name = ? AND workspace = 'default'"
_TAGS = "SELECT key, value FROM registered_model_tags WHERE name = ? AND workspace = 'default'"
_ALIASES = (
    "SELECT alias, version FROM registered_model_aliases WHERE name = ? AND workspace = 'default'"
)
_RUN = "SELECT artifact_uri FROM runs WHERE run_uuid = ? AND lifecycle_stage = 'active'"


class SqliteRegistry:
    """Reads the file anew each time: it may have been replaced by another."""

    def __init__(self, file: Path) -> None:
        """Touch nothing yet."""
        self._file = file

    def model(self, name: str) -> RegisteredModel | None:
        """What is registered by a name, if anything is; tags and aliases of one moment."""
        with self._reading() as connection:
            if not connection.execute(_MODEL, (name,)).fetchall():
                return None
            tags = connection.execute(_TAGS, (name,)).fetchall()
            aliases = connection.execute(_ALIASES, (name,)).fetchall()
        return RegisteredModel(
            {str(key): str(value) for key, value in tags},
            {str(alias): str(version) for alias, version in aliases},
        )

    def artifacts(self, run_id: str) -> Artifacts:
        """Where the files of a run are."""
        with self._reading() as connection:
            rows: list[tuple[Any]] = connection.execute(_RUN, (run_id,)).fetchall()
        if not rows or not rows[0][0]:
            message = f"the registry at {self._file} has no run {run_id}"
            raise RegistryUnavailableError(message)
        return artifacts_at(str(rows[0][0]), f"sqlite:///{self._file}")

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """A transaction that sees one moment of the file, which is never created."""
        try:
            if not self._file.exists():
                message = f"there is no model registry at {self._file}"
                raise RegistryUnavailableError(message)
            address = f"{self._file.absolute().as_uri()}?mode=ro"
            with contextlib.closing(
                sqlite3.connect(address, uri=True, timeout=PATIENCE_SECONDS, isolation_level=None)
            ) as connection:
                connection.execute("BEGIN")
                yield connection
        except (sqlite3.Error, OSError) as error:
            message = f"the model registry at {self._file} cannot be read: {error}"
            raise RegistryUnavailableError(message) from error
