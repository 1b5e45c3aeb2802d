"""What the graph's assets share: how often they are brought up to date, and when they are stale."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg

from cryptoml_assets.partitions import daily
from cryptoml_assets.reads import Reads
from cryptoml_assets.settings import settings
from cryptoml_assets.staleness import OPEN_DAYS, InputsChanged

_OPEN_DAYS = dg.AutomationCondition.in_latest_time_window(OPEN_DAYS)

# A blocking check stops only the run it is part of; this stops the runs that would follow.
_SOUND = dg.AutomationCondition.all_deps_blocking_checks_passed()

#: Raw data: fetched again every five minutes for the days still open.
top_up: dg.AutomationCondition[Any] = dg.AutomationCondition.on_cron("*/5 * * * *").replace(
    "in_latest_time_window", _OPEN_DAYS
)

# Only the open days are waited for: windows reach back to days that may never be there.
_OPEN_DEPS_MISSING = dg.AutomationCondition.any_deps_match(
    dg.AutomationCondition.missing() & _OPEN_DAYS
).with_label("open_deps_missing")

_DEPS_CHANGED = dg.AutomationCondition.any_deps_match(
    dg.AutomationCondition.data_version_changed()
).with_label("any_deps_changed")

#: Assets over all days: brought up to date as soon as the rows of any day of what they read have
#: changed. Days before the first backfill stay missing for good, so missing days do not hold these
#: back.
follow_all: dg.AutomationCondition[Any] = (
    dg.AutomationCondition.eager()
    .without(~dg.AutomationCondition.any_deps_missing())
    .replace("any_deps_updated", _DEPS_CHANGED)
    & _SOUND
)

#: Warned about at half the age of ``CRYPTOML_FRESHNESS``, failed past it.
fresh: dg.FreshnessPolicy = dg.FreshnessPolicy.time_window(
    fail_window=settings().freshness, warn_window=settings().freshness / 2
)


def follow(reads: Reads) -> dg.AutomationCondition[Any]:
    """Derived data: the days whose inputs have changed are computed again, however old they are.

    A day that was never computed is asked for only while it is open, so history is computed when a
    person asks for it, and kept up to date from then on.
    """
    return (
        InputsChanged(reads)
        & ~_OPEN_DEPS_MISSING
        & ~dg.AutomationCondition.any_deps_in_progress()
        & ~dg.AutomationCondition.in_progress()
        & _SOUND
    )


def daily_table(
    condition: dg.AutomationCondition[Any],
    *,
    group: str,
    kinds: set[str],
    owner: str,
    code_version: str,
    metadata: Mapping[str, Any],
    reads: Reads | None = None,
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """``dg.asset`` for a lake table with one partition a day, whose range backfill is one run.

    What a derived table ``reads`` becomes its dependencies, with the days before that it needs.
    """
    return dg.asset(
        deps=[_days_before(*each) for each in reads.tables.items()] if reads else None,
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


def _days_before(table: str, count: int) -> dg.AssetDep:
    """A dependency on the day and on ``count`` days before it, where the partitioning has them."""
    mapping = dg.TimeWindowPartitionMapping(
        start_offset=-count, allow_nonexistent_upstream_partitions=True
    )
    return dg.AssetDep(table, partition_mapping=mapping)
