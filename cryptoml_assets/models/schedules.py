"""When models are trained again without anybody asking."""

from __future__ import annotations

import dagster as dg

from cryptoml_assets.jobs import retrain

#: After the day is final and the network metrics of the day before are published.
retrain_daily = dg.ScheduleDefinition(
    name="retrain_daily",
    job=retrain,
    cron_schedule="30 5 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="A fresh candidate every day, through the same gate as any other",
)
