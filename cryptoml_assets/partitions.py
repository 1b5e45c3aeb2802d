"""The one partitioning of the graph: UTC days."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

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


def day_start(day: date) -> datetime:
    """Midnight UTC that begins ``day``."""
    return datetime.combine(day, datetime.min.time(), UTC)


def day_span(days: tuple[date, ...]) -> tuple[datetime, datetime]:
    """Half-open instant range ``[first midnight, midnight after the last)`` that ``days`` cover."""
    return day_start(days[0]), day_start(days[-1]) + timedelta(days=1)
