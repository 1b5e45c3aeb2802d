"""The retraining sensor over a real Dagster instance, with real events and runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import dagster as dg
import pytest

from cryptoml_assets.deployment.history import Decision
from cryptoml_assets.models.schedules import retrain_daily, retrain_weekly
from cryptoml_assets.monitoring import retrain_sensors
from cryptoml_assets.monitoring.retrain_sensors import retrain_on_alarm
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import settings
from cryptoml_serving.contract import approval
from tests.deployment_world import KEY, decided, decision


@dg.op
def train() -> None: ...


@dg.job(name="retrain")
def retrain_job() -> None:
    train()


@dataclass
class World:
    """An instance, and what its daemon would remember."""

    instance: dg.DagsterInstance
    cursor: str | None = None
    requests: list[dg.RunRequest] = field(default_factory=list)

    def report(self, asset: str, **metadata: object) -> None:
        event = dg.AssetMaterialization(asset, metadata=metadata)
        self.instance.report_runless_asset_event(event)

    def tick(self, *, kept: bool = True, launched: bool = True) -> str:
        """One look: what was asked for, or why nothing was."""
        with dg.build_sensor_context(instance=self.instance, cursor=self.cursor) as context:
            told = retrain_on_alarm.evaluate_tick(context)
        if kept:
            self.cursor = told.cursor
        for request in told.run_requests or []:
            self.requests.append(request)
            if launched:
                retrain_job.execute_in_process(instance=self.instance, tags=request.tags)
        return str(told.skip_message or self.requests[-1].run_key)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("CRYPTOML_RETRAIN_COOLDOWN", "0s")
    settings.cache_clear()
    with dg.DagsterInstance.ephemeral() as instance:
        yield World(instance)


def test_reports_in_a_row_ask_once_and_say_why(world: World) -> None:
    assert world.tick() == "no report asks for a retrain"
    world.report("feature_drift", drifted_share=0.5)
    assert "1 in a row, 2 are needed" in world.tick()
    world.report("feature_drift", drifted_share=0.4)
    key = world.tick()
    (request,) = world.requests
    assert key.startswith("drift-")
    assert request.tags == {
        **request.tags,
        "cryptoml/cause": "drift",
        "cryptoml/report": key.removeprefix("drift-"),
    }
    for _ in range(3):
        assert world.tick() == "no report asks for a retrain"


def test_performance_below_promise_asks_within_the_common_cooldown(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        world.report("model_performance", below_promise=True)
    assert world.tick().startswith("performance-")
    monkeypatch.setenv("CRYPTOML_RETRAIN_COOLDOWN", "6h")
    settings.cache_clear()
    for _ in range(2):
        world.report("feature_drift", drifted_share=0.9, alarm=True)
    assert "a retrain was asked for at" in world.tick()


def test_a_lost_cursor_doubles_nothing(world: World) -> None:
    for _ in range(2):
        world.report("feature_drift", drifted_share=0.9)
    world.tick(kept=False)
    assert len(world.requests) == 1
    assert world.tick(kept=False) == "no report asks for a retrain"
    world.cursor = "of another time"
    assert world.tick() == "no report asks for a retrain"
    assert len(world.requests) == 1
    for _ in range(2):
        world.report("feature_drift", drifted_share=0.9)
    world.tick()
    assert len(world.requests) == 2


def test_the_budget_is_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYPTOML_RETRAIN_BUDGET", "2")
    settings.cache_clear()
    for _ in range(10):
        world.report("feature_drift", drifted_share=0.9)
        said = world.tick()
    assert len(world.requests) == 2
    assert "the budget is 2" in said


def test_a_new_champion_begins_anew_and_anything_else_does_not(world: World) -> None:
    for facts in ({"role": "shadow"}, {"unchanged": True}):
        world.report("feature_drift", drifted_share=0.9)
        world.report("validated_deployment", **facts)
        world.tick()
    assert len(world.requests) == 1
    world.report("feature_drift", drifted_share=0.9)
    world.report("validated_deployment", unchanged=False, role="champion")
    world.report("feature_drift", drifted_share=0.9)
    world.tick()
    assert len(world.requests) == 1


def test_what_nobody_judged_is_not_calm(world: World) -> None:
    alarm, few = {"drifted_share": 0.9, "alarm": True}, {"drifted_share": 0.0, "alarm": False}
    for facts in (alarm, {**few, "judged": 0}, {**few, "judged": 3, "unjudged": 70}, alarm):
        world.report("feature_drift", **facts)
    assert world.tick().startswith("drift-")
    for facts in (
        {"below_promise": True, "judged": True},
        {"below_promise": False, "judged": False},
        {"below_promise": True, "judged": True},
    ):
        world.report("model_performance", **facts)
    assert world.tick().startswith("performance-")
    calm = {**few, "judged": 70, "unjudged": 3}
    for facts in (alarm, calm, alarm):
        world.report("feature_drift", **facts)
    world.tick()
    assert len(world.requests) == 2


def decide(*decisions: Decision) -> None:
    configured = settings()
    if not configured.public_key_path.exists():
        configured.public_key_path.parent.mkdir(parents=True, exist_ok=True)
        approval.write_public_key(KEY, configured.public_key_path)
    decided(Lake(configured.lake_uri), *decisions)


def test_reports_on_a_version_that_is_champion_no_more_ask_for_nothing(world: World) -> None:
    decide(decision(1), decision(2))
    for _ in range(3):
        world.report("model_performance", below_promise=True, judged=True, champion="1")
        world.report("feature_drift", alarm=True, drifted_share=0.9, model_version="1")
    assert world.tick() == "no report asks for a retrain"
    for _ in range(2):
        world.report("model_performance", below_promise=True, judged=True, champion="2")
    assert world.tick().startswith("performance-")


@pytest.mark.parametrize("action", ["rollback", "withdraw", "promote"])
def test_every_decision_on_the_champion_begins_anew(world: World, action: str) -> None:
    decide(decision(1), decision(2), decision(3, role="shadow"))
    world.tick()
    world.report("feature_drift", alarm=True, drifted_share=0.9)
    world.tick()
    version, role = {
        "rollback": (1, "champion"),
        "withdraw": (2, "none"),
        "promote": (3, "champion"),
    }[action]
    decide(decision(version, action, role))
    world.report("feature_drift", alarm=True, drifted_share=0.9)
    assert "1 in a row, 2 are needed" in world.tick()
    decide(decision(4, role="shadow"))  # which leaves the champion where it is
    world.report("feature_drift", alarm=True, drifted_share=0.9)
    assert world.tick().startswith("drift-")


def test_a_history_that_is_not_sound_asks_for_nothing(world: World) -> None:
    decide(decision(1))
    lake = Lake(settings().lake_uri)
    lake.overwrite(
        "deployments", lake.scan("deployments").collect().with_columns(signature="record")
    )
    for _ in range(3):
        world.report("feature_drift", alarm=True, drifted_share=0.9)
    assert world.tick() == "the history of deployments is not sound"
    assert world.cursor is None


def test_a_long_absence_is_caught_up_with_in_order(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrain_sensors, "_AT_A_TIME", 3)
    world.tick()
    world.report("feature_drift", drifted_share=0.9)
    for _ in range(7):
        world.report("validated_deployment", unchanged=True)
    world.report("validated_deployment", unchanged=False)
    world.report("feature_drift")  # says nothing
    world.report("feature_drift", drifted_share=0.9)
    for _ in range(5):
        world.tick()
    assert world.requests == []  # the new champion came between the two alarms
    world.report("feature_drift", drifted_share=0.9)
    world.tick()
    assert len(world.requests) == 1


def test_the_weekly_retrain_searches_wider_than_the_daily_one() -> None:
    with dg.build_schedule_context() as context:
        daily = retrain_daily.evaluate_tick(context).run_requests[0]
        weekly = retrain_weekly.evaluate_tick(context).run_requests[0]
    assert daily.run_config == {}
    trials = weekly.run_config["ops"]["candidate_models"]["config"]["search_trials"]
    assert trials == settings().retrain_weekly_trials > settings().search_trials
    assert {each.tags["cryptoml/cause"] for each in (daily, weekly)} == {"schedule"}
