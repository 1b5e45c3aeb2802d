"""Rules of the house that no linter knows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
PACKAGES = ("cryptoml_assets", "cryptoml_serving", "cryptoml_sandbox", "feature_repo")
PIN = re.compile(r"^[a-z0-9._-]+(\[[a-z0-9, -]+\])?==[\w.+!]+( ; .+)? \\$")
HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}( \\)?$")
HEAVY = ("jax", "flax", "mlflow", "feast", "ccxt", "web3")


def loaded_by(statement: str, suspects: tuple[str, ...]) -> set[str]:
    """Which of ``suspects`` a fresh interpreter holds after ``statement``."""
    program = f"import sys; {statement}; print(*[m for m in {suspects!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=REPOSITORY,
    )
    return set(done.stdout.split())


def test_definitions_import_no_heavy_library() -> None:
    assert loaded_by("import cryptoml_assets.definitions", HEAVY) == set()


def test_service_imports_neither_dagster_nor_the_asset_graph() -> None:
    suspects = ("dagster", "cryptoml_assets", "cryptoml_sandbox", "jax", "mlflow", "feast")
    assert loaded_by("import cryptoml_serving.app", suspects) == set()


def test_heavy_imports_would_be_seen() -> None:
    assert loaded_by("import ccxt", HEAVY) == {"ccxt"}


def test_nothing_unpickles() -> None:
    word = re.compile("pickle", re.IGNORECASE)
    found = [
        line.strip()
        for package in PACKAGES
        for file in (REPOSITORY / package).rglob("*.py")
        for line in file.read_text().splitlines()
        if word.search(line)
    ]
    assert len(found) == 1
    assert "MLFLOW_ALLOW_PICKLE_DESERIALIZATION" in found[0]
    assert "false" in found[0].lower()


@pytest.fixture(scope="module")
def committed() -> dict[str, str]:
    """The text of every file git tracks or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
        cwd=REPOSITORY,
    ).stdout.split("\n")
    texts = {}
    for name in filter(None, listed):
        try:
            texts[name] = (REPOSITORY / name).read_text()
        except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
            continue
    return texts


def test_no_address_of_a_package_index(committed: dict[str, str]) -> None:
    hosts = ("pypi" + ".org", "python" + "hosted.org", "npm" + "js.org", "debian" + ".org")
    found = [(name, host) for name, text in committed.items() for host in hosts if host in text]
    assert found == []


def test_locks_hold_names_versions_and_hashes_only(committed: dict[str, str]) -> None:
    for name in ("requirements/run.txt", "requirements/dev.txt"):
        lines = [line for line in committed[name].splitlines() if not line.startswith("#")]
        odd = [line for line in lines if not (PIN.match(line) or HASH.match(line))]
        assert odd == []
        pins = {re.split(r"[\[=]", line)[0] for line in lines if "==" in line and line[0] != " "}
        assert {"dagster", "jax", "feast", "mlflow"} <= pins


def test_no_absolute_path_of_a_machine(committed: dict[str, str]) -> None:
    pattern = re.compile(r"(?<![\w.])/(?:home|root|Users|work)/\w+")
    found = {n: m[0] for n, text in committed.items() if (m := pattern.search(text))}
    assert found == {}
