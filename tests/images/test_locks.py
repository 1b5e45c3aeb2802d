"""The lock files of the images: all that is imported is there, and nothing else of weight."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest

from tests.images.locked import distributions, pins

REPOSITORY = Path(__file__).parents[2]
OURS = frozenset({"cryptoml_assets", "cryptoml_serving", "cryptoml_sandbox", "feature_repo"})
#: Whose absence the code is made for.
OPTIONAL = frozenset({"lightgbm", "xgboost"})
IMAGES = ("assets", "assets-gpu", "serving", "serving-gpu")
#: The part of the feature repository that reads online features.
READERS = ("no_offline_store", "redis_online_store", "sqlite_online_store")
#: Real servers for `make demo PROFILE=production`: they come with what development needs.
SERVERS = REPOSITORY / "cryptoml_assets" / "production" / "local"


def _name(called: ast.expr) -> str:
    """What is called, without what it belongs to."""
    return str(getattr(called, "attr", getattr(called, "id", "")))


def imported(files: Iterator[Path]) -> set[str]:
    """Top-level modules that these files import, at any depth of their code."""
    names: set[str] = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
            elif isinstance(node, ast.Call) and _name(node.func) == "import_module":
                names |= {
                    str(each.value).partition(".")[0]
                    for each in node.args
                    if isinstance(each, ast.Constant)
                }
    return names - OURS - OPTIONAL - sys.stdlib_module_names - {"__future__"}


def lacking(modules: set[str], lock: str) -> list[str]:
    """Modules that no package of the lock brings."""
    locked = set(pins(lock))
    # What is not installed here goes by its own name.
    return sorted(
        module
        for module in modules
        if not distributions().get(module, {module.replace("_", "-")}) & locked
    )


def sources(*packages: str) -> Iterator[Path]:
    for package in packages:
        yield from (REPOSITORY / package).rglob("*.py")


def test_the_serving_image_has_all_that_the_service_imports() -> None:
    readers = (REPOSITORY / "feature_repo" / f"{name}.py" for name in READERS)
    modules = imported(sources("cryptoml_serving")) | imported(readers)
    assert {"granian", "feast", "mlflow", "typeguard", "redis"} <= modules
    for lock in ("serving", "serving-gpu"):
        assert lacking(modules, lock) == []


def test_the_assets_image_has_all_that_the_asset_graph_imports() -> None:
    # The service itself is another image; its contract and its keys are all the graph takes.
    shared = (
        file
        for part in ("contract", "security")
        for file in (REPOSITORY / "cryptoml_serving" / part).rglob("*.py")
    )
    own = sources("cryptoml_assets", "cryptoml_sandbox", "feature_repo")
    modules = imported(file for file in own if not file.is_relative_to(SERVERS))
    modules |= imported(shared)
    assert {"dagster", "ccxt", "web3", "jax", "mlflow"} <= modules
    for lock in ("assets", "assets-gpu"):
        assert lacking(modules, lock) == []


def test_a_module_that_is_missing_would_be_seen() -> None:
    assert lacking({"dagster", "jax"}, "serving") == ["dagster"]


@pytest.mark.parametrize("lock", IMAGES)
def test_a_package_has_one_version_everywhere(lock: str) -> None:
    run = pins("run")
    other = {
        name: (versions, run[name])
        for name, versions in pins(lock).items()
        if name in run and versions != run[name]
    }
    assert other == {}


def test_what_a_gpu_takes_is_in_the_images_for_it_alone() -> None:
    cuda = {
        lock: {n for n in pins(lock) if n.startswith(("nvidia-", "jax-cuda"))} for lock in IMAGES
    }
    assert cuda["assets"] == cuda["serving"] == set()
    assert "jax-cuda13-plugin" in cuda["assets-gpu"] & cuda["serving-gpu"]


@pytest.mark.parametrize("lock", IMAGES)
def test_no_tool_of_development_is_in_an_image(lock: str) -> None:
    assert not set(pins(lock)) & {"pip", "setuptools", "pytest", "ruff", "hatchling", "uv"}


def test_the_serving_image_is_small() -> None:
    heavy = {"dagster", "mlflow", "ccxt", "web3", "polars", "duckdb", "matplotlib", "optax", "flax"}
    assert not set(pins("serving")) & heavy
    assert len(pins("serving")) < len(pins("assets")) / 2


@pytest.mark.parametrize("lock", ["serving", "serving-gpu"])
def test_what_is_left_out_is_out_and_would_come_in(lock: str) -> None:
    text = (REPOSITORY / "requirements" / "serving-without.in").read_text()
    left_out = set(re.findall(r"^[\w-]+", text, re.MULTILINE))
    assert left_out
    assert not left_out & set(pins(lock))
    wanted = {
        re.split(r"[^\w-]", each, maxsplit=1)[0].lower()
        for name in pins(lock)
        for each in _requirements(name)
    }
    assert left_out <= wanted


def _requirements(name: str) -> list[str]:
    """What a package asks for, by its own metadata; nothing where it is not installed."""
    try:
        return requires(name) or []
    except PackageNotFoundError:
        return []
