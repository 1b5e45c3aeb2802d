"""Which code and which libraries a run is made of, and who asked for it."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import importlib.metadata
import os
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_UNKNOWN = "unknown"
#: Beside the packages in an image, where there is no checkout to ask: the commit it was built from.
COMMIT_FILE = "COMMIT"
#: What of the checkout can change a model.
_CODE = ("cryptoml_assets", "cryptoml_serving", "feature_repo", "pyproject.toml")
_PACKAGES = ("cryptoml_assets", "cryptoml_serving")
#: Tags that Dagster gives a run, and what each says of who launched it; the first found counts.
_TRIGGERS = {
    "dagster/schedule_name": "schedule {}",
    "dagster/sensor_name": "sensor {}",
    "user": "user {}",
    "dagster/backfill": "backfill {}",
}
_LIBRARIES = ("flax", "jax", "jaxlib", "numpy", "optax")


@cache
def git_commit() -> str:
    """Commit of the image or checkout this code runs from, ``-dirty`` where its code is another.

    An installed package without either answers ``unknown``.
    """
    root = Path(__file__).parents[2]
    with contextlib.suppress(FileNotFoundError):
        return (root / COMMIT_FILE).read_text().strip()
    # Installed below somebody else's checkout, the commit found would be theirs.
    if _git(root, "rev-parse", "--show-toplevel") != str(root):
        return _UNKNOWN
    commit = _git(root, "rev-parse", "HEAD")
    if not commit:
        return _UNKNOWN
    return f"{commit}-dirty" if _git(root, "status", "--porcelain", "--", *_CODE) else commit


@cache
def code_digest() -> str:
    """SHA-256 of the source of our packages, which says more than a commit with edits on top."""
    root = Path(__file__).parents[2]
    files = sorted(file for package in _PACKAGES for file in (root / package).rglob("*.py"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(root).as_posix()}\0".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def library_versions() -> dict[str, str]:
    """Versions of what the numbers of a bundle depend on."""
    return {name: importlib.metadata.version(name) for name in _LIBRARIES}


def triggered_by(tags: Mapping[str, str] | None = None) -> str:
    """Who or what asked for a run: its schedule, sensor or user, else the process's own user.

    Args:
        tags: of the Dagster run, where there is one.
    """
    for tag, text in _TRIGGERS.items():
        if value := (tags or {}).get(tag):
            return text.format(value)
    return f"user {_process_user()}"


def _process_user() -> str:
    """Name of the user this process runs as, or its number: in a container it may have no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _git(root: Path, *arguments: str) -> str:
    try:
        answer = subprocess.run(  # noqa: S603 - fixed arguments
            ["git", "-C", str(root), *arguments],  # noqa: S607 - the person's own git
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""
