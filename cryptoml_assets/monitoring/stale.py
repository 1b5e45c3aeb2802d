"""Until when a figure of a report counts as a figure of now."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from datetime import datetime

#: Age past which a report says nothing of the present. Drift and quality are reported once an hour,
#: performance every quarter of one: at this age at least one report has not come.
LONGEST = timedelta(hours=2)


def stale(report: pl.DataFrame, now: datetime, column: str = "window_end") -> str:
    """Why a report's figures are none of the present, in words; empty where they are, or none.

    Args:
        report: with the end of each figure's window in ``column``.
        now: the world's present instant, UTC.
        column: type datetime, UTC.
    """
    newest: datetime | None = report[column].max()  # type: ignore[assignment]
    if newest is None or now - newest <= LONGEST:
        return ""
    hours = (now - newest) / timedelta(hours=1)
    return (
        f"the newest report is of {newest:%Y-%m-%d %H:%M} UTC, {hours:.1f} hours old; at most "
        f"{LONGEST / timedelta(hours=1):g} count as now"
    )
