"""What watches the graph: drift that asks for a retrain, failed runs, stale assets."""

from __future__ import annotations

import dagster as dg

from cryptoml_assets.jobs import retrain
from cryptoml_assets.monitoring.notice import retrain_request
from cryptoml_assets.settings import settings

#: Evaluates the automation conditions of every asset: stale ones are materialised again.
keep_fresh = dg.AutomationConditionSensorDefinition(
    "keep_fresh",
    target=dg.AssetSelection.all(),
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
    description="Materialises again what is stale, day by day",
)


@dg.asset_sensor(
    asset_key=dg.AssetKey("feature_drift"),
    job=retrain,
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=60,
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
    run_key = retrain_request(
        share, configured.drift_share, asset_event.timestamp, configured.retrain_cooldown
    )
    if run_key is None:
        return dg.SkipReason(f"{share:.0%} of features drifted, below {configured.drift_share:.0%}")
    context.log.info("%.0f %% of features drifted: retrain %s", share * 100, run_key)
    return dg.RunRequest(run_key=run_key, tags={"cryptoml/cause": "drift"})


@dg.run_failure_sensor(default_status=dg.DefaultSensorStatus.RUNNING, minimum_interval_seconds=30)
def notify_failed_run(context: dg.RunFailureSensorContext) -> None:
    """Write one log line for each failed run: job, run and the cause."""
    event = context.failure_event
    context.log.error(
        "run %s of job %s failed: %s",
        context.dagster_run.run_id,
        context.dagster_run.job_name,
        event.message,
    )
