"""The page, the stream, the models and the lineage of predictions, asked over HTTP."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from cryptoml_serving.runtime.chronicle import Chronicle
from cryptoml_serving.security.keys import add_key, revoke_key
from cryptoml_serving.security.roles import Role
from tests.lake_tables import write_drift, write_history, write_outcomes
from tests.paged_service import paged
from tests.serving_client import FEATURE_TIME, Client, problem, wait, write_usual_features
from tests.serving_world import NOW, ServingWorld, build_templates


@pytest.fixture
def world(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> ServingWorld:
    made = ServingWorld(tmp_path, build_templates(tmp_path_factory.getbasetemp()))
    write_usual_features(made)
    return made


def events(client: httpx.Client) -> Iterator[dict[str, Any]]:
    with client.stream("GET", "/predictions/stream", timeout=30) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        event: dict[str, Any] = {}
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if name in {"event", "id"}:
                event[name] = value
            elif name == "data":
                event |= json.loads(value)
            elif not line and "event" in event:
                yield event
                event = {}


def page(client: Client) -> str:
    answer = client.get("/")
    assert answer.status_code == 200
    return answer.text


def test_the_page_has_predictions_model_approval_history_and_drift(world: ServingWorld) -> None:
    published = world.publish()
    lake = world.settings().lake_uri
    write_history(lake, [published.approval.read_bytes()])
    write_drift(lake, NOW, {("rsi", "BTC/USDT"): 0.5, ("nvt", "BTC/USDT"): None})
    with paged(world) as (client, _):
        client.wait_ready()
        wait(lambda: "chain and signatures verified" in page(client))
        text = page(client)
    assert "+6000.0" in text  # 0.1 + 0.2 + 0.3, in basis points
    assert "+1000.0" in text
    assert "+11000.0" in text
    assert published.digest[:12] in text
    assert "it passed" in text
    assert "<b>approve</b> version <b>1</b>" in text
    assert re.search(r'class="n shade2 drifted"[^>]*>0.50<', text)
    assert "too little data for" in text
    assert "5 min" in text


def test_the_page_is_complete_and_its_policy_allows_nothing_else(world: ServingWorld) -> None:
    world.publish()
    with paged(world) as (client, _):
        answer = client.wait_ready().get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", answer.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', answer.text)
    assert not re.findall(r"\sstyle=|\son[a-z]+=", answer.text)


def test_words_of_others_are_shown_as_they_are(world: ServingWorld) -> None:
    hostile = '<script>alert("x")</script>'
    published = world.publish(approved=False, deployed=False)
    world.place(published, reason=hostile, decided_by="<b>me</b>")
    write_history(world.settings().lake_uri, [published.approval.read_bytes()])
    with paged(world) as (client, _):
        client.wait_ready()
        wait(lambda: "chain and signatures verified" in page(client))
        text = page(client)
    assert hostile not in text
    assert "&lt;script&gt;alert(&#34;x&#34;)" in text
    assert "&lt;b&gt;me&lt;/b&gt;" in text


def test_a_history_that_was_tampered_with_is_told(world: ServingWorld) -> None:
    published = world.publish()
    published_again = published.approval.read_bytes()
    signed = json.loads(published_again)
    record = json.loads(signed["record_json"]) | {"reason": "forged"}
    signed["record_json"] = json.dumps(record, sort_keys=True, separators=(",", ":"))
    write_history(world.settings().lake_uri, [json.dumps(signed).encode()])
    with paged(world) as (client, _):
        client.wait_ready()
        wait(lambda: "not sound" in page(client))
        text = page(client)
    assert "forged" not in text
    assert "1 of 1 rows cannot be trusted" in text


def test_the_page_answers_before_anything_is_there(world: ServingWorld) -> None:
    with paged(world) as (client, _):
        wait(lambda: "no model has been approved yet" in page(client))
        assert "not ready" in page(client)


def test_features_past_the_limit_are_no_prediction_on_the_page(world: ServingWorld) -> None:
    world.publish()
    with paged(world, serving_max_feature_age=timedelta(minutes=2)) as (client, _):
        client.wait_ready()
        text = page(client)
    assert text.count("not served: its features are past 2m") == 3
    assert "+6000.0" not in text


def test_a_broken_lake_is_told_and_the_rest_goes_on(world: ServingWorld) -> None:
    world.publish()
    log = Path(world.settings().lake_uri) / "deployments" / "_delta_log"
    log.mkdir(parents=True)
    (log / "00000000000000000000.json").write_text("no commit")
    with paged(world, serving_log=False) as (client, _):
        client.wait_ready()
        wait(lambda: "cannot be read now: history" in page(client))
        assert "+6000.0" in page(client)


def test_every_new_snapshot_is_an_event(world: ServingWorld) -> None:
    world.publish()
    with paged(world) as (client, _):
        client.wait_ready()
        stream = events(client)
        first, second = next(stream), next(stream)
        assert first["event"] == "snapshot"
        assert int(second["id"]) > int(first["id"])
        told = {each["symbol"]: each for each in first["predictions"]}
        asked = client.ask("BTC/USDT").json()
        assert told["BTC/USDT"]["prediction_id"] == asked["prediction_id"]
        assert told["BTC/USDT"]["prediction"] == pytest.approx(0.6)
        assert asked.keys() == told["BTC/USDT"].keys()
        world.write_features({"BTC/USDT": (1.0, 1.0, 1.0)}, at=FEATURE_TIME + timedelta(minutes=5))
        changed = next(e for e in stream if e["predictions"][0]["prediction"] > 1)
        assert changed["model_version"] == "1"


def test_a_withdrawn_version_is_streamed_to_nobody(
    world: ServingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cryptoml_serving.api.stream.HEARTBEAT_SECONDS", 0.05)
    published = world.publish()
    with paged(world) as (client, _):
        client.wait_ready()
        first = events(client)
        assert next(first)["model_version"] == published.version
        world.withdraw(published)
        wait(lambda: client.ask("BTC/USDT").status_code == 503)
        with client.stream("GET", "/predictions/stream") as answer:
            lines = list(islice(answer.iter_lines(), 20))
        assert ": ping" in lines
        assert [each for each in lines if each.startswith(("event", "data"))] == []


def test_ages_are_those_of_the_sending_and_what_is_too_old_is_missing(
    world: ServingWorld, tmp_path: Path
) -> None:
    """No snapshot follows the first one: what is sent is as old as it is all the same."""
    world.publish()
    at = FEATURE_TIME + timedelta(minutes=4)
    world.write_features({"ETH/USDT": (0.0, -0.5, 0.1)}, at=at)
    clock = tmp_path / "clock"
    clock.write_text(NOW.isoformat())
    still = {"serving_refresh": timedelta(hours=1), "now": None, "clock_file": clock}
    with paged(world, **still) as (client, _):
        client.wait_ready()
        made = next(events(client))
        clock.write_text((NOW + timedelta(minutes=26)).isoformat())
        told = next(events(client))
        refused = problem(client.ask("BTC/USDT"), 503, "stale-features")
    assert (told["id"], told["snapshot_timestamp"]) == (made["id"], made["snapshot_timestamp"])
    ages = [
        {each["symbol"]: each["feature_age_seconds"] for each in event["predictions"]}
        for event in (made, told)
    ]
    assert ages == [
        {"BTC/USDT": 300.0, "ETH/USDT": 60.0, "SOL/USDT": 300.0},
        {"ETH/USDT": 1620.0},
    ]
    assert set(told["missing"]) == {"BTC/USDT", "SOL/USDT"}
    assert f"BTC/USDT: {told['missing']['BTC/USDT']}" == refused["detail"]
    assert "1860 s old; served up to 30m" in refused["detail"]


def test_past_the_most_listeners_the_stream_is_refused(
    world: ServingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cryptoml_serving.runtime.announcer.MOST_SUBSCRIBERS", 1)
    world.publish()
    with paged(world) as (client, chronicle):
        client.wait_ready()
        stream = events(client)
        next(stream)
        refused = client.get("/predictions/stream")
        problem(refused, 503, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        stream.close()
        wait(lambda: chronicle.announcer.subscribers == 0)


def test_a_stream_ends_with_its_key_and_one_caller_has_few(
    world: ServingWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cryptoml_serving.runtime.announcer.MOST_OF_ONE", 1)
    monkeypatch.setattr("cryptoml_serving.api.stream.HEARTBEAT_SECONDS", 0.05)
    world.publish()
    path = tmp_path / "keys.json"
    # Where callers are told apart, this is a name like any other.
    desk = add_key(path, "anonymous", roles=[Role.PREDICT], rate=0.0, now=NOW)
    # One request, and the stream that it begins takes no further ones.
    slow = add_key(path, "slow", roles=[Role.PREDICT], rate=0.001, now=NOW)
    with paged(world, serving_keys=path) as (client, chronicle):
        client.wait_ready()

        def stream(key: str) -> Iterator[str]:
            headers = {"X-API-Key": key}
            with client.stream("GET", "/predictions/stream", headers=headers) as answer:
                assert answer.status_code == 200
                yield from answer.iter_lines()

        first, other = stream(desk), stream(slow)
        for _ in range(40):
            next(first), next(other)
        with client.stream("GET", "/predictions/stream", headers={"X-API-Key": desk}) as refused:
            assert refused.status_code == 503
            refused.read()
        problem(refused, 503, "overloaded")
        revoke_key(path, "anonymous")
        assert sum(1 for _ in islice(first, 400)) < 400
        wait(lambda: chronicle.announcer.subscribers == 1)
        for _ in range(40):
            next(other)
        other.close()  # type: ignore[attr-defined]
        wait(lambda: chronicle.announcer.subscribers == 0)


def test_models_are_those_of_the_deployment(world: ServingWorld) -> None:
    champion = world.publish()
    canary = world.publish(role="canary", percent=20)
    with paged(world) as (client, _):
        client.wait_ready()
        wait(lambda: all(each["loaded"] for each in client.get("/models").json()["models"]))
        told = client.get("/models").json()
        approved = client.get("/models/champion").json()
    assert [
        (each["model_version"], each["role"], each["percent"], each["bundle_digest"])
        for each in told["models"]
    ] == [
        (champion.version, "champion", 0.0, champion.digest),
        (canary.version, "canary", 20.0, canary.digest),
    ]
    # Each with its own approval.
    assert [each["decision"] for each in told["models"]] == [0, 1]
    assert told["deployment"] == 1
    assert approved["model_version"] == champion.version
    assert approved["approval"]["criteria"] == [
        {"name": "skill", "passed": True, "figure": 0.6, "threshold": 0.5, "rule": "above"}
    ]
    assert approved["features"] == ["log_return_1", "sma_gap_5", "mvrv_ratio"]


def test_without_a_model_there_is_none_to_tell_of(world: ServingWorld) -> None:
    with paged(world) as (client, _):
        problem(client.get("/models"), 503, "not-ready")
        refused = client.get("/models/champion")
        problem(refused, 503, "not-ready")
        assert "retry-after" in refused.headers


def test_a_prediction_has_its_lineage_and_later_its_outcome(world: ServingWorld) -> None:
    published = world.publish()
    lake = world.settings().lake_uri
    with paged(world) as (client, _):
        asked = client.wait_ready().ask("BTC/USDT").json()
        path = f"/predictions/{asked['prediction_id']}"
        told = client.get(path).json()
        assert told["found_in"] == "memory"
        assert told["outcome"] is None
        assert told["prediction"]["prediction"] == asked["prediction"]
        assert told["lineage"]["bundle_digest"] == published.digest
        assert told["lineage"]["run_id"] == published.run
        assert told["lineage"]["verified"] is True
        assert told["lineage"]["data_versions"] == {"training_set": 1}
        assert told["lineage"]["approval"]["decision"] == 0
        came = {"prediction_id": asked["prediction_id"], "realised_return": 0.02}
        row = {**came, "feature_timestamp": FEATURE_TIME, "outcome_at": NOW}
        write_outcomes(lake, [row])
        assert client.get(path).json()["outcome"]["realised_return"] == 0.02


@pytest.mark.parametrize("log", [True, False])
def test_what_a_canary_answered_has_its_lineage_at_once(world: ServingWorld, log: bool) -> None:
    world.publish()
    canary = world.publish(role="canary", percent=50)
    with paged(world, serving_log=log) as (client, _):
        client.wait_ready()
        wait(lambda: client.get("/ready").json()["challengers"])
        answers = (client.ask("BTC/USDT").json() for _ in range(100))
        asked = next(each for each in answers if each["role"] == "canary")
        told = client.get(f"/predictions/{asked['prediction_id']}").json()
        told_of = {p["role"] for event in islice(events(client), 3) for p in event["predictions"]}
    assert told["found_in"] == "memory"
    assert told["prediction"]["prediction"] == asked["prediction"]
    assert told["lineage"]["bundle_digest"] == canary.digest
    assert told["lineage"]["role"] == "canary"
    assert told["lineage"]["verified"] is True
    assert told["lineage"]["approval"]["decision"] == 1
    # Who listens is told of the champion's alone.
    assert told_of == {"champion"}


def test_an_old_prediction_is_found_in_the_lake_with_its_verified_approval(
    world: ServingWorld,
) -> None:
    published = world.publish()
    lake = world.settings().lake_uri
    write_history(lake, [published.approval.read_bytes()])
    with paged(world) as (client, _):
        asked = client.wait_ready().ask("BTC/USDT").json()
        wait(lambda: client.metric("prediction_log_written_total") >= 3)
    world.write_features({"BTC/USDT": (0.0, 0.0, 0.0)}, at=FEATURE_TIME + timedelta(minutes=5))
    path = f"/predictions/{asked['prediction_id']}"
    with paged(world) as (client, chronicle):
        client.wait_ready()
        wait(lambda: bool(chronicle.lake.picture.history.decisions))
        told = client.get(path).json()
    assert told["found_in"] == "lake"
    assert told["lineage"]["verified"] is True
    assert told["lineage"]["run_id"] == published.run
    assert told["prediction"]["prediction"] == pytest.approx(asked["prediction"])


def test_unknown_and_unreadable_ids_are_told_apart(world: ServingWorld) -> None:
    world.publish()
    with paged(world) as (client, _):
        client.wait_ready()
        problem(client.get(f"/predictions/{uuid4()}"), 404, "unknown-prediction")
        problem(client.get("/predictions/not-an-id"), 422, "invalid-request")


def test_a_lake_that_hangs_costs_one_request_its_answer_and_no_other(
    world: ServingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    hang = threading.Event()
    monkeypatch.setattr(
        "cryptoml_serving.runtime.lake_tables.served", lambda *_: hang.wait(20) and None
    )
    world.publish()
    with paged(world, serving_deadline=timedelta(milliseconds=500)) as (client, _):
        client.wait_ready()
        refused = client.get(f"/predictions/{uuid4()}")
        problem(refused, 503, "overloaded")
        assert client.ask("BTC/USDT").status_code == 200
        assert client.get("/").status_code == 200
        hang.set()


def test_docs_need_nothing_from_elsewhere(world: ServingWorld) -> None:
    with paged(world) as (client, _):
        answer = client.get("/docs")
        assert answer.status_code == 200
        found = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
        assert len(found) == 4
        for each in found:
            assert client.get(f"/{each}").status_code == 200
            assert "//" not in each
        assert client.get("/docs/other.js").status_code == 404
        paths = client.get("/openapi.json").json()["paths"]
    assert {"/models", "/models/champion", "/predictions/stream"} <= paths.keys()
    assert "/predictions/{prediction_id}" in paths
    assert "/docs" not in paths


def test_streams_end_when_the_service_does(world: ServingWorld) -> None:
    world.publish()
    ended: list[Chronicle] = []
    with paged(world) as (client, chronicle):
        client.wait_ready()
        stream = events(client)
        next(stream)
        chronicle.announcer._subscribers.copy().pop().loop.call_soon_threadsafe(
            chronicle.announcer.close
        )
        for _ in stream:
            pass
        ended.append(chronicle)
    assert ended[0].announcer.subscribers == 0
