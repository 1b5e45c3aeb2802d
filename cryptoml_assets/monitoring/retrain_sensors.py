"""The sensor that asks for a retrain when the inputs have moved or the answers got worse."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from cryptoml_assets.deployment import standing
from cryptoml_assets.errors import ApprovalError
from cryptoml_assets.events import events_after, newest_numbers, told
from cryptoml_assets.jobs import CAUSE_TAG, retrain
from cryptoml_assets.monitoring.retrain import (
    CAUSES,
    Asked,
    Cause,
    Event,
    Policy,
    State,
    decide,
    drift_level,
    from_text,
    recovered,
    to_text,
)
from cryptoml_assets.notices.alerts import mostly_judged
from cryptoml_assets.settings import settings
from cryptoml_serving.contract.approval import ApprovalInvalidError

#: Number, in the event log, of the report that asked for a run.
REPORT_TAG = "cryptoml/report"
#: The Dagster run that made that report.
REPORT_RUN_TAG = "cryptoml/report_run"
_REPORTS: dict[str, Cause] = {"feature_drift": "drift", "model_performance": "performance"}
_DEPLOYED = "validated_deployment"
#: Most events of one asset that are taken in at a time.
_AT_A_TIME = 100


@dg.sensor(
    job=retrain,
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
    description="Asks for a retrain when reports in a row say that inputs have drifted or that "
    "live performance is below what was promised, within a cooldown and a daily budget",
)
def retrain_on_alarm(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """Ask for a retrain on drift or on performance below promise: one sensor, one budget."""
    configured = settings()
    policy = Policy(
        configured.retrain_reports, configured.retrain_cooldown, configured.retrain_budget
    )
    try:
        champion = standing.current(configured).champion
    except (ApprovalError, ApprovalInvalidError) as error:
        context.log.warning("no retrain: %s", error)
        return dg.SensorResult(skip_reason="the history of deployments is not sound")
    known = _known(context.instance, policy)
    state = from_text(context.cursor)
    if state is None:
        state = recovered(known, _begin(context.instance, policy.reports))
    # Decisions of people and of challengers materialise nothing: the table has them all.
    state = state.under(champion.record.sequence if champion else -1)
    version = champion.record.model_version if champion else None
    decision = decide(
        state,
        _events(context.instance, state, configured.drift_share, version),
        known,
        now=datetime.now(UTC),
        policy=policy,
    )
    for reason in decision.reasons:
        context.log.info("no retrain: %s", reason)
    if decision.ask is None:
        said = decision.reasons[-1] if decision.reasons else "no report asks for a retrain"
        return dg.SensorResult(skip_reason=said, cursor=to_text(decision.state))
    context.log.warning("a retrain is due: %s", decision.ask.detail)
    return dg.SensorResult(run_requests=[_request(decision.ask)], cursor=to_text(decision.state))


def _request(ask: Event) -> dg.RunRequest:
    tags = {CAUSE_TAG: str(ask.cause), REPORT_TAG: str(ask.number)}
    if ask.run_id:
        tags[REPORT_RUN_TAG] = ask.run_id
    return dg.RunRequest(run_key=f"{ask.cause}-{ask.number}", tags=tags)


def _known(instance: dg.DagsterInstance, policy: Policy) -> list[Asked]:
    """Retrains that reports asked for: those that count for the budget, and each cause's newest."""
    since = datetime.now(UTC) - max(timedelta(days=1), policy.cooldown)
    records: list[dg.RunRecord] = []
    for cause in CAUSES:
        tags = {CAUSE_TAG: cause}
        records += instance.get_run_records(dg.RunsFilter(tags=tags, created_after=since))
        records += instance.get_run_records(dg.RunsFilter(tags=tags), limit=1)
    found: dict[tuple[Cause, int], Asked] = {}
    for record in sorted(records, key=lambda each: each.create_timestamp):
        run = record.dagster_run
        cause = next(each for each in CAUSES if each == run.tags[CAUSE_TAG])
        report = run.tags.get(REPORT_TAG, "")
        number = int(report) if report.isdecimal() else 0
        # A run that is tried again, by Dagster or by a person, keeps its tags: it is one asking.
        before = found.get((cause, number))
        at = before.at if before is not None else record.create_timestamp.astimezone(UTC)
        over = run.is_finished and (before is None or before.ended)
        found[cause, number] = Asked(cause, number, at, ended=over)
    return list(found.values())


def _begin(instance: dg.DagsterInstance, reports: int) -> int:
    """The event before the newest ``reports`` reports of each cause."""
    oldest = []
    for table in _REPORTS:
        numbers = newest_numbers(instance, dg.AssetKey(table), reports + 1)
        oldest.append(numbers[-1] if len(numbers) > reports else 0)
    return min(oldest)


def _events(
    instance: dg.DagsterInstance, state: State, drift_share: float, champion: str | None
) -> list[Event]:
    """What came after the state, oldest first, up to where all of it is known."""
    found: list[Event] = []
    complete: list[int] = []
    for table in (*_REPORTS, _DEPLOYED):
        records = events_after(instance, dg.AssetKey(table), state.seen, _AT_A_TIME)
        if len(records) == _AT_A_TIME:
            complete.append(records[-1].storage_id)
        found += [_event(table, record, drift_share, champion) for record in records]
    last = min(complete, default=None)
    ordered = sorted(found, key=lambda event: event.number)
    return ordered if last is None else [event for event in ordered if event.number <= last]


def _event(
    table: str, record: dg.EventLogRecord, drift_share: float, champion: str | None
) -> Event:
    """What a materialisation says of drift, performance or approval."""
    facts, number, run_id = told(record), record.storage_id, record.run_id
    if table == _DEPLOYED:
        return Event(number, run_id=run_id, deployed=_is_champion(facts))
    of = facts.get("champion", facts.get("model_version"))
    if champion is not None and of is not None and of != champion:
        # What it measured is of a version that answers nothing by now.
        return Event(number, run_id=run_id)
    share, alarm, below = (facts.get(n) for n in ("drifted_share", "alarm", "below_promise"))
    if table == "feature_drift" and isinstance(share, int | float):
        verdict = alarm if isinstance(alarm, bool) else None
        level = drift_level(float(share), drift_share, alarm=verdict)
        level = "between" if level == "calm" and not mostly_judged(facts) else level
        return Event(number, "drift", level, f"{share:.0%} of features drifted", run_id)
    if isinstance(below, bool):
        level = "alarm" if below else "calm" if facts.get("judged", True) else "between"
        detail = {"alarm": "below", "calm": "as"}.get(level, "not yet held against what was")
        return Event(number, "performance", level, f"live performance is {detail} promised", run_id)
    return Event(number, run_id=run_id)


def _is_champion(facts: Mapping[str, Any]) -> bool:
    """Whether an approval put another model in the champion's place."""
    return not facts.get("unchanged") and facts.get("role", "champion") == "champion"
