"""PostgreSQL, a server of the Redis protocol and an S3 store, started once for all tests here."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from cryptoml_assets.production.local.servers import local_servers
from cryptoml_assets.settings import settings
from tests.production.credentials import SPECIAL


@pytest.fixture(scope="session")
def servers() -> Iterator[Mapping[str, str]]:
    """The variables by which a process finds the servers."""
    # Not below pytest's folder: root's PostgreSQL runs as another user, whom pytest keeps out.
    with tempfile.TemporaryDirectory(prefix="cryptoml-servers-") as folder:
        Path(folder).chmod(0o755)
        with local_servers(Path(folder), added=SPECIAL) as variables:
            yield variables


@pytest.fixture(autouse=True)
def own_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what preparing a Dagster home does to this process."""
    monkeypatch.setenv("DAGSTER_HOME", "")


@pytest.fixture
def production(servers: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    """This process on the servers of production."""
    for name, value in servers.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    return servers
