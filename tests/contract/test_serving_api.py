"""The service over HTTP, against a real registry, real bundles and a real feature store."""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cryptoml_serving.app import create_app
from cryptoml_serving.contract.prediction import prediction_id
from tests.sandbox_server import serve
from tests.serving_world import (
    MODEL,
    NOW,
    SYMBOLS,
    TTL,
    Published,
    ServingWorld,
    Templates,
    build_templates,
)

FEATURE_TIME = NOW - timedelta(minutes=5)
ROWS = {"BTC/USDT": (0.1, 0.2, 0.3), "ETH/USDT": (0.0, -0.5, None), "SOL/USDT": (1.0, 0.0, 0.0)}


class Client(httpx.Client):
    """Speaks to one service."""

    def ask(self, symbol: object) -> httpx.Response:
        return self.post("/predict", json={"symbol": symbol})

    def metric(self, name: str, **labels: str) -> float:
        """Value of a sample, zero when there is none."""
        for family in text_string_to_metric_families(self.get("/metrics").text):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return sample.value
        return 0.0

    def wait_ready(self) -> Client:
        wait(lambda: self.get("/ready").status_code == 200)
        return self

    def wait_refused(self) -> Client:
        wait(lambda: self.metric("refresh_errors_total", error_type="model_refused") >= 1)
        return self


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.02)


def problem(response: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    """Check that this is a complete problem of that type, and give its members."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    members: dict[str, Any] = response.json()
    assert {"type", "title", "status", "detail", "instance"} <= members.keys()
    assert members["type"] == (kind if ":" in kind else f"urn:cryptoml:problem:{kind}")
    assert members["status"] == status
    assert members["instance"] == response.request.url.path
    assert members["request_id"] == response.headers["x-request-id"]
    return members


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Templates:
    return build_templates(tmp_path_factory.mktemp("serving"))


@pytest.fixture
def world(tmp_path: Path, templates: Templates) -> ServingWorld:
    made = ServingWorld(tmp_path, templates)
    made.write_features(ROWS, at=FEATURE_TIME, onchain_at=NOW - timedelta(hours=6))
    return made


@contextlib.contextmanager
def serving(world: ServingWorld, **settings: Any) -> Iterator[Client]:
    with serve(create_app(world.settings(**settings))) as url, Client(base_url=url) as client:
        yield client


@pytest.fixture(scope="module")
def steady(
    tmp_path_factory: pytest.TempPathFactory, templates: Templates
) -> Iterator[tuple[Client, Published]]:
    """A service with an approved model, for tests that change nothing."""
    world = ServingWorld(tmp_path_factory.mktemp("steady"), templates)
    world.write_features(ROWS, at=FEATURE_TIME, onchain_at=NOW - timedelta(hours=6))
    published = world.publish()
    with serving(world) as client:
        yield client.wait_ready(), published


def test_prediction_is_the_models_and_can_be_traced(steady: tuple[Client, Published]) -> None:
    client, published = steady
    response = client.ask("BTC/USDT")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    answer = response.json()
    assert answer.pop("expected_return") == pytest.approx(0.6, abs=1e-6)
    assert answer.pop("lower") == pytest.approx(0.1, abs=1e-6)
    assert answer.pop("upper") == pytest.approx(1.1, abs=1e-6)
    assert answer.pop("probability_up") == pytest.approx(0.6456563, abs=1e-6)
    assert datetime.fromisoformat(answer.pop("feature_timestamp")) == FEATURE_TIME
    assert datetime.fromisoformat(answer.pop("timestamp")) == NOW
    expected_id = prediction_id(published.digest, "BTC/USDT", FEATURE_TIME)
    assert UUID(answer.pop("prediction_id")) == expected_id
    assert answer == {
        "symbol": "BTC/USDT",
        "horizon_seconds": 3600,
        "model_name": MODEL,
        "model_version": published.version,
        "source": "simulated",
        "feature_age_seconds": 300.0,
    }


def test_a_missing_feature_reaches_the_model_as_missing(steady: tuple[Client, Published]) -> None:
    answer = steady[0].ask("ETH/USDT").json()
    assert answer["expected_return"] == pytest.approx(-0.5, abs=1e-6)


@pytest.mark.parametrize(
    ("asked", "close"), [("btc/usdt", "BTC/USDT"), ("ETHUSDT", "ETH/USDT"), ("PEPE/EUR", None)]
)
def test_unknown_symbol(steady: tuple[Client, Published], asked: str, close: str | None) -> None:
    members = problem(steady[0].ask(asked), 404, "unknown-symbol")
    assert members["served_symbols"] == list(SYMBOLS)
    assert (close in members["close_matches"]) if close else members["close_matches"] == []
    assert asked in members["detail"]


def test_unknown_symbols_make_no_labels(steady: tuple[Client, Published]) -> None:
    client, _ = steady
    before = client.metric("prediction_errors_total", error_type="unknown-symbol")
    for number in range(5):
        client.ask(f"COIN{number}/USDT")
    assert "COIN" not in client.get("/metrics").text
    after = client.metric("prediction_errors_total", error_type="unknown-symbol")
    assert after == before + 5


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"BTC/USDT"', b"{}", b'{"symbol": 7}', b'{"symbol": ""}']
    + [b'{"symbol": null}', b'{"symbol": "BTC/USDT", "more": 1}', b"\xff\xfe", b'{"symbol": "\\ud8"}']
    + [b'{"symbol": "' + b"A" * 65 + b'"}', b"[" * 2000],
)
def test_bad_bodies(steady: tuple[Client, Published], body: bytes) -> None:
    sent = {"content-type": "application/json"}
    members = problem(steady[0].post("/predict", content=body, headers=sent), 422, "invalid-request")
    assert members["errors"]


def test_a_body_that_is_not_json(steady: tuple[Client, Published]) -> None:
    response = steady[0].post("/predict", data={"symbol": "BTC/USDT"})
    problem(response, 422, "invalid-request")


def test_no_such_route_and_wrong_method(steady: tuple[Client, Published]) -> None:
    client, _ = steady
    problem(client.get("/nothing"), 404, "about:blank")
    response = client.get("/predict")
    problem(response, 405, "about:blank")
    assert response.headers["allow"] == "POST"


def test_request_id_is_kept_or_given(steady: tuple[Client, Published]) -> None:
    client, _ = steady
    kept = client.get("/health", headers={"X-Request-ID": "caller-7.a_b"})
    assert kept.headers["x-request-id"] == "caller-7.a_b"
    for odd in ("two words", "x" * 129, 'a"b'):
        given = client.get("/health", headers={"X-Request-ID": odd}).headers["x-request-id"]
        assert re.fullmatch(r"[0-9a-f]{32}", given)


def test_metrics_of_requests_and_of_what_is_served(steady: tuple[Client, Published]) -> None:
    client, published = steady
    labels = {"model_name": MODEL, "symbol": "SOL/USDT"}
    before = client.metric("prediction_requests_total", **labels)
    timed = client.metric("prediction_latency_seconds_count", model_name=MODEL)
    client.ask("SOL/USDT")
    assert client.metric("prediction_requests_total", **labels) == before + 1
    assert client.metric("prediction_latency_seconds_count", model_name=MODEL) == timed + 1
    assert client.metric("service_ready") == 1
    assert client.metric("feature_age_seconds", symbol="SOL/USDT") == 300
    named = {"model_version": published.version, "bundle_digest": published.digest}
    assert client.metric("model_info", model_name=MODEL, **named) == 1
    assert client.metric("refresh_age_seconds", part="features") < 30


def test_ready_names_model_and_approval(steady: tuple[Client, Published]) -> None:
    client, published = steady
    answer = client.get("/ready").json()
    assert answer["bundle_digest"] == published.digest
    assert answer["approved_by"] == "policy"
    assert answer["problems"] == {}


def test_openapi_names_every_route_and_error(steady: tuple[Client, Published]) -> None:
    document = steady[0].get("/openapi.json").json()
    routes = {
        f"{method.upper()} {path}"
        for path, methods in document["paths"].items()
        for method in methods
    }
    listed = set(steady[0].get("/").json()["endpoints"])
    assert routes | {"GET /openapi.json"} == listed | {"GET /"}
    answers = document["paths"]["/predict"]["post"]["responses"]
    assert set(answers) == {"200", "404", "422", "500", "503"}
    for status in ("404", "422", "500", "503"):
        schema = answers[status]["content"]["application/problem+json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/Problem"}
    assert "Problem" in document["components"]["schemas"]


def test_an_unexpected_error_shows_no_trace(world: ServingWorld) -> None:
    app = create_app(world.settings())

    @app.get("/broken")
    def broken() -> None:
        message = "a secret of the inside"
        raise RuntimeError(message)

    with serve(app) as url, Client(base_url=url) as client:
        response = client.get("/broken")
        problem(response, 500, "internal")
        assert "secret" not in response.text
        assert client.metric("prediction_errors_total", error_type="internal") == 1


def test_no_champion_yet(world: ServingWorld) -> None:
    with serving(world) as client:
        wait(lambda: client.metric("refresh_errors_total", error_type="no_champion") >= 1)
        assert client.get("/health").json() == {"status": "alive"}
        assert int(client.get("/ready").headers["retry-after"]) >= 1
        members = problem(client.ask("BTC/USDT"), 503, "not-ready")
        assert members["detail"] == "no model has been approved yet"
        world.publish()
        client.wait_ready()


def test_no_registry_is_made_where_there_is_none(world: ServingWorld) -> None:
    database = world.home / "mlflow.db"
    database.unlink()
    with serving(world) as client:
        kind = {"error_type": "registry_unavailable"}
        wait(lambda: client.metric("refresh_errors_total", **kind) >= 1)
        problem(client.get("/ready"), 503, "not-ready")
    assert not database.exists()


def _tamper_model(published: Published) -> None:
    path = published.bundle / "model.stablehlo"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00\x01")


def _tamper_manifest(published: Published) -> None:
    path = published.bundle / "manifest.json"
    path.write_text(path.read_text().replace('"serial":', '"serious":'))


def _smuggle_file(published: Published) -> None:
    (published.bundle / "extra.py").write_text("raise SystemExit")


def _raise_figure(published: Published) -> None:
    published.alter_record(reason="it passed, truly")


def _other_digest(published: Published) -> None:
    published.alter_record(bundle_digest="0" * 64)


def _not_an_approval(published: Published) -> None:
    published.approval.write_text("[]")


@pytest.mark.parametrize(
    "tamper",
    [_tamper_model, _tamper_manifest, _smuggle_file, _raise_figure, _other_digest, _not_an_approval],
)
def test_tampered_bundle_or_approval_never_serves(
    world: ServingWorld, tamper: Callable[[Published], None]
) -> None:
    tamper(world.publish())
    with serving(world) as client:
        members = problem(client.wait_refused().ask("BTC/USDT"), 503, "not-ready")
        assert "refused" in members["detail"]
        problem(client.get("/ready"), 503, "not-ready")


def test_an_approval_of_another_version_or_run_does_not_count(world: ServingWorld) -> None:
    first = world.publish()
    second = world.publish(approved=False)
    shutil.copytree(first.artifacts / "approval", second.artifacts / "approval")
    copied = second.artifacts / "approval" / f"{first.version}.json"
    copied.rename(second.approval)
    with serving(world) as client:
        problem(client.wait_refused().ask("BTC/USDT"), 503, "not-ready")


@pytest.mark.parametrize("manifest", [{"source": "replay"}, {"model_name": "another-model"}])
def test_a_model_of_another_world_or_name_is_refused(
    world: ServingWorld, manifest: dict[str, Any]
) -> None:
    world.publish(**manifest)
    with serving(world) as client:
        problem(client.wait_refused().ask("BTC/USDT"), 503, "not-ready")


def test_alias_moved_by_hand_keeps_the_approved_model(world: ServingWorld) -> None:
    approved = world.publish()
    with serving(world) as client:
        client.wait_ready()
        moved = world.publish(approved=False)
        client.wait_refused()
        assert client.ask("BTC/USDT").json()["model_version"] == approved.version
        assert "refused" in client.get("/ready").json()["problems"]["model"]
        world.approve(moved.version, moved.run, moved.digest)
        wait(lambda: client.ask("BTC/USDT").json()["model_version"] == moved.version)
        assert client.get("/ready").json()["problems"] == {}
        assert client.metric("model_info", model_version=approved.version) == 0


def test_alias_moved_by_hand_before_start(world: ServingWorld) -> None:
    world.publish()
    world.publish(approved=False)
    with serving(world) as client:
        problem(client.wait_refused().ask("BTC/USDT"), 503, "not-ready")


def test_registry_gone_after_start(world: ServingWorld) -> None:
    published = world.publish()
    with serving(world) as client:
        client.wait_ready()
        (world.home / "mlflow.db").unlink()
        kind = {"error_type": "registry_unavailable"}
        wait(lambda: client.metric("refresh_errors_total", **kind) >= 1)
        newer = NOW - timedelta(minutes=1)
        world.write_features(ROWS, at=newer)
        wait(lambda: client.ask("BTC/USDT").json()["feature_age_seconds"] == 60)
        assert client.ask("BTC/USDT").json()["model_version"] == published.version
        problems = client.get("/ready").json()["problems"]
        assert problems == {"model": "the model registry does not answer"}


def test_feature_store_gone_after_start_and_back(world: ServingWorld) -> None:
    world.publish()
    store = world.home / "feast"
    with serving(world) as client:
        client.wait_ready()
        store.rename(world.home / "elsewhere")
        wait(lambda: client.metric("refresh_errors_total", error_type="feature_store") >= 1)
        assert client.ask("BTC/USDT").json()["feature_age_seconds"] == 300
        assert client.get("/ready").json()["problems"].keys() == {"features"}
        assert not store.exists()
        (world.home / "elsewhere").rename(store)
        wait(lambda: client.get("/ready").json()["problems"] == {})


def test_a_replaced_feature_store_is_noticed(world: ServingWorld) -> None:
    world.publish()
    with serving(world) as client:
        client.wait_ready()
        shutil.rmtree(world.home / "feast")
        shutil.copytree(world.templates.feast, world.home / "feast")
        world.write_features(ROWS, at=NOW - timedelta(minutes=2))
        wait(lambda: client.ask("BTC/USDT").json().get("feature_age_seconds") == 120)


def test_feature_store_absent_at_start(world: ServingWorld) -> None:
    world.publish()
    shutil.rmtree(world.home / "feast")
    with serving(world) as client:
        wait(lambda: client.metric("refresh_errors_total", error_type="feature_store") >= 1)
        members = problem(client.ask("BTC/USDT"), 503, "not-ready")
        assert members["detail"] == "the online features cannot be read"


def test_stale_features_are_not_served(world: ServingWorld) -> None:
    world.publish()
    world.write_features({"BTC/USDT": (1.0, 1.0, 1.0)}, at=NOW)
    with serving(world, serving_max_feature_age=timedelta(minutes=4)) as client:
        client.wait_ready()
        assert client.ask("BTC/USDT").status_code == 200
        response = client.ask("ETH/USDT")
        members = problem(response, 503, "stale-features")
        assert members["feature_age_seconds"] == 300
        assert "4m" in members["detail"]
        assert int(response.headers["retry-after"]) >= 1


def test_features_past_their_time_to_live_are_missing(tmp_path: Path, templates: Templates) -> None:
    world = ServingWorld(tmp_path, templates)
    past = NOW - TTL - timedelta(seconds=1)
    world.write_features({"BTC/USDT": (0.1, 0.2, 9.0)}, at=FEATURE_TIME, onchain_at=past)
    world.write_features({"ETH/USDT": (0.1, 0.2, 9.0)}, at=past, onchain_at=FEATURE_TIME)
    world.publish()
    with serving(world, serving_max_feature_age=timedelta(days=30)) as client:
        client.wait_ready()
        answer = client.ask("BTC/USDT").json()
        assert answer["expected_return"] == pytest.approx(0.3, abs=1e-6)
        problem(client.ask("ETH/USDT"), 503, "no-prediction")
        problem(client.ask("SOL/USDT"), 503, "no-prediction")


def test_an_altered_copy_in_the_cache_is_fetched_again(world: ServingWorld) -> None:
    published = world.publish()
    cached = world.settings().model_cache_path / published.digest
    with serving(world) as client:
        client.wait_ready()
    (cached / "model.stablehlo").write_bytes(b"half a fi")
    with serving(world) as client:
        assert client.wait_ready().ask("BTC/USDT").status_code == 200
    assert (cached / "model.stablehlo").stat().st_size > 9
