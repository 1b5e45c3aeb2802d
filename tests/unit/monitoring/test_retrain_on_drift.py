"""The drift sensor over a real Dagster instance."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from cryptoml_assets.monitoring.retrain import why_no_retrain
from cryptoml_assets.monitoring.sensors import retrain_on_drift
from cryptoml_assets.settings import settings

AT = datetime(2024, 3, 1, 6, 1, tzinfo=UTC)
HOURS_6 = timedelta(hours=6)


def judge(share: float, last: datetime | None = None) -> str | None:
    return why_no_retrain(share, 0.3, reported_at=AT, last_asked_at=last, cooldown=HOURS_6)


def test_enough_drift_asks_and_too_little_says_how_much() -> None:
    assert judge(0.3) is None
    assert judge(0.29) == "29% of features drifted, below 30%"


def test_the_cooldown_is_counted_from_the_last_retrain() -> None:
    assert "asked for at 2024-03-01 05:59 UTC" in str(judge(0.9, AT - timedelta(minutes=2)))
    assert judge(0.9, AT - HOURS_6) is None


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    settings.cache_clear()
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@dg.op
def train() -> None: ...


@dg.job(name="retrain")
def retrain_job() -> None:
    train()


def tick(
    instance: dg.DagsterInstance, metadata: dict[str, object]
) -> dg.RunRequest | dg.SkipReason:
    instance.report_runless_asset_event(dg.AssetMaterialization("feature_drift", metadata=metadata))
    with dg.build_sensor_context(instance=instance) as context:
        answer = retrain_on_drift.evaluate_tick(context)
    return answer.run_requests[0] if answer.run_requests else dg.SkipReason(answer.skip_message)


def test_drift_asks_for_one_retrain_per_cooldown(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = tick(instance, {"drifted_share": 0.5})
    assert isinstance(request, dg.RunRequest)
    assert request.tags["cryptoml/cause"] == "drift"
    retrain_job.execute_in_process(instance=instance, tags=request.tags)
    refused = tick(instance, {"drifted_share": 0.9})
    assert isinstance(refused, dg.SkipReason)
    assert "a retrain was asked for" in str(refused.skip_message)
    monkeypatch.setenv("CRYPTOML_RETRAIN_COOLDOWN", "0s")
    settings.cache_clear()
    assert isinstance(tick(instance, {"drifted_share": 0.9}), dg.RunRequest)


def test_a_report_without_a_share_asks_for_nothing(instance: dg.DagsterInstance) -> None:
    refused = tick(instance, {})
    assert isinstance(refused, dg.SkipReason)
    assert refused.skip_message == "the drift report has no drifted_share"
