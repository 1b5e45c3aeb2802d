"""What watches the graph: drift that asks for a retrain, failed runs, stale assets."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime

import dagster as dg

from cryptoml_assets.jobs import retrain
from cryptoml_assets.monitoring.retrain import why_no_retrain
from cryptoml_assets.settings import settings

_CAUSE = {"cryptoml/cause": "drift"}

with warnings.catch_warnings():
    # The code location evaluates it, which the daemon could not: what features follow is a
    # condition of our own. Dagster calls the option beta.
    warnings.simplefilter("ignore", dg.BetaWarning)
    #: Evaluates the automation conditions of every asset: stale ones are materialised again.
    keep_fresh = dg.AutomationConditionSensorDefinition(
        "keep_fresh",
        target=dg.AssetSelection.all(),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        description="Materialises again what is stale, day by day",
        use_user_code_server=True,
    )


@dg.asset_sensor(
    asset_key=dg.AssetKey("feature_drift"),
    job=retrain,
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=60,
    description="Asks for a retrain when enough features have drifted, once per cooldown",
)
def retrain_on_drift(
    context: dg.SensorEvaluationContext, asset_event: dg.EventLogEntry
) -> dg.RunRequest | dg.SkipReason:
    """Ask for a retrain when enough features have drifted, once per cooldown."""
    materialization = asset_event.asset_materialization
    metadata = materialization.metadata if materialization is not None else {}
    share = metadata["drifted_share"].value if "drifted_share" in metadata else None
    if not isinstance(share, float):
        return dg.SkipReason("the drift report has no drifted_share")
    configured = settings()
    reason = why_no_retrain(
        share,
        configured.drift_share,
        reported_at=datetime.fromtimestamp(asset_event.timestamp, UTC),
        last_asked_at=_last_asked_at(context.instance),
        cooldown=configured.retrain_cooldown,
    )
    if reason is not None:
        return dg.SkipReason(reason)
    context.log.info("%.0f %% of features drifted: a retrain is due", share * 100)
    return dg.RunRequest(run_key=f"drift-{asset_event.run_id}", tags=_CAUSE)


def _last_asked_at(instance: dg.DagsterInstance) -> datetime | None:
    """When the newest run that drift asked for was created, whatever became of it."""
    newest = instance.get_run_records(dg.RunsFilter(tags=_CAUSE), limit=1)
    return newest[0].create_timestamp if newest else None


@dg.run_failure_sensor(
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
    description="Writes one log line for each failed run: job, run and the cause",
)
def notify_failed_run(context: dg.RunFailureSensorContext) -> None:
    """Write one log line for each failed run: job, run and the cause."""
    event = context.failure_event
    context.log.error(
        "run %s of job %s failed: %s",
        context.dagster_run.run_id,
        context.dagster_run.job_name,
        event.message,
    )
