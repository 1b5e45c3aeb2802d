"""What the service does when registry, approval, bundle or features are not as they should be."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cryptoml_serving.contract.approval import generate_keys
from cryptoml_serving.contract.manifest import FeatureSpec
from tests.serving_client import (
    FEATURE_TIME,
    ROWS,
    problem,
    serving,
    wait,
    write_usual_features,
)
from tests.serving_world import (
    FEATURES,
    NOW,
    TTL,
    Published,
    ServingWorld,
    Templates,
    build_templates,
)


@pytest.fixture
def templates(tmp_path_factory: pytest.TempPathFactory) -> Templates:
    return build_templates(tmp_path_factory.getbasetemp())


@pytest.fixture
def world(tmp_path: Path, templates: Templates) -> ServingWorld:
    made = ServingWorld(tmp_path, templates)
    write_usual_features(made)
    return made


def test_no_champion_yet(world: ServingWorld, caplog: pytest.LogCaptureFixture) -> None:
    with serving(world) as client:
        wait(lambda: client.metric("refresh_errors_total", error_type="no_champion") >= 1)
        assert client.get("/health").json() == {"status": "alive"}
        assert int(client.get("/ready").headers["retry-after"]) >= 1
        members = problem(client.ask("BTC/USDT"), 503, "not-ready")
        assert members["detail"] == "no model has been approved yet"
        assert client.metric("prediction_errors_total", error_type="not-ready") == 1  # no probe
        # As an older version of this platform left it: an alias, and nothing signed.
        older = world.publish(deployed=False)
        world.make_champion(older.version)
        wait(lambda: "older version" in client.get("/ready").json()["detail"])
        assert f"names version {older.version}" in caplog.text
        assert "materialise validated_deployment" in caplog.text
        world.place(older)
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
    [
        _tamper_model,
        _tamper_manifest,
        _smuggle_file,
        _raise_figure,
        _other_digest,
        _not_an_approval,
    ],
)
def test_tampered_bundle_or_approval_never_serves(
    world: ServingWorld, tamper: Callable[[Published], None]
) -> None:
    tamper(world.publish())
    with serving(world) as client:
        members = problem(client.wait_refused().ask("BTC/USDT"), 503, "not-ready")
        assert "refused" in members["detail"]
        problem(client.get("/ready"), 503, "not-ready")


@pytest.mark.parametrize(
    "changes",
    [
        {"bundle_digest": "0" * 64},
        {"model_name": "another-model"},
        {"model_version": "9"},
        {"run_id": "another-run"},
        {"role": "shadow"},
        {"role": "canary", "percent": 50},
    ],
)
def test_a_sound_signature_under_something_else_does_not_count(
    world: ServingWorld, changes: dict[str, Any]
) -> None:
    published = world.publish(approved=False)
    world.approve(**{**published.subject, **changes}, attach_to=published)
    with serving(world) as client:
        problem(client.wait_refused().ask("BTC/USDT"), 503, "not-ready")


def test_another_key_does_not_count(world: ServingWorld, tmp_path: Path) -> None:
    trusted, other = world.private_key, tmp_path / "other.key"
    generate_keys(other, tmp_path / "other.pub")
    published = world.publish(approved=False, deployed=False)
    world.private_key = other
    world.place(published)
    with serving(world) as client:
        kind = {"error_type": "deployment_refused"}
        wait(lambda: client.metric("refresh_errors_total", **kind) >= 1)
        world.private_key = trusted
        world.deploy(published)
        problem(client.wait_refused().ask("BTC/USDT"), 503, "not-ready")
        world.place(published)
        client.wait_ready()


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


def test_a_refused_model_keeps_the_approved_one(world: ServingWorld) -> None:
    approved = world.publish()
    with serving(world) as client:
        client.wait_ready()
        refused = world.publish(approved=False)
        client.wait_refused()
        assert client.ask("BTC/USDT").json()["model_version"] == approved.version
        told = client.get("/ready").json()["problems"]
        assert "refused" in told["model"]
        assert told["champion"] == "the version that answers is not the deployed champion"
        assert client.metric("champion_not_served") == 1
        world.place(refused)
        wait(lambda: client.ask("BTC/USDT").json()["model_version"] == refused.version)
        assert client.get("/ready").json()["problems"] == {}
        assert client.metric("champion_not_served") == 0
        assert client.metric("model_info", model_version=approved.version) == 0


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


def test_a_replaced_registry_is_noticed(world: ServingWorld) -> None:
    published = world.publish()
    database = world.home / "mlflow.db"
    # Another spelling of the path, so that no connection is shared with the one that publishes.
    address = f"sqlite:///{world.home}/./mlflow.db"
    with serving(world, tracking_uri=address) as client:
        client.wait_ready()
        restored = world.home / "restored.db"
        shutil.copy(world.templates.mlflow, restored)
        restored.replace(database)
        wait(lambda: client.metric("refresh_errors_total", error_type="no_champion") >= 1)
        assert client.ask("BTC/USDT").json()["model_version"] == published.version


def test_the_model_before_is_kept_current_until_the_new_one_can_answer(
    world: ServingWorld,
) -> None:
    before = world.publish()
    with serving(world) as client:
        client.wait_ready()
        unheard_of = FeatureSpec(name="unheard_of", view="price_features")
        world.publish(features=(*FEATURES[:2], unheard_of))
        wait(lambda: client.metric("refresh_errors_total", error_type="feature_store") >= 1)
        world.write_features(ROWS, at=NOW - timedelta(minutes=1))
        wait(lambda: client.ask("BTC/USDT").json()["feature_age_seconds"] == 60)
        assert client.ask("BTC/USDT").json()["model_version"] == before.version
        assert client.get("/ready").json()["problems"].keys() == {"features", "champion"}
        after = world.publish()
        wait(lambda: client.ask("BTC/USDT").json()["model_version"] == after.version)


def test_not_ready_while_no_symbol_has_features(tmp_path: Path, templates: Templates) -> None:
    world = ServingWorld(tmp_path, templates)
    world.publish()
    with serving(world) as client:
        detail = "the feature store holds current features of no served symbol"
        wait(lambda: client.get("/ready").json().get("detail") == detail)
        problem(client.ask("BTC/USDT"), 503, "no-prediction")
        assert client.metric("service_ready") == 0
        write_usual_features(world)
        client.wait_ready()


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
        assert answer["prediction"] == pytest.approx(0.3, abs=1e-6)
        problem(client.ask("ETH/USDT"), 503, "no-prediction")
        problem(client.ask("SOL/USDT"), 503, "no-prediction")


def test_a_slow_feature_store_leaves_what_is_answered_and_its_age(world: ServingWorld) -> None:
    world.publish()
    with serving(world) as client:
        client.wait_ready()
        with closing(sqlite3.connect(world.home / "feast" / "online.db")) as held:
            held.execute("BEGIN EXCLUSIVE")
            # The store does not answer all the while, and nobody takes that for an answer.
            while (late := client.metric("refresh_age_seconds", part="features")) < 2:
                assert client.ask("BTC/USDT").json()["feature_age_seconds"] == 300
                time.sleep(0.1)
            wait(lambda: client.metric("refresh_age_seconds", part="model") < late / 2)
            assert client.metric("refresh_age_seconds", part="features") > late
            held.rollback()
        wait(lambda: client.metric("refresh_age_seconds", part="features") < 1)
        assert client.get("/ready").json()["problems"] == {}


def test_a_clock_that_jumps(world: ServingWorld, tmp_path: Path) -> None:
    world.publish()
    clock = tmp_path / "clock"

    def set_clock(instant: datetime) -> None:
        (tmp_path / "new").write_text(instant.isoformat())
        (tmp_path / "new").replace(clock)

    set_clock(NOW)
    with serving(world, clock_file=clock, now=None) as client:
        client.wait_ready()
        set_clock(NOW + timedelta(days=1))
        wait(lambda: client.ask("BTC/USDT").status_code == 503)
        members = problem(client.ask("BTC/USDT"), 503, "stale-features")
        assert members["feature_age_seconds"] == 86_400 + 300
        # Before the features were: they are of no use then, and have no age below zero.
        set_clock(NOW - timedelta(days=1))
        wait(lambda: "no-prediction" in client.ask("BTC/USDT").json().get("type", ""))
        set_clock(NOW)
        wait(lambda: client.ask("BTC/USDT").is_success)
        assert client.ask("BTC/USDT").json()["feature_age_seconds"] == 300
        assert client.get("/ready").json()["problems"] == {}


def test_an_altered_copy_in_the_cache_is_fetched_again(world: ServingWorld) -> None:
    published = world.publish()
    cached = world.settings().model_cache_path / published.digest
    with serving(world) as client:
        client.wait_ready()
    (cached / "model.stablehlo").write_bytes(b"half a fi")
    with serving(world) as client:
        assert client.wait_ready().ask("BTC/USDT").status_code == 200
    assert (cached / "model.stablehlo").stat().st_size > 9


def test_what_a_killed_download_left_goes_and_a_living_one_stays(world: ServingWorld) -> None:
    world.publish()
    cache = world.settings().model_cache_path
    left, living = cache / ".incoming-left", cache / ".incoming-living"
    for folder in (left, living):
        folder.mkdir(parents=True)
    day_ago = time.time() - 86_400
    os.utime(left, (day_ago, day_ago))
    with serving(world) as client:
        client.wait_ready()
    assert not left.exists()
    assert living.exists()
