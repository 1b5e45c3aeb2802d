"""UTC days as instants."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta


def day_start(day: date) -> datetime:
    """Midnight UTC that begins ``day``."""
    return datetime.combine(day, datetime.min.time(), UTC)


def days_between(first: date, last: date) -> tuple[date, ...]:
    """``first``, ``last`` and every day between, oldest first."""
    return tuple(first + timedelta(days=count) for count in range((last - first).days + 1))


def day_span(days: Sequence[date]) -> tuple[datetime, datetime]:
    """Half-open instant range ``[first midnight, midnight after the last)`` that ``days`` cover."""
    return day_start(days[0]), day_start(days[-1]) + timedelta(days=1)
