"""What the graph's assets share: how often they are brought up to date, and when they are stale."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import dagster as dg

from cryptoml_assets.partitions import daily
from cryptoml_assets.settings import settings

# Two windows: yesterday's last bar closes, and its last blocks turn final, after midnight.
_OPEN_DAYS = dg.AutomationCondition.in_latest_time_window(timedelta(days=2))

# A blocking check stops only the run it is part of; this stops the runs that would follow.
_SOUND = dg.AutomationCondition.all_deps_blocking_checks_passed()

#: Raw data: fetched again every five minutes for the days still open.
top_up: dg.AutomationCondition[Any] = dg.AutomationCondition.on_cron("*/5 * * * *").replace(
    "in_latest_time_window", _OPEN_DAYS
)

# Only the open days are waited for: windows reach back to days that may never be there.
_OPEN_DEPS_MISSING = dg.AutomationCondition.any_deps_match(
    dg.AutomationCondition.missing() & _OPEN_DAYS & ~dg.AutomationCondition.will_be_requested()
)

#: Derived data: recomputed for the open days as soon as what it reads has changed.
follow: dg.AutomationCondition[Any] = (
    dg.AutomationCondition.eager()
    .replace("any_deps_missing", _OPEN_DEPS_MISSING)
    .replace("in_latest_time_window", _OPEN_DAYS)
    & _SOUND
)

#: Assets over all days: brought up to date as soon as any day of what they read has changed. Days
#: before the first backfill stay missing for good, so missing days do not hold these back.
follow_all: dg.AutomationCondition[Any] = (
    dg.AutomationCondition.eager().without(~dg.AutomationCondition.any_deps_missing()) & _SOUND
)

#: Warned about at half the age of ``CRYPTOML_FRESHNESS``, failed past it.
fresh: dg.FreshnessPolicy = dg.FreshnessPolicy.time_window(
    fail_window=settings().freshness, warn_window=settings().freshness / 2
)


def daily_table(
    condition: dg.AutomationCondition[Any],
    *,
    group: str,
    kinds: set[str],
    owner: str,
    code_version: str,
    metadata: Mapping[str, Any],
    ins: Mapping[str, dg.AssetIn] | None = None,
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """``dg.asset`` for a lake table with one partition a day, whose range backfill is one run."""
    return dg.asset(
        ins=ins,
        partitions_def=daily,
        backfill_policy=dg.BackfillPolicy.single_run(),
        automation_condition=condition,
        freshness_policy=fresh,
        group_name=group,
        kinds={*kinds, "deltalake"},
        owners=[owner],
        code_version=code_version,
        io_manager_key="lake",
        metadata=metadata,
    )
