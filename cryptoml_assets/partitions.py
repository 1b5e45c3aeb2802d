"""The one partitioning of the graph: UTC days."""

from __future__ import annotations

from datetime import UTC, date, datetime

import dagster as dg

from cryptoml_assets.settings import settings

#: UTC days from ``CRYPTOML_START``, the day in progress included.
daily = dg.DailyPartitionsDefinition(
    start_date=datetime.combine(settings().start, datetime.min.time(), UTC), end_offset=1
)


def partition_days(context: dg.AssetExecutionContext) -> tuple[date, ...]:
    """The days a run covers, oldest first; a range run is one contiguous span."""
    return tuple(date.fromisoformat(key) for key in sorted(context.partition_keys))


def check_days(context: dg.AssetCheckExecutionContext) -> tuple[date, ...] | None:
    """The days of the run a check belongs to, oldest first; none, for all, if it has none."""
    if not (context.has_partition_key or context.has_partition_key_range):
        return None
    # Not context.partition_keys: a repeated check has the run's days, but not their partitioning.
    keys = daily.get_partition_keys_in_range(context.partition_key_range)
    return tuple(date.fromisoformat(key) for key in keys)
