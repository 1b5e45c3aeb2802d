"""What the service answers over HTTP, with an approved model and current features."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest

from cryptoml_serving.api.door import MAX_BODY, Door
from cryptoml_serving.app import create_app
from cryptoml_serving.contract.prediction import prediction_id
from cryptoml_serving.settings import ServingSettings
from tests.sandbox_server import serve
from tests.serving_client import FEATURE_TIME, ROWS, Client, problem, serving, write_usual_features
from tests.serving_world import MODEL, NOW, SYMBOLS, Published, ServingWorld, build_templates


@pytest.fixture(scope="module")
def steady(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Client, Published]]:
    """A service with an approved model, for tests that change nothing."""
    world = ServingWorld(
        tmp_path_factory.mktemp("steady"), build_templates(tmp_path_factory.getbasetemp())
    )
    write_usual_features(world)
    published = world.publish()
    with serving(world) as client:
        yield client.wait_ready(), published


def test_prediction_is_the_models_and_can_be_traced(steady: tuple[Client, Published]) -> None:
    client, published = steady
    response = client.ask("BTC/USDT")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    answer = response.json()
    assert answer.pop("prediction") == pytest.approx(0.6, abs=1e-6)
    assert answer.pop("lower") == pytest.approx(0.1, abs=1e-6)
    assert answer.pop("upper") == pytest.approx(1.1, abs=1e-6)
    assert answer["probability_up"] == pytest.approx(0.6456563, abs=1e-6)
    assert answer.pop("confidence") == answer.pop("probability_up")
    assert datetime.fromisoformat(answer.pop("feature_timestamp")) == FEATURE_TIME
    assert datetime.fromisoformat(answer.pop("timestamp")) == NOW
    expected_id = prediction_id(published.digest, "BTC/USDT", FEATURE_TIME, ROWS["BTC/USDT"])
    assert UUID(answer.pop("prediction_id")) == expected_id
    assert answer == {
        "symbol": "BTC/USDT",
        "horizon_seconds": 3600,
        "model_name": MODEL,
        "model_version": published.version,
        "role": "champion",
        "source": "simulated",
        "feature_age_seconds": 300.0,
    }


def test_a_missing_feature_reaches_the_model_as_missing(steady: tuple[Client, Published]) -> None:
    answer = steady[0].ask("ETH/USDT").json()
    assert answer["prediction"] == pytest.approx(-0.5, abs=1e-6)


def test_confidence_is_that_of_the_predictions_sign(steady: tuple[Client, Published]) -> None:
    answer = steady[0].ask("ETH/USDT").json()
    assert answer["probability_up"] < 0.5
    assert answer["confidence"] == 1 - answer["probability_up"]


def test_several_symbols_are_answered_in_their_order_as_each_alone(
    steady: tuple[Client, Published],
) -> None:
    client, _ = steady
    symbols = ["SOL/USDT", "BTC/USDT", "SOL/USDT"]
    answers = client.post("/predict", json={"symbols": symbols}).json()["predictions"]
    assert answers == [client.ask(symbol).json() for symbol in symbols]


def test_several_symbols_are_answered_all_or_none(steady: tuple[Client, Published]) -> None:
    client, _ = steady
    response = client.post("/predict", json={"symbols": ["BTC/USDT", "PEPE/EUR"]})
    assert "PEPE/EUR" in problem(response, 404, "unknown-symbol")["detail"]


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
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"BTC/USDT"',
        b"{}",
        b'{"symbol": 7}',
        b'{"symbol": ""}',
        b'{"symbol": null}',
        b'{"symbol": "BTC/USDT", "more": 1}',
        b'{"symbols": []}',
        b'{"symbols": "BTC/USDT"}',
        b'{"symbols": ["BTC/USDT", 1]}',
        b'{"symbols": ["BTC/USDT"], "symbol": "BTC/USDT"}',
        b'{"symbols": [' + b'"BTC/USDT",' * 256 + b'"BTC/USDT"]}',
        b'{"symbol": "\\ud8"}',
        b'{"symbol": "\\ud800"}',
        b'{"symbol": "BTC/USDT", "\\ud800": 1}',
        b'{"symbol": NaN}',
        b'{"symbol": ' + b"9" * 5000 + b"}",
        b'{"symbol": "' + b"A" * 65 + b'"}',
        b"\xff\xfe",
        b"[" * 2000,
    ],
)
def test_bad_bodies(steady: tuple[Client, Published], body: bytes) -> None:
    sent = {"content-type": "application/json"}
    members = problem(
        steady[0].post("/predict", content=body, headers=sent), 422, "invalid-request"
    )
    assert members["errors"]


def test_a_body_that_is_not_json(steady: tuple[Client, Published]) -> None:
    response = steady[0].post("/predict", data={"symbol": "BTC/USDT"})
    problem(response, 422, "invalid-request")


def test_a_body_past_the_largest_size(steady: tuple[Client, Published]) -> None:
    client, _ = steady
    sent = {"content-type": "application/json"}
    most = b'{"symbol": "BTC/USDT"}'.ljust(MAX_BODY)
    assert client.post("/predict", content=most, headers=sent).status_code == 200
    problem(client.post("/predict", content=most + b" ", headers=sent), 413, "too-large")
    unannounced = iter([most, b" "])
    problem(client.post("/predict", content=unannounced, headers=sent), 413, "too-large")


def test_reasons_told_for_one_body_are_few(steady: tuple[Client, Published]) -> None:
    many = {f"k{number}": 1 for number in range(1000)}
    members = problem(steady[0].post("/predict", json=many), 422, "invalid-request")
    assert 0 < len(members["errors"]) < 20


def test_every_answer_has_the_security_headers(steady: tuple[Client, Published]) -> None:
    client, _ = steady
    for response in (client.ask("BTC/USDT"), client.ask("NO"), client.get("/health")):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in response.headers["content-security-policy"]


def test_nobody_is_redirected_to_a_host_of_the_callers_choice(
    steady: tuple[Client, Published],
) -> None:
    response = steady[0].get("/health/", headers={"Host": "elsewhere.example"})
    problem(response, 404, "about:blank")


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
    named = {
        "model_version": published.version,
        "bundle_digest": published.digest,
        "role": "champion",
    }
    role = {"model_version": published.version, "role": "champion"}
    assert client.metric("prediction_answers_total", **role) >= 1
    assert client.metric("model_predict_seconds_count", **role) >= 1
    assert client.metric("model_info", model_name=MODEL, **named) == 1
    assert client.metric("refresh_age_seconds", part="features") < 30


def test_ready_names_model_and_approval(steady: tuple[Client, Published]) -> None:
    client, published = steady
    answer = client.get("/ready").json()
    assert answer["bundle_digest"] == published.digest
    assert answer["approved_by"] == "policy"
    assert answer["problems"] == {}
    assert (answer["deployment"], answer["challengers"]) == (0, [])


def test_openapi_names_every_error_of_a_prediction(steady: tuple[Client, Published]) -> None:
    document = steady[0].get("/openapi.json").json()
    answers = document["paths"]["/predict"]["post"]["responses"]
    failures = {"401", "403", "404", "408", "413", "422", "429", "500", "503"}
    assert set(answers) == {"200"} | failures
    for status in failures:
        schema = answers[status]["content"]["application/problem+json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/Problem"}
    answer, asked = document["components"]["schemas"]["Prediction"], answers["200"]["content"]
    assert {"prediction", "confidence", "feature_age_seconds"} <= set(answer["required"])
    assert asked["application/json"]["schema"]["anyOf"][0]["$ref"].endswith("/Prediction")


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        yield from ([part["$ref"]] if "$ref" in part else [])
        for each in part.values():
            yield from references(each)
    elif isinstance(part, list):
        for each in part:
            yield from references(each)


def test_everything_openapi_refers_to_is_there(steady: tuple[Client, Published]) -> None:
    document = steady[0].get("/openapi.json").json()
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert set(references(document)) <= known


async def _breaks() -> None:
    message = "a secret of the inside"
    raise RuntimeError(message)


def test_an_unexpected_error_shows_no_trace() -> None:
    app = create_app(ServingSettings.load())
    assert isinstance(app, Door)
    app.framework.add_api_route("/broken", _breaks)
    with serve(app) as url, Client(base_url=url) as client:
        response = client.get("/broken")
        problem(response, 500, "internal")
        assert "secret" not in response.text
        assert response.headers["x-content-type-options"] == "nosniff"
        assert client.metric("prediction_errors_total", error_type="internal") == 1
