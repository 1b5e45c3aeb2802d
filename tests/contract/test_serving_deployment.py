"""What the service follows: the signed deployment, never the alias, an old or an altered one."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import shutil
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from cryptoml_assets.resources.lake import Lake
from cryptoml_serving.app import create_app
from cryptoml_serving.contract.approval import load_public_key
from cryptoml_serving.contract.deployment import Placement, read_deployment
from cryptoml_serving.contract.manifest import FeatureSpec
from cryptoml_serving.contract.served import SERVED_PREDICTIONS
from cryptoml_serving.runtime import canary
from cryptoml_serving.runtime.loader import Loader
from cryptoml_serving.runtime.registry import ApprovedModel
from tests.sandbox_server import serve
from tests.serving_client import FEATURE_TIME, ROWS, Client, problem, serving, wait
from tests.serving_world import (
    FEATURES,
    MODEL,
    NOW,
    Published,
    ServingWorld,
    build_templates,
    numberless_program,
)

SYMBOL = "BTC/USDT"


@pytest.fixture
def world(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> ServingWorld:
    made = ServingWorld(tmp_path, build_templates(tmp_path_factory.getbasetemp()))
    made.write_features(ROWS, at=FEATURE_TIME)
    return made


def answered(client: Client, request_id: str = "") -> tuple[str, str]:
    """Version and role of the answer to a request of that id."""
    headers = {"X-Request-ID": request_id} if request_id else {}
    answer = client.post("/predict", json={"symbol": SYMBOL}, headers=headers).json()
    return answer["model_version"], answer["role"]


def looked(client: Client) -> None:
    """Wait until the registry was looked at twice since."""
    for _ in range(2):
        before = client.get("/ready").json()["model_check_age_seconds"]
        wait(lambda before=before: client.get("/ready").json()["model_check_age_seconds"] < before)  # type: ignore[misc]


def test_an_alias_moved_by_hand_is_told_and_not_followed(
    world: ServingWorld, caplog: pytest.LogCaptureFixture
) -> None:
    signed = world.publish()
    other = world.publish(deployed=False)
    world.approve(**other.subject, attach_to=other)  # approved once, but not deployed
    with serving(world) as client:
        client.wait_ready()
        world.make_champion(other.version)
        wait(lambda: client.metric("registry_alias_moved") == 1)
        looked(client)
        assert answered(client) == (signed.version, "champion")
        told = client.get("/ready").json()["problems"]
        assert told == {
            "alias": "the registry's alias names another version than the signed deployment"
        }
        world.make_champion(signed.version)
        wait(lambda: client.metric("registry_alias_moved") == 0)
        assert client.get("/ready").json()["problems"] == {}
    lines = [r for r in caplog.records if getattr(r, "fields", {}).get("part") == "alias"]
    assert [record.levelno for record in lines] == [logging.ERROR]


def test_an_old_deployment_put_back_is_refused_even_after_a_restart(world: ServingWorld) -> None:
    world.publish()
    old = world.read_tag()
    newest = world.publish()
    kind = {"error_type": "deployment_refused"}
    with serving(world) as client:
        wait(lambda: client.get("/ready").is_success and answered(client)[0] == newest.version)
        now = world.read_tag()
        world.write_tag(old)
        wait(lambda: client.metric("refresh_errors_total", **kind) >= 2)
        assert answered(client) == (newest.version, "champion")
        assert "refused" in client.get("/ready").json()["problems"]["model"]
    with serving(world) as client:
        # The disk has the newest, signed.
        client.wait_ready()
        assert answered(client) == (newest.version, "champion")
        assert client.metric("refresh_errors_total", **kind) >= 1
        assert client.metric("registry_from_disk") == 1
        world.write_tag(now)
        wait(lambda: client.metric("registry_from_disk") == 0)
        # Another deployment of the same decision is none of this history either.
        world.write_tag(world.deployment(head="e" * 64))
        wait(lambda: client.metric("refresh_errors_total", **kind) >= 2)
        assert answered(client)[0] == newest.version


def _altered(world: ServingWorld, other: Published) -> str:
    signed = json.loads(world.read_tag())
    document = json.loads(signed["record_json"])
    document["champion"] |= json.loads(other.placement("champion", 0.0).model_dump_json())
    signed["record_json"] = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return json.dumps(signed)


def test_an_altered_or_foreign_deployment_is_refused(world: ServingWorld) -> None:
    signed = world.publish()
    other = world.publish(deployed=False)
    world.approve(**other.subject, attach_to=other)
    altered = _altered(world, other)
    foreign = world.deployment(model_name="another-model")
    with serving(world) as client:
        client.wait_ready()
        for text in (altered, foreign, "{}", "nothing of the kind"):
            before = client.metric("refresh_errors_total", error_type="deployment_refused")
            world.write_tag(text)
            wait(
                lambda before=before: (  # type: ignore[misc]
                    client.metric("refresh_errors_total", error_type="deployment_refused")
                    > before + 1
                )
            )
            assert answered(client) == (signed.version, "champion")
        world.client.delete_registered_model_tag(MODEL, "cryptoml.deployment")
        wait(lambda: client.metric("refresh_errors_total", error_type="no_champion") >= 1)
        assert answered(client) == (signed.version, "champion")


def test_a_champion_that_was_withdrawn_answers_no_more(world: ServingWorld) -> None:
    published = world.publish()
    with serving(world) as client:
        client.wait_ready()
        world.withdraw(published)
        wait(lambda: client.get("/ready").status_code == 503)
        assert problem(client.ask(SYMBOL), 503, "not-ready")["detail"] == (
            "no model has been approved yet"
        )
        assert client.metric("model_info") == 0
        world.publish()
        client.wait_ready()


def test_a_shadow_is_scored_and_never_answers(world: ServingWorld) -> None:
    champion = world.publish()
    shadow = world.publish(role="shadow")
    labels = {"model_version": shadow.version, "role": "shadow"}
    with serving(world) as client:
        client.wait_ready()
        wait(lambda: client.metric("challenger_predictions_total", **labels) >= 6)
        assert {answered(client, f"id-{n}") for n in range(50)} == {(champion.version, "champion")}
        assert client.metric("model_info", **labels) == 1
        assert client.metric("model_predict_seconds_count", **labels) >= 2
        assert client.metric("prediction_answers_total", **labels) == 0
        (told,) = client.get("/ready").json()["challengers"]
        assert (told["model_version"], told["role"]) == (shadow.version, "shadow")
        world.withdraw(shadow)
        wait(lambda: client.metric("model_info", **labels) == 0)
        assert client.get("/ready").json()["challengers"] == []
    rows = Lake(world.settings().lake_uri).scan(SERVED_PREDICTIONS).collect()
    by_role = {role: part for (role,), part in rows.partition_by("role", as_dict=True).items()}
    assert by_role.keys() == {"champion", "shadow"}
    for role, sequence in (("champion", 0), ("shadow", 1)):
        assert set(by_role[role]["symbol"]) == set(ROWS)
        assert by_role[role].height == len(ROWS)  # once each, of hundreds of snapshots
        assert set(by_role[role]["sequence"]) == {sequence}


def test_a_canary_answers_its_share_the_same_for_a_repeated_request(world: ServingWorld) -> None:
    world.publish()
    world.publish(role="shadow")
    ids = [f"request-{number}" for number in range(2000)]
    canaries = [world.publish(role="canary", percent=percent) for percent in (20, 5)]
    deployment = read_deployment(
        world.read_tag(), load_public_key(world.settings().public_key_path)
    )
    turns = [canary.turn(deployment, each, SYMBOL) for each in ids]
    meant = [turn[0] if turn else None for turn in turns]
    for published, share in zip(canaries, (0.20, 0.05), strict=True):
        count = sum(1 for each in meant if each and each.model_version == published.version)
        # 4 standard deviations: one in 16,000 fair splits is further off.
        assert abs(count - share * 2000) < 4 * np.sqrt(2000 * share * (1 - share))
    with serving(world) as client:
        client.wait_ready()
        wait(lambda: len(client.get("/ready").json()["challengers"]) == 3)
        for each, placement in zip(ids[:100] * 2, meant[:100] * 2, strict=True):
            expected = (placement.model_version, "canary") if placement else ("1", "champion")
            assert answered(client, each) == expected
        # A promoted canary is the champion of all, a withdrawn one of none.
        world.withdraw(canaries[1])
        world.place(canaries[0])
        wait(lambda: answered(client) == (canaries[0].version, "champion"))
        wait(lambda: len(client.get("/ready").json()["challengers"]) == 1)
        assert {answered(client, each) for each in ids[:100]} == {(canaries[0].version, "champion")}


@contextlib.contextmanager
def asking(client: Client, version: str) -> Iterator[list[tuple[int, str]]]:
    """Ask for a version by name in both ways, again and again; status and role of each answer."""
    told: list[tuple[int, str]] = []
    done = threading.Event()
    row = [0.1, 0.2, 0.3]
    rows = {"rows": [{f.name: v for f, v in zip(FEATURES, row, strict=True)}], "version": version}
    table = {"name": "features", "shape": [1, 3], "datatype": "FP32", "data": row}

    def ask() -> None:
        with Client(base_url=client.base_url) as own:
            while not done.is_set():
                answer = own.post("/predict/features", json=rows)
                told.append((answer.status_code, answer.json().get("role", answer.text)))
                path = f"/v2/models/{MODEL}/versions/{version}/infer"
                answer = own.post(path, json={"inputs": [table]})
                role = answer.json().get("parameters", {}).get("role", answer.text)
                told.append((answer.status_code, role))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield told
    finally:
        done.set()
        thread.join()


@pytest.fixture
def slow_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every model take a moment to load, as one that is compiled does."""
    load = Loader.load

    def slowly(self: Loader, placement: Placement, *, kept: bool) -> ApprovedModel:
        time.sleep(0.3)
        return load(self, placement, kept=kept)

    monkeypatch.setattr(Loader, "load", slowly)


@pytest.mark.usefixtures("slow_loading")
def test_a_version_can_be_asked_for_while_its_role_or_its_share_changes(
    world: ServingWorld,
) -> None:
    world.publish()
    tried = world.publish(role="canary", percent=20)

    def loaded(role: str, percent: float) -> bool:
        told = (role, percent, True)
        models = client.get("/models").json()["models"]
        return told in [(each["role"], each["percent"], each["loaded"]) for each in models]

    drawn = {f"id-{n}": canary.position(f"id-{n}", SYMBOL) for n in range(300)}
    theirs = next(each for each, place in drawn.items() if place < 5)
    lost = next(each for each, place in drawn.items() if 5 < place < 20)
    with serving(world) as client:
        client.wait_ready()
        wait(lambda: loaded("canary", 20) and answered(client, lost)[1] == "canary")
        with asking(client, tried.version) as told:
            for percent in (40, 5):
                world.place(tried, "canary", percent)
                while not loaded("canary", percent):
                    assert answered(client, theirs) == (tried.version, "canary")
            assert answered(client, lost)[1] == "champion"
            world.place(tried, "shadow")
            wait(lambda: loaded("shadow", 0))
            assert answered(client, theirs)[1] == "champion"
            world.place(tried)
            wait(lambda: answered(client) == (tried.version, "champion"))
            looked(client)
    assert {status for status, _ in told} == {200}
    assert [role for role, _ in itertools.groupby(told, key=lambda each: each[1])] == [
        "canary",
        "shadow",
        "champion",
    ]


def test_a_canary_that_is_refused_as_champion_can_be_asked_for_no_more(world: ServingWorld) -> None:
    champion, tried = world.publish(), world.publish(role="canary", percent=20)
    app = create_app(world.settings())
    with serve(app) as url, Client(base_url=url) as client:
        client.wait_ready()
        state = app._service.state
        wait(lambda: set(state.models) == {champion.version, tried.version})
        # Its approval is that of a canary.
        world.deploy(tried)
        wait(lambda: set(state.models) == {champion.version})
        assert answered(client) == (champion.version, "champion")
        # However often it is tried again.
        refusals = {"error_type": "model_refused"}
        wait(lambda: client.metric("refresh_errors_total", **refusals) >= 3)
        assert set(state.models) == {champion.version}


def test_positions_are_uniform_and_differ_by_symbol() -> None:
    drawn = [canary.position(str(number), SYMBOL) for number in range(2000)]
    counts, _ = np.histogram(drawn, bins=10, range=(0, 100))
    assert counts.sum() == 2000
    assert ((counts - 200) ** 2 / 200).sum() < 33  # chi-square, 9 degrees: one in 8,000 is above
    assert canary.position("1", SYMBOL) != canary.position("1", "ETH/USDT")


def test_a_challenger_that_fails_leaves_the_champion_alone(world: ServingWorld) -> None:
    champion = world.publish()
    unheard_of = FeatureSpec(name="unheard_of", view="price_features")
    failing = {
        "model_refused": world.publish(role="canary", percent=30, approved=False),
        "feature_store": world.publish(
            role="canary", percent=30, features=(*FEATURES[:2], unheard_of)
        ),
        "no_prediction": world.publish(role="canary", percent=30, program=numberless_program()),
    }
    with serving(world) as client:
        client.wait_ready()
        for kind, published in failing.items():
            labels = {"model_version": published.version, "role": "canary", "error_type": kind}
            wait(lambda labels=labels: client.metric("challenger_errors_total", **labels) >= 2)  # type: ignore[misc]
        assert {answered(client, f"id-{n}") for n in range(50)} == {(champion.version, "champion")}
        told = client.get("/ready").json()["problems"]
        assert told.keys() == {"challengers"}
        assert f"version {failing['model_refused'].version}" in told["challengers"]
        world.write_features(ROWS, at=NOW)
        wait(lambda: client.ask(SYMBOL).json()["feature_age_seconds"] == 0)
        for published in failing.values():
            world.withdraw(published)
        wait(lambda: client.get("/ready").json()["problems"] == {})


def test_a_look_that_is_asked_for_comes_at_once(world: ServingWorld) -> None:
    world.publish()
    app = create_app(world.settings(serving_registry_poll=timedelta(hours=1)))
    with serve(app) as url, Client(base_url=url) as client:
        client.wait_ready()
        published = world.publish()
        app._service.look()
        wait(lambda: answered(client)[0] == published.version)


def test_a_rollback_fails_no_request(world: ServingWorld) -> None:
    earlier, later = world.publish(), world.publish()
    with serving(world) as client:
        client.wait_ready()
        world.roll_back(later, to=earlier)
        versions = []
        while earlier.version not in versions:
            answer = client.ask(SYMBOL)
            assert answer.status_code == 200
            versions.append(answer.json()["model_version"])
        assert {answered(client) for _ in range(20)} == {(earlier.version, "champion")}


@pytest.mark.parametrize("broken", ["bundle", "approval", "features"])
def test_what_was_withdrawn_does_not_answer_for_want_of_a_successor(
    world: ServingWorld, broken: str
) -> None:
    unheard_of = FeatureSpec(name="unheard_of", view="price_features")
    features = (*FEATURES[:2], unheard_of) if broken == "features" else FEATURES
    earlier = world.publish(features=features)
    later = world.publish()
    if broken == "bundle":
        shutil.rmtree(earlier.bundle)
    with serving(world) as client:
        client.wait_ready()
        if broken == "approval":
            world.withdrawn.append(later.version)
            world.decisions.append("e" * 64)
            earlier.approval.unlink()
            world.deploy(earlier)
        else:
            world.roll_back(later, to=earlier)
        wait(lambda: client.get("/ready").status_code == 503)
        problem(client.ask(SYMBOL), 503, "not-ready")
        time.sleep(0.3)  # five looks later
        problem(client.ask(SYMBOL), 503, "not-ready")
        successor = world.publish()
        wait(lambda: client.get("/ready").is_success)
        assert answered(client) == (successor.version, "champion")


def test_the_models_that_may_be_asked_for_are_those_deployed(world: ServingWorld) -> None:
    champion, shadow = world.publish(), world.publish(role="shadow")
    app = create_app(world.settings())
    with serve(app) as url, Client(base_url=url) as client:
        client.wait_ready()
        state = app._service.state
        wait(lambda: set(state.models) == {champion.version, shadow.version})
        assert state.models[shadow.version].placement.role == "shadow"
        assert state.champion is state.models[champion.version]
        world.withdraw(shadow)
        wait(lambda: set(state.models) == {champion.version})
        successor = world.publish()
        wait(lambda: set(state.models) == {successor.version})
        assert state.champion is state.models[successor.version]
        world.withdraw(successor)
        wait(lambda: set(state.models) == set())
        assert state.champion is None
