"""Which code and which libraries a run is made of."""

from __future__ import annotations

import hashlib
import importlib.metadata
import subprocess
from functools import cache
from pathlib import Path

_UNKNOWN = "unknown"
#: What of the checkout can change a model.
_CODE = ("cryptoml_assets", "cryptoml_serving", "feature_repo", "pyproject.toml")
_PACKAGES = ("cryptoml_assets", "cryptoml_serving")
_LIBRARIES = ("flax", "jax", "jaxlib", "numpy", "optax")


@cache
def git_commit() -> str:
    """Commit of the checkout this code runs from, ``-dirty`` where its code differs from it.

    An installed package without a checkout answers ``unknown``.
    """
    root = Path(__file__).parents[2]
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
