"""The sensor that looks at how old the newest rows are."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from cryptoml_assets.jobs import CAUSE_TAG, ingest
from cryptoml_assets.monitoring import freshness, troubles
from cryptoml_assets.monitoring.alert_sensors import links
from cryptoml_assets.monitoring.freshness import Age
from cryptoml_assets.notices import alerts
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.resources.notifier import Notifier
from cryptoml_assets.settings import settings

#: What is stale for less is left to `keep_fresh`, as after a night that the machine was off.
_LONGEST_PATIENCE = timedelta(minutes=10)


@dg.sensor(
    job=ingest,
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=60,
    description="Looks at the newest rows of raw data and features: tells of tables that stay "
    "stale although keep_fresh runs, and asks for their open days again",
)
def watch_freshness(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """Tell of tables whose newest rows stay too old, and materialise their open days again.

    `keep_fresh` brings tables up to date; this is for when that is off, stuck or in vain. What was
    written last is of no account: a backfill of an old day makes nothing fresh.
    """
    configured, now = settings(), settings().clock()
    lake, known = Lake(configured.lake_uri), freshness.sources(configured)
    ages = [freshness.measure(lake, source, configured, now) for source in known]
    stale = {each.table: each for each in ages if each is not None and each.is_stale(now)}
    found = {each.table: each for each in freshness.roots(stale, known)}
    change = troubles.look(
        troubles.from_text(context.cursor),
        tuple(found),
        # What is stale because of another table is not over, though it is not told of.
        lasting=tuple(stale),
        busy=[table for table in found if _is_running(context.instance, table)],
        now=now,
        patience=min(_LONGEST_PATIENCE, configured.freshness / 2),
        again=configured.notify_quiet,
        pause=configured.freshness,
    )
    notifier, noticed = Notifier.of(configured, context.log), datetime.now(UTC)
    notices = [
        alerts.stale(
            found[table], now, configured.freshness, noticed, links(configured, asset=table)
        )
        for table in change.tell
    ]
    notices += [
        alerts.fresh(table, noticed, links(configured, asset=table)) for table in change.over
    ]
    if not all(notifier.post(notice) for notice in notices):
        return dg.SensorResult(skip_reason="the notices' record cannot be written")
    requests = [_request(found[table], now, configured.freshness) for table in change.act]
    told = f"stale: {', '.join(found)}" if found else "all tables are fresh"
    cursor = troubles.to_text(change.troubles)
    if not requests:
        return dg.SensorResult(skip_reason=told, cursor=cursor)
    return dg.SensorResult(run_requests=requests, cursor=cursor)


def _request(age: Age, now: datetime, pause: timedelta) -> dg.RunRequest:
    """A run of the table's open days, at most one in each ``pause`` whatever the cursor says."""
    first, last = freshness.days_due(age, now)
    return dg.RunRequest(
        run_key=f"stale-{age.table}-{int(now.timestamp() // pause.total_seconds())}",
        asset_selection=[dg.AssetKey(age.table)],
        tags={
            CAUSE_TAG: "stale",
            "dagster/asset_partition_range_start": first.isoformat(),
            "dagster/asset_partition_range_end": last.isoformat(),
        },
    )


def _is_running(instance: dg.DagsterInstance, table: str) -> bool:
    """Whether a run of the table has been asked for and is not over."""
    unfinished = [
        dg.DagsterRunStatus.QUEUED,
        dg.DagsterRunStatus.NOT_STARTED,
        dg.DagsterRunStatus.STARTING,
        dg.DagsterRunStatus.STARTED,
    ]
    key = dg.AssetKey(table)
    runs = instance.get_runs(dg.RunsFilter(statuses=unfinished))
    # A job that was asked for as a whole names no assets.
    return any(
        key in run.asset_selection if run.asset_selection else run.job_name == ingest.name
        for run in runs
    )
