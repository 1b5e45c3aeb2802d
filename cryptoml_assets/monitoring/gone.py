"""Whether something is gone for good, or cannot be read now.

Only a store that answers, and lacks it, says that it is gone. Everything else may be an outage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from cryptoml_assets.monitoring.commits import commits
from cryptoml_serving.contract.bundle import MANIFEST_FILE
from cryptoml_serving.contract.registry import BUNDLE_FOLDER

if TYPE_CHECKING:
    from cryptoml_assets.errors import TrainingRecordError
    from cryptoml_assets.resources.lake import Lake


def record_gone(client: Any, run_id: str | None, error: TrainingRecordError) -> bool:
    """Whether what a run left behind is not there, or no manifest, by tracker and store.

    Args:
        client: of the tracker.
        run_id: the run; none where not even that could be read.
        error: what reading it ended in.
    """
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - seconds to import
    from pydantic import ValidationError  # noqa: PLC0415

    cause = error.__cause__
    if isinstance(cause, ValidationError):
        return True
    if isinstance(cause, MlflowException) and cause.error_code == "RESOURCE_DOES_NOT_EXIST":
        return True
    if run_id is None:
        return False
    try:
        # A failed download does not say why: each store words it differently.
        files = client.list_artifacts(run_id, BUNDLE_FOLDER)
    # Each artifact store raises the errors of its own client.
    except Exception:  # noqa: BLE001
        return False
    return f"{BUNDLE_FOLDER}/{MANIFEST_FILE}" not in {each.path for each in files}


def version_gone(lake: Lake, table: str, version: int) -> bool:
    """Whether the log, or a file, of a table's version was cleaned away."""
    try:
        try:
            files = DeltaTable(lake.address(table), version=version).file_uris()
        except (DeltaError, OSError):
            return version not in {each.version for each in commits(lake, table)}
        return _any_missing(lake, files)
    except (DeltaError, OSError):
        return False


def _any_missing(lake: Lake, files: list[str]) -> bool:
    from pyarrow import fs  # noqa: PLC0415  (a quarter of a second that only failures need)

    remote = "://" in lake.uri
    system = fs.FileSystem.from_uri(lake.uri)[0] if remote else fs.LocalFileSystem()
    found = system.get_file_info([each.split("://", 1)[-1] for each in files])
    return any(each.type is fs.FileType.NotFound for each in found)
