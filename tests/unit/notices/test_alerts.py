from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cryptoml_assets.deployment.promotion import Reconciled
from cryptoml_assets.monitoring.freshness import Age
from cryptoml_assets.notices import alerts

AT = datetime(2024, 3, 1, 12, tzinfo=UTC)
LINKS = {"asset": "http://127.0.0.1:3000/assets/x"}


def test_a_failed_run_is_named_by_its_step_and_hides_passwords() -> None:
    told = alerts.run_failed(
        "__ASSET_JOB", {"raw_prices": "redis://u:secret@h is down"}, "m", "drift", AT, LINKS
    )
    assert told.title == "Run of assets failed: raw_prices"
    assert told.key == "run_failed:__ASSET_JOB:raw_prices"
    assert told.body == "raw_prices: redis://***@h is down"
    assert told.facts["asked for by"] == "drift"
    early = alerts.run_failed("train", {}, "no executor", "", AT, LINKS)
    assert (early.title, early.body) == (
        "Run of train failed: before its first step",
        "no executor",
    )


def test_the_gate_tells_of_rejections_and_of_those_that_wait() -> None:
    rejected = alerts.gate({"approved": False, "model_version": "7", "reasons": "r"}, AT, LINKS)
    assert rejected is not None
    assert (rejected.kind, rejected.body) == ("gate_rejected", "r")
    waits = alerts.gate({"approved": True, "model_version": "7", "waits_for": "cmd"}, AT, LINKS)
    assert waits is not None
    assert (waits.kind, waits.body) == ("approval_awaited", "To let it serve: cmd")
    assert alerts.gate({"approved": True}, AT, LINKS) is None


def test_reports_alarm_and_calm_down_under_one_key() -> None:
    drift = alerts.drift_of("prediction_drift")
    for tell, bad, good in (
        (drift, {"alarm": True, "drifted_share": 0.5}, {"alarm": False, "drifted_share": 0.0}),
        (alerts.performance, {"below_promise": True}, {"below_promise": False}),
        (alerts.quality, {"overall": "CRITICAL"}, {"overall": "HEALTHY"}),
    ):
        alarm, calm = tell(bad, AT, LINKS), tell(good, AT, LINKS)
        assert alarm is not None
        assert calm is not None
        assert (alarm.resolved, calm.resolved, alarm.key == calm.key) == (False, True, True)
        assert tell({}, AT, LINKS) is None
    warning = alerts.quality({"overall": "WARNING"}, AT, LINKS)
    assert warning is not None
    assert warning.resolved  # it was critical, and is no more


def test_what_nobody_judged_is_no_recovery() -> None:
    drift, few = alerts.drift_of("feature_drift"), {"drifted_share": 0.0, "alarm": False}
    for tell, facts in (
        (alerts.performance, {"below_promise": False, "judged": False}),
        (drift, {**few, "judged": 0}),
        (drift, {**few, "judged": 35, "unjudged": 45}),
    ):
        assert tell(facts, AT, LINKS) is None
    assert drift({**few, "judged": 45, "unjudged": 35}, AT, LINKS) is not None
    alarm = drift({"alarm": True, "judged": 35, "unjudged": 45}, AT, LINKS)
    assert alarm is not None
    assert not alarm.resolved


def test_reports_name_the_version_but_share_one_trouble() -> None:
    told = [
        alerts.performance({"below_promise": below, "judged": True, "champion": v}, AT, LINKS)
        for v, below in (("3", True), ("4", False))
    ]
    assert [each.title for each in told if each] == [
        "Live performance of version 3 is below promised",
        "Live performance of version 4 is again as promised",
    ]
    assert len({each.key for each in told if each}) == 1
    drift = alerts.drift_of("prediction_drift")
    seen = drift({"alarm": True, "model_version": "3"}, AT, LINKS)
    assert seen is not None
    assert seen.title == "Prediction drift under version 3"


def test_revised_rows_are_told_of_when_some_are_new() -> None:
    facts = {"new": 2, "affected_versions": ["3", "4"], "affected_predictions": 7}
    told = alerts.revisions(facts, AT, LINKS)
    assert told is not None
    assert told.title == "Revised rows lie under models: 3, 4"
    assert told.facts == {"new": "2", "predictions": "7"}
    assert alerts.revisions({**facts, "new": 0}, AT, LINKS) is None


def test_an_alias_and_a_history_say_what_is_wrong() -> None:
    moved = alerts.alias_moved("m", Reconciled("9", "3", moved_by_hand=True, changed=True), AT, {})
    assert "pointed at 9" in moved.body
    assert "to 3" in moved.body
    one, other = (alerts.history_broken([text], AT, LINKS) for text in ("row 1", "row 2"))
    assert one.severity == "critical"
    assert one.key != other.key


def test_a_stale_table_names_who_is_behind_and_for_how_long() -> None:
    age = Age("raw_prices", AT, AT + timedelta(minutes=35), ("ETH/USDT",))
    told = alerts.stale(age, AT + timedelta(minutes=65), timedelta(minutes=30), AT, LINKS)
    assert told.title == "raw_prices is stale"
    assert told.body == "Newest row of ETH/USDT: 2024-03-01 12:00:00 UTC, overdue for 1:00:00."
    assert told.key == alerts.fresh("raw_prices", AT, LINKS).key
