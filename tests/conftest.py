"""What every test starts from: settings of its own, never those of the person who runs it."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Before Feast, which turns it to files that all processes and registries share when imported first.
import prometheus_client  # noqa: F401
import pytest

from cryptoml_assets.models.compilation import private_folder
from cryptoml_assets.settings import settings

REPOSITORY = Path(__file__).parents[1]
#: Below the system's own folder, whoever the checkout belongs to.
PROGRAMS = Path(tempfile.gettempdir(), f"cryptoml-tests-{os.getuid()}", "programs")

for _name in [name for name in os.environ if name.startswith("CRYPTOML_")]:
    if _name != "CRYPTOML_REALDATA":
        del os.environ[_name]

# Compiled once for all processes of a run: most of what a small training takes is its compiler.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(private_folder(PROGRAMS))
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

#: Options and closing lines of the fault schedules and of the honesty tests, which every process
#: of a run has to know.
pytest_plugins = ["tests.chaos.plugin", "tests.honesty.plugin"]

# A shell ignores SIGINT in what it starts in the background, and Dagster hands SIGTERM, which tests
# stop processes with, what SIGINT has.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, after the files were shuffled."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(autouse=True)
def own_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("CRYPTOML_HOME", str(tmp_path / "home"))
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.fixture(scope="session")
def realdata() -> Path:
    folder = os.environ.get("CRYPTOML_REALDATA")
    if not folder:
        pytest.skip("CRYPTOML_REALDATA is not set: no recorded data on this machine")
    return Path(folder)
