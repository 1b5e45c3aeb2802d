"""MLflow's registries read without MLflow: as its own client reads them, and within limits."""

from __future__ import annotations

import gc
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests

from cryptoml_serving.contract.registry import MLFLOW_ENVIRONMENT
from cryptoml_serving.runtime import registry_rest, registry_sqlite
from cryptoml_serving.runtime.errors import ModelRefusedError, RegistryUnavailableError
from cryptoml_serving.runtime.registry_client import LocalArtifacts, RegistryClient, connect
from cryptoml_serving.runtime.registry_mlflow import MlflowRegistry
from cryptoml_serving.runtime.registry_rest import RestRegistry
from cryptoml_serving.runtime.registry_sqlite import SqliteRegistry
from tests.sandbox_server import free_port
from tests.serving_client import serving, wait, write_usual_features
from tests.serving_world import MODEL, ServingWorld, build_templates
from tests.talking_server import answering, saying

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServingWorld, str]]:
    """A world whose registry MLflow's own server has opened, artifacts included."""
    folder = tmp_path_factory.mktemp("tracked")
    world = ServingWorld(folder, build_templates(tmp_path_factory.getbasetemp()))
    write_usual_features(world)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    options = {
        "--backend-store-uri": f"sqlite:///{world.home / 'mlflow.db'}",
        "--artifacts-destination": str(folder / "handed-out"),
        "--host": "127.0.0.1",
        "--port": str(port),
        "--workers": "1",
    }
    command = [sys.executable, "-m", "mlflow", "server"]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *(part for option in options.items() for part in option)],
            stdout=log,
            stderr=log,
            env={**os.environ, **MLFLOW_ENVIRONMENT},
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 90
        while not _answers(f"{url}/health"):
            assert process.poll() is None, (folder / "server.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        _use_server(world, url)
        yield world, url
    finally:
        _close_sessions()
        os.killpg(process.pid, 15)
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).is_success
    except httpx.TransportError:
        return False


def _close_sessions() -> None:
    """Close the connections that MLflow's client keeps: unclosed ones are warned about."""
    for each in gc.get_objects():
        if isinstance(each, requests.Session):
            each.close()


def _use_server(world: ServingWorld, url: str) -> None:
    """Publish through the server from now on, artifacts too."""
    from mlflow import MlflowClient  # noqa: PLC0415 - takes seconds

    world.client = MlflowClient(url, url)
    world.experiment = world.client.create_experiment("handed out by the server")


def same(ours: RegistryClient, theirs: RegistryClient, run: str) -> None:
    """Check that two clients read the same."""
    assert ours.model(MODEL) == theirs.model(MODEL)
    assert ours.model("nobody") is None
    assert theirs.model("nobody") is None
    own, other = ours.artifacts(run), theirs.artifacts(run)
    for folder in ("bundle", "approval", "nothing"):
        assert sorted(own.names(folder)) == sorted(other.names(folder))
    assert sorted(own.names("bundle")) == [
        "manifest.json",
        "model.stablehlo",
        "weights.safetensors",
    ]
    program = own.read("bundle/model.stablehlo", 2**20)
    assert program == other.read("bundle/model.stablehlo", 2**20)
    with pytest.raises(ModelRefusedError, match=r"more than 9 bytes"):
        own.read("bundle/model.stablehlo", 9)
    for client in (ours, theirs):
        with pytest.raises(RegistryUnavailableError):
            client.artifacts("0" * 32).names("bundle")


def test_a_server_and_its_file_are_read_as_mlflow_reads_them(
    server: tuple[ServingWorld, str],
) -> None:
    world, url = server
    published = world.publish()
    assert world.client.get_run(published.run).info.artifact_uri.startswith("mlflow-artifacts:/")
    rest, file = connect(url), connect(f"sqlite:///{world.home / 'mlflow.db'}")
    assert (type(rest), type(file)) == (RestRegistry, SqliteRegistry)
    same(rest, MlflowRegistry(url), published.run)
    assert file.model(MODEL) == rest.model(MODEL)
    model = rest.model(MODEL)
    assert model is not None
    assert model.aliases == {"champion": published.version}
    assert "cryptoml.deployment" in model.tags


def test_a_service_follows_a_server(server: tuple[ServingWorld, str]) -> None:
    world, url = server
    first = world.publish()
    with serving(world, tracking_uri=url) as client:
        client.wait_ready()
        assert client.ask("BTC/USDT").json()["model_version"] == first.version
        second = world.publish()
        wait(lambda: client.ask("BTC/USDT").json()["model_version"] == second.version)
        wait(lambda: client.get("/ready").json()["problems"] == {})
    # The server says that there is nothing, and no error, of a store that is not mounted.
    store = world.folder / "handed-out"
    store.rename(world.folder / "not-mounted")
    try:
        with serving(world, tracking_uri=url) as client:
            client.wait_ready()
            assert client.ask("BTC/USDT").json()["model_version"] == second.version
    finally:
        if store.exists():
            shutil.rmtree(store)
        (world.folder / "not-mounted").rename(store)


@pytest.fixture
def world(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> ServingWorld:
    return ServingWorld(tmp_path, build_templates(tmp_path_factory.getbasetemp()))


def test_a_file_is_read_as_mlflow_reads_it_and_never_written(world: ServingWorld) -> None:
    published = world.publish()
    database = world.home / "mlflow.db"
    database.chmod(0o444)
    before = database.read_bytes()
    address = f"sqlite:///{database}"
    same(connect(address), MlflowRegistry(address), published.run)
    assert database.read_bytes() == before


def test_a_locked_a_foreign_and_a_deleted_one_are_told(
    world: ServingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_sqlite, "PATIENCE_SECONDS", 0.1)
    published = world.publish()
    database = world.home / "mlflow.db"
    registry = SqliteRegistry(database)
    with closing(sqlite3.connect(database)) as held:
        held.execute("BEGIN EXCLUSIVE")
        with pytest.raises(RegistryUnavailableError, match="locked"):
            registry.model(MODEL)
        held.rollback()
    world.client.delete_run(published.run)
    with pytest.raises(RegistryUnavailableError, match=f"no run {published.run}"):
        registry.artifacts(published.run)
    with closing(sqlite3.connect(world.folder / "other.db")) as other:
        other.execute("CREATE TABLE registered_models (name)")
    with pytest.raises(RegistryUnavailableError, match="no such column: workspace"):
        SqliteRegistry(world.folder / "other.db").model(MODEL)
    (world.folder / "other.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(RegistryUnavailableError, match="not a database"):
        SqliteRegistry(world.folder / "other.db").model(MODEL)


def test_a_pipe_among_the_artifacts_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    os.mkfifo(tmp_path / "bundle" / "manifest.json")
    with pytest.raises(RegistryUnavailableError, match="is no file"):
        LocalArtifacts(tmp_path).read("bundle/manifest.json", 10)


def test_what_needs_mlflow_itself_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for address in ("postgresql://u:p@h/d", "databricks", "sqlite:////a.db?timeout=3"):
        assert type(connect(address)) is MlflowRegistry
    monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "a-plugin")
    assert type(connect("http://127.0.0.1:1")) is MlflowRegistry


def test_credentials_are_those_of_mlflow_and_are_never_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        seen.append(request.headers.get("Authorization", ""))
        saying(401, b"who are you?")(request)

    with answering(answer) as url:
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "a-token")
        with pytest.raises(RegistryUnavailableError, match="answers 401"):
            connect(url).model(MODEL)
        monkeypatch.delenv("MLFLOW_TRACKING_TOKEN")
        with pytest.raises(RegistryUnavailableError) as told:
            connect(url.replace("//", "//anna:secret@")).model(MODEL)
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "anna")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
        with pytest.raises(RegistryUnavailableError):
            connect(url).model(MODEL)
    assert seen == ["Bearer a-token", "Basic YW5uYTpzZWNyZXQ=", "Basic YW5uYTpzZWNyZXQ="]
    assert "secret" not in str(told.value)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>"),
        (200, b"[]"),
        (200, b'{"registered_model": 3}'),
        (200, b'{"registered_model": {"tags": [{}]}}'),
        (500, b"oh"),
        (503, b'{"error_code": "TEMPORARILY_UNAVAILABLE"}'),
        (404, b"no such page: this is another server"),
    ],
)
def test_what_answers_something_else_is_no_registry(status: int, body: bytes) -> None:
    with answering(saying(status, body)) as url, pytest.raises(RegistryUnavailableError):
        connect(url).model(MODEL)


def test_an_answer_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_rest, "_ANSWER_SECONDS", 0.3)

    def trickle(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        while True:
            request.wfile.write(b" ")
            time.sleep(0.02)

    with (
        answering(trickle) as url,
        pytest.raises(RegistryUnavailableError, match=r"longer than 0\.3 s"),
    ):
        connect(url).model(MODEL)
    monkeypatch.setattr(registry_rest, "_ANSWER_BYTES", 1000)
    with (
        answering(saying(200, b" " * 1001)) as url,
        pytest.raises(RegistryUnavailableError, match="more than 1,000 bytes"),
    ):
        connect(url).model(MODEL)


START = """
import json, sys
from cryptoml_serving.app import _refresher
from cryptoml_serving.settings import ServingSettings
from cryptoml_serving.telemetry import Metrics
made = _refresher(ServingSettings.load(), Metrics("m"), None)
made._follower._device.prepare()
made._follower._registry.prepare()
import jax
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event.rpartition("/")[2]))
made.look()
made.turn()
assert made.state.ready, made.state.troubles
slow = {"mlflow", "dask", "polars", "deltalake", "dagster", "ibis", "duckdb"} & sys.modules.keys()
print(json.dumps([sorted(slow), hits.count("cache_hits"), hits.count("cache_misses")]))
"""


def test_a_start_imports_nothing_slow_and_the_next_one_compiles_nothing(
    world: ServingWorld,
) -> None:
    write_usual_features(world)
    world.publish()

    def start() -> list[Any]:
        environment = {k: v for k, v in world.environment(0).items() if not k.startswith("JAX_")}
        environment |= {"CRYPTOML_SERVING_PORT": "8000", "JAX_PLATFORMS": "cpu"}
        done = subprocess.run(
            [sys.executable, "-c", START],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        return list(json.loads(done.stdout.splitlines()[-1]))

    slow, hits, misses = start()
    assert (slow, hits) == ([], 0)
    assert misses >= 3
    assert start() == [[], misses, 0]
    programs = world.settings().model_cache_path / "compiled"
    assert programs.stat().st_mode & 0o777 == 0o700
    assert len(list(programs.glob("*-cache"))) == misses
