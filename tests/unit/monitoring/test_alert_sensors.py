"""The sensors that tell people, over a real Dagster instance and a real record."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cryptoml_assets.deployment import promotion
from cryptoml_assets.monitoring import alert_sensors
from cryptoml_assets.monitoring.alert_sensors import (
    notify_failed_run,
    notify_reports,
    send_notices,
    watch_deployments,
)
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import settings
from cryptoml_serving.contract import approval
from cryptoml_serving.contract.deployment import read_deployment, sign_deployment
from cryptoml_serving.contract.registry import CHAMPION_ALIAS, DEPLOYMENT_TAG
from tests.deployment_world import MODEL, decision


@pytest.fixture
def instance(monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("CRYPTOML_NOTIFY_QUIET", "0s")
    monkeypatch.setenv("CRYPTOML_DAGSTER_URL", "https://dagster.example.com/")
    settings.cache_clear()
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def tick(
    sensor: dg.SensorDefinition, instance: dg.DagsterInstance, cursor: str | None
) -> tuple[str | None, str | None]:
    with dg.build_sensor_context(instance=instance, cursor=cursor) as context:
        done = sensor.evaluate_tick(context)
    assert not done.run_requests
    return done.cursor, done.skip_message


def told() -> list[dict[str, Any]]:
    """Every notice in the record, oldest first."""
    path = settings().home_path / "notices.db"
    if not path.exists():
        return []
    database = sqlite3.connect(path)
    rows = database.execute("SELECT content FROM notices ORDER BY id").fetchall()
    database.close()
    return [json.loads(content) for (content,) in rows]


@dg.op
def breaks() -> None:
    message = "cannot reach redis://user:secret@host"
    raise RuntimeError(message)


@dg.job
def fragile() -> None:
    breaks()


def test_each_failed_run_is_told_once_with_a_link(instance: dg.DagsterInstance) -> None:
    def failed() -> str:
        return fragile.execute_in_process(instance=instance, raise_on_error=False).run_id

    failed()
    cursor, _ = tick(notify_failed_run, instance, None)
    assert told() == []  # what failed before the platform was watched
    runs = [failed(), failed()]
    for _ in range(2):
        after, _ = tick(notify_failed_run, instance, cursor)
    first, second = told()  # the same events twice, as after a crash before the cursor was kept
    assert first["links"]["Dagster run"] == f"https://dagster.example.com/runs/{runs[0]}"
    assert second["links"]["Dagster run"].endswith(runs[1])
    assert first["title"] == "Run of fragile failed: breaks"
    assert first["body"] == "breaks: RuntimeError: cannot reach redis://***@host"
    tick(notify_failed_run, instance, after)
    assert len(told()) == 2


def test_reports_and_the_gate_are_told_of_once_whatever_becomes_of_the_cursor(
    instance: dg.DagsterInstance,
) -> None:
    def made(asset: str, **metadata: object) -> None:
        instance.report_runless_asset_event(dg.AssetMaterialization(asset, metadata=metadata))

    made("quality_report", overall="CRITICAL", verdict="latency")
    made("feature_drift", alarm=True, drifted_share=0.5, drifted=5, judged=10)
    instance.report_runless_asset_event(
        dg.AssetObservation(
            "validated_deployment",
            metadata={"approved": False, "model_version": "7", "reasons": "net_result"},
        )
    )
    made("validated_deployment", unchanged=False)
    cursor, _ = tick(notify_reports, instance, None)
    tick(notify_reports, instance, None)
    kinds = [each["kind"] for each in told()]
    assert kinds == ["gate_rejected", "drift", "quality"]
    made("feature_drift", alarm=False, drifted_share=0.0, drifted=0, judged=0, unjudged=10)
    made("feature_drift", alarm=False, drifted_share=0.0, drifted=0, judged=10, unjudged=0)
    made("quality_report", overall="WARNING")
    made("model_performance", below_promise=True, accuracy_24h=0.48)
    for _ in range(2):
        cursor, _ = tick(notify_reports, instance, cursor)
    tick(notify_reports, instance, None)
    new = told()[3:]
    assert [(each["kind"], each["resolved"]) for each in new] == [
        ("drift", True),
        ("performance", False),
        ("quality", True),
    ]
    assert new[0]["facts"]["judged"] == "10"
    assert new[1]["links"]["asset"] == "https://dagster.example.com/assets/model_performance"


def test_a_failed_run_that_cannot_be_recorded_turns_the_tick_red(
    instance: dg.DagsterInstance,
) -> None:
    cursor, _ = tick(notify_failed_run, instance, None)
    fragile.execute_in_process(instance=instance, raise_on_error=False)
    cursor, _ = tick(notify_failed_run, instance, cursor)
    fragile.execute_in_process(instance=instance, raise_on_error=False)
    record = settings().home_path / "notices.db"
    record.unlink(missing_ok=True)
    record.mkdir(parents=True)
    with dg.build_sensor_context(instance=instance, cursor=cursor) as context:
        (told_of,) = notify_failed_run.evaluate_tick(context).dagster_run_reactions
    assert told_of.error is not None
    assert "the notices' record cannot be written" in str(told_of.error)


def test_what_cannot_be_recorded_is_told_at_a_later_look(instance: dg.DagsterInstance) -> None:
    record = settings().home_path / "notices.db"
    record.mkdir(parents=True)
    event = dg.AssetMaterialization("model_performance", metadata={"below_promise": True})
    instance.report_runless_asset_event(event)
    cursor, _ = tick(notify_reports, instance, None)
    record.rmdir()
    tick(notify_reports, instance, cursor)
    assert [each["kind"] for each in told()] == ["performance"]


@dataclass
class Registry:
    """As much of a registry as keeping it in step needs; promotion is tested on a real one."""

    aliases: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    artifacts: dict[str, bytes] = field(default_factory=dict)
    down: bool = False

    def get_registered_model(self, name: str) -> Any:
        if self.down:
            raise ConnectionError
        return SimpleNamespace(name=name, aliases=dict(self.aliases), tags=dict(self.tags))

    def set_registered_model_alias(self, _: str, alias: str, version: str) -> None:
        self.aliases[alias] = version

    def set_registered_model_tag(self, _: str, name: str, text: str) -> None:
        self.tags[name] = text

    def list_artifacts(self, run_id: str, path: str) -> list[Any]:
        names = [each for each in self.artifacts if each.startswith(f"{run_id}/{path}/")]
        return [SimpleNamespace(path=name.removeprefix(f"{run_id}/")) for name in names]

    def log_artifact(self, run_id: str, file: str, path: str) -> None:
        self.artifacts[f"{run_id}/{path}/{Path(file).name}"] = Path(file).read_bytes()

    def download_artifacts(self, run_id: str, path: str, folder: str) -> str:
        found = Path(folder, "artifact")
        found.write_bytes(self.artifacts[f"{run_id}/{path}"])
        return str(found)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    found = Registry()
    monkeypatch.setattr(alert_sensors, "_client", lambda _: found)
    return found


def decide(registry: Registry, *versions: int) -> None:
    configured = settings()
    if not configured.private_key_path.exists():
        approval.generate_keys(configured.private_key_path, configured.public_key_path)
    key = approval.load_private_key(configured.private_key_path)
    for version in versions:
        promotion.decide(registry, Lake(configured.lake_uri), key, decision(version))


def test_decisions_are_told_of_once_and_a_moved_alias_is_put_back(
    instance: dg.DagsterInstance, registry: Registry
) -> None:
    assert settings().model_name == MODEL
    assert tick(watch_deployments, instance, None)[1] == "nothing has been decided yet"
    decide(registry, 1, 2)
    cursor, _ = tick(watch_deployments, instance, None)
    tick(watch_deployments, instance, None)
    assert [each["key"] for each in told()] == [f"decision:{MODEL}:{n}" for n in (0, 1)]
    registry.aliases[CHAMPION_ALIAS] = "1"
    decide_later, _ = tick(watch_deployments, instance, cursor)
    assert registry.aliases[CHAMPION_ALIAS] == "2"
    (moved,) = told()[2:]
    assert (moved["kind"], moved["severity"]) == ("alias_moved", "critical")
    registry.down = True
    assert tick(watch_deployments, instance, decide_later)[0] == decide_later
    assert len(told()) == 3


@pytest.mark.parametrize("how", ["changed", "cut off"])
def test_a_broken_history_is_told_and_the_registry_left_alone(
    instance: dg.DagsterInstance, registry: Registry, how: str
) -> None:
    decide(registry, 1, 2)
    lake = Lake(settings().lake_uri)
    rows = lake.scan("deployments").collect().sort("sequence")
    cut = rows.head(1) if how == "cut off" else rows.with_columns(reason=rows["model_version"])
    lake.overwrite("deployments", cut)
    before = dict(registry.tags)
    _, said = tick(watch_deployments, instance, None)
    assert said == "the history of deployments is not sound"
    (broken,) = told()
    assert (broken["kind"], broken["severity"]) == ("history_broken", "critical")
    assert registry.tags == before


def test_a_forged_deployment_is_told_and_put_right(
    instance: dg.DagsterInstance, registry: Registry
) -> None:
    decide(registry, 1, 2)
    genuine, forger = registry.tags[DEPLOYMENT_TAG], Ed25519PrivateKey.generate()
    public = approval.load_public_key(settings().public_key_path)
    forged = sign_deployment(read_deployment(genuine, public), forger)
    for text in (forged, "no deployment at all"):
        registry.tags[DEPLOYMENT_TAG] = text
        _, said = tick(watch_deployments, instance, None)
        assert "the registry's deployment is not genuine" in str(said)
        assert registry.tags[DEPLOYMENT_TAG] == genuine
    kinds = [each["kind"] for each in told()]
    assert kinds == ["history_broken", "decision", "decision", "history_broken"]
    registry.tags[DEPLOYMENT_TAG] = forged
    settings().private_key_path.unlink()
    tick(watch_deployments, instance, None)
    assert registry.tags[DEPLOYMENT_TAG] == forged  # another machine has the key


@pytest.mark.parametrize("gone", ["table", "table, after it was told of", "key"])
def test_a_history_that_is_gone_is_no_fresh_start(
    instance: dg.DagsterInstance, registry: Registry, gone: str
) -> None:
    decide(registry, 1, 2)
    cursor = None
    if gone == "key":
        settings().public_key_path.unlink()
    else:
        if "told" in gone:
            cursor, _ = tick(watch_deployments, instance, None)
            registry.tags.clear()
        shutil.move(Path(settings().lake_uri, "deployments"), settings().home_path / "elsewhere")
    before = dict(registry.tags)
    _, said = tick(watch_deployments, instance, cursor)
    assert said == "the history of deployments is not sound"
    broken = told()[-1]
    assert broken["kind"] == "history_broken"
    assert ("verifying key" if gone == "key" else "has 0 rows") in broken["body"]
    assert registry.tags == before


def test_only_silence_is_taken_for_silence(
    instance: dg.DagsterInstance, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide(registry, 1)
    registry.down = True
    assert tick(watch_deployments, instance, None)[1] == "the registry or the lake does not answer"
    monkeypatch.setattr(alert_sensors, "_client", lambda _: object())
    with pytest.raises(AttributeError):
        tick(watch_deployments, instance, None)


def test_asking_makes_no_registry() -> None:
    assert alert_sensors._client(settings()) is None
    assert not settings().home_path.exists()


def test_sending_a_record_that_is_not_there_is_no_work(instance: dg.DagsterInstance) -> None:
    assert tick(send_notices, instance, None)[1] == "0 sent, 0 refused for good, 0 channels down"
    assert not (settings().home_path / "notices.db").exists()
