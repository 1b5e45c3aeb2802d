"""The sensors that tell people: of failed runs, of what reports say, of decisions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from cryptoml_assets.errors import ApprovalError, LakeError, NoticeNotSentError
from cryptoml_assets.events import events_after, told
from cryptoml_assets.jobs import CAUSE_TAG
from cryptoml_assets.monitoring import cursors
from cryptoml_assets.notices import alerts
from cryptoml_assets.notices.notice import safe
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.resources.notifier import Notifier
from cryptoml_assets.settings import Settings, settings

if TYPE_CHECKING:
    from cryptoml_assets.deployment.history import Entry

_GATE = "validated_deployment"
_REPORTS: Mapping[str, alerts.Teller] = {
    "feature_drift": alerts.drift_of("feature_drift"),
    "prediction_drift": alerts.drift_of("prediction_drift"),
    "model_performance": alerts.performance,
    "quality_report": alerts.quality,
    "revision_impact": alerts.revisions,
}
#: Most events of one asset that are told of at a time.
_AT_A_TIME = 50


@dg.run_failure_sensor(
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
    description="Tells of each failed run: job, steps, the cause and a link",
)
def notify_failed_run(context: dg.RunFailureSensorContext) -> None:
    """Tell of a failed run: job, steps, the cause and a link."""
    run, steps = context.dagster_run, context.get_step_failure_events()
    notice = alerts.run_failed(
        run.job_name,
        {event.step_key or "?": _cause(event) for event in steps},
        context.failure_event.message or "",
        run.tags.get(CAUSE_TAG, ""),
        datetime.fromtimestamp(_ended(context), UTC),
        links(settings(), run_id=run.run_id),
    )
    if not Notifier.of(settings(), context.log).post(notice):
        # Dagster goes on to the next run whatever happens here; this way the tick is red.
        message = f"run {run.run_id} is not told of: the notices' record cannot be written"
        raise NoticeNotSentError(message)


@dg.sensor(
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
    description="Tells of candidates the gate rejected, and of reports that alarm or calm down: "
    "drift, performance, quality, revised data",
)
def notify_reports(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """Tell of what the gate and the reports say, each event once."""
    configured, seen, posted = settings(), cursors.read(context.cursor), 0
    notifier = Notifier.of(configured, context.log)
    for table, teller in ((_GATE, alerts.gate), *_REPORTS.items()):
        key, observed = dg.AssetKey(table), table == _GATE
        # Without a memory all is read again: what was told is in the notifier's record.
        after = seen.get(table, 0)
        for record in events_after(context.instance, key, after, _AT_A_TIME, observations=observed):
            at = datetime.fromtimestamp(record.timestamp, UTC)
            where = links(configured, run_id=record.run_id, asset=table)
            notice = teller(told(record), at, where)
            if notice is not None:
                if not notifier.post(notice):
                    break
                posted += 1
            seen[table] = record.storage_id
    return dg.SensorResult(skip_reason=f"{posted} events told of", cursor=cursors.write(seen))


@dg.sensor(
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=60,
    description="Verifies the history of decisions, tells of new ones, and puts a champion alias "
    "back that was moved by hand",
)
def watch_deployments(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """Verify the history, tell of each decision once, keep the registry in step with it."""
    configured, seen = settings(), cursors.read(context.cursor)
    lake, notifier = Lake(configured.lake_uri), Notifier.of(configured, context.log)
    try:
        found = _history(configured, lake, seen.get("decisions", 0))
    except _silences() as error:
        context.log.warning(
            "the history cannot be held against the registry: %s", safe(repr(error))
        )
        return dg.SensorResult(skip_reason="the registry or the lake does not answer")
    if found.problems:
        # The same instant for a while: what lasts would fill the record otherwise.
        now = datetime.now(UTC)
        noticed = now.replace(minute=now.minute // 10 * 10, second=0, microsecond=0)
        notifier.post(
            alerts.history_broken(found.problems, noticed, links(configured, asset=_GATE))
        )
    if found.faults:
        return dg.SensorResult(skip_reason="the history of deployments is not sound")
    if not found.entries:
        return dg.SensorResult(skip_reason="nothing has been decided yet")
    for entry in found.entries[seen.get("decisions", 0) :]:
        if not notifier.post(alerts.decision(entry, links(configured, asset=_GATE))):
            break
        seen["decisions"] = entry.record.sequence + 1
    _bring_in_step(context, configured, lake)
    said = found.forged or f"{len(found.entries)} decisions are sound"
    return dg.SensorResult(skip_reason=said, cursor=cursors.write(seen))


@dg.sensor(
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
    description="Sends the notices that are due over Slack, Teams, PagerDuty, mail and webhook; "
    "those that did not arrive are tried again",
)
def send_notices(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Send what is due: all other sensors only store what is to be told."""
    done = Notifier.of(settings(), context.log).deliver()
    return dg.SkipReason(
        f"{done.sent} sent, {done.refused} refused for good, {done.failed} channels down"
    )


def links(configured: Settings, *, run_id: str = "", asset: str = "") -> dict[str, str]:
    """Where in the Dagster UI to look."""
    base = configured.dagster_url.rstrip("/") or f"http://127.0.0.1:{configured.dagster_port}"
    run = {"Dagster run": f"{base}/runs/{run_id}"} if run_id else {}
    return {**run, **({"asset": f"{base}/assets/{asset}"} if asset else {})}


@dataclass(frozen=True)
class _History:
    """What the table of decisions and the registry say together.

    Attributes:
        faults: what is wrong with the table; nothing may be concluded from it then.
        forged: why the registry's deployment is not genuine, which the table can put right; empty
            where it is.
        entries: the decisions, where the table is sound.
    """

    faults: Sequence[str] = ()
    forged: str = ""
    entries: Sequence["Entry"] = ()

    @property
    def problems(self) -> list[str]:
        """All that people should know of."""
        return [*self.faults, *([self.forged] if self.forged else [])]


def _history(configured: Settings, lake: Lake, told: int) -> _History:
    """The history, held against the registry and the ``told`` decisions that were in it before.

    A table or a key that is gone is no fresh start where something has been decided before.
    """
    from cryptoml_assets.deployment import history  # noqa: PLC0415
    from cryptoml_serving.contract.approval import (  # noqa: PLC0415
        ApprovalInvalidError,
        load_public_key,
    )
    from cryptoml_serving.contract.deployment import read_deployment  # noqa: PLC0415

    # The registry first: the table never is behind it.
    text, stored = _deployment_tag(configured), history.rows(lake)
    if stored.is_empty() and text is None and not told:
        return _History()
    faults, forged, deployment = [], "", None
    if stored.height < told or stored.is_empty():
        known = f"{told} were told of" if told else "the registry has a deployment"
        faults.append(f"the table of decisions has {stored.height} rows, and {known}")
    try:
        key = load_public_key(configured.public_key_path)
    except ApprovalInvalidError as error:
        return _History([*faults, str(error)])
    try:
        deployment = None if text is None else read_deployment(text, key)
    except ApprovalInvalidError as error:
        forged = f"the registry's deployment is not genuine: {error}"
    faults += history.faults(stored, key, deployment)
    return _History(faults, forged, () if faults else history.read(lake, key))


def _deployment_tag(configured: Settings) -> str | None:
    """The text of the registry's deployment, where there is one."""
    from cryptoml_serving.contract.registry import DEPLOYMENT_TAG  # noqa: PLC0415

    client = _client(configured)
    if client is None:
        return None
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - seconds to import

    try:
        text = client.get_registered_model(configured.model_name).tags.get(DEPLOYMENT_TAG)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return None if text is None else str(text)


def _bring_in_step(context: dg.SensorEvaluationContext, configured: Settings, lake: Lake) -> None:
    """Let the registry follow the history, where this machine has the key that signs."""
    from cryptoml_assets.deployment import promotion, signing  # noqa: PLC0415
    from cryptoml_assets.deployment.moved_alias import teller  # noqa: PLC0415

    client = _client(configured) if configured.private_key_path.exists() else None
    if client is None:
        return
    try:
        key = signing.signing_key(configured.private_key_path, configured.public_key_path)
        # A sensor's record of notices stays: `send_notices` sends what is in it.
        tell = teller(configured, context.log, at_once=False, links=links(configured, asset=_GATE))
        promotion.reconcile(client, lake, key, configured.model_name, tell=tell)
    except _silences(ApprovalError) as error:
        context.log.warning("the registry cannot be brought in step: %s", safe(repr(error)))


def _silences(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """Errors that say that registry or lake do not answer, which is asked again later."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - seconds to import

    return (OSError, LakeError, MlflowException, *others)


def _client(configured: Settings) -> Any:
    """Of the registry; none where it is a file that nobody has made yet."""
    from cryptoml_assets.resources.tracker import Tracker  # noqa: PLC0415

    address = configured.tracking_address
    file = address.removeprefix("sqlite:///")
    if file != address and not Path(file).exists():
        return None
    tracker = Tracker(tracking_uri=address, artifact_location=configured.artifacts_address)
    return tracker.client()


def _cause(event: dg.DagsterEvent) -> str:
    """The innermost error that is recorded of a step."""
    error = event.step_failure_data.error
    while error is not None and error.cause is not None:
        error = error.cause
    return error.message.strip() if error is not None else event.message or ""


def _ended(context: dg.RunFailureSensorContext) -> float:
    """When the run ended, in seconds since 1970: the same whenever it is asked."""
    record = context.instance.get_run_record_by_id(context.dagster_run.run_id)
    if record is None:
        return datetime.now(UTC).timestamp()
    return record.end_time or record.create_timestamp.timestamp()
