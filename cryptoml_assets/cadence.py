"""How often the graph's daily assets are brought up to date, and when they count as stale."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import dagster as dg

from cryptoml_assets.settings import settings

# Two windows: yesterday's last bar closes, and its last blocks turn final, after midnight.
_OPEN_DAYS = dg.AutomationCondition.in_latest_time_window(timedelta(days=2))

#: Raw data: fetched again every five minutes for the days still open.
top_up: dg.AutomationCondition[Any] = dg.AutomationCondition.on_cron("*/5 * * * *").replace(
    "in_latest_time_window", _OPEN_DAYS
)

#: Derived data: recomputed for the open days as soon as what it reads has changed.
follow: dg.AutomationCondition[Any] = dg.AutomationCondition.eager().replace(
    "in_latest_time_window", _OPEN_DAYS
)

#: Assets over all days: brought up to date as soon as any day of what they read has changed. Days
#: before the first backfill stay missing for good, so missing days do not hold these back.
follow_all: dg.AutomationCondition[Any] = dg.AutomationCondition.eager().without(
    ~dg.AutomationCondition.any_deps_missing()
)

#: Warned about at half the age of ``CRYPTOML_FRESHNESS``, failed past it.
fresh: dg.FreshnessPolicy = dg.FreshnessPolicy.time_window(
    fail_window=settings().freshness, warn_window=settings().freshness / 2
)
