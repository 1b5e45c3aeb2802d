"""When models are trained again without anybody asking."""

from __future__ import annotations

import dagster as dg

from cryptoml_assets.jobs import CAUSE_TAG, retrain
from cryptoml_assets.settings import settings

#: After the day is final and the network metrics of the day before are published.
retrain_daily = dg.ScheduleDefinition(
    name="retrain_daily",
    job=retrain,
    cron_schedule="30 5 * * *",
    execution_timezone="UTC",
    tags={CAUSE_TAG: "schedule"},
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="A fresh candidate every day, through the same gate as any other",
)
#: On Sundays, well after the daily one.
retrain_weekly = dg.ScheduleDefinition(
    name="retrain_weekly",
    job=retrain,
    cron_schedule="30 8 * * 0",
    execution_timezone="UTC",
    tags={CAUSE_TAG: "schedule"},
    run_config={
        "ops": {"candidate_models": {"config": {"search_trials": settings().retrain_weekly_trials}}}
    },
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="A wider search for hyper-parameters once a week, through the same gate",
)
