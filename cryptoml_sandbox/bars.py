"""Bars in whole ticks and lots, so that every aggregate of them is exact."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Integers = npt.NDArray[np.int64]

MINUTE_MS = 60_000
DAY_MS = 1440 * MINUTE_MS
WEEK_MS = 7 * DAY_MS
MONTH = "1M"

#: Length of each interval in milliseconds; a month has no fixed one (0).
INTERVALS: dict[str, int] = {
    "1m": MINUTE_MS,
    "3m": 3 * MINUTE_MS,
    "5m": 5 * MINUTE_MS,
    "15m": 15 * MINUTE_MS,
    "30m": 30 * MINUTE_MS,
    "1h": 60 * MINUTE_MS,
    "2h": 120 * MINUTE_MS,
    "4h": 240 * MINUTE_MS,
    "6h": 360 * MINUTE_MS,
    "8h": 480 * MINUTE_MS,
    "12h": 720 * MINUTE_MS,
    "1d": DAY_MS,
    "3d": 3 * DAY_MS,
    "1w": WEEK_MS,
    MONTH: 0,
}

_FIRST_MONDAY_MS = 4 * DAY_MS  # 1970-01-05: weekly bars open on Mondays


@dataclass(frozen=True)
class Bars:
    """Bars in ascending order of opening; one int64 array a column, all of one length.

    Attributes:
        open_time: instant of opening, milliseconds since 1970.
        open, high, low, close: prices in ticks.
        volume: base units traded, in lots.
        quote: quote units traded, in ticks times lots.
        trades: number of trades.
        taker_volume: the part of ``volume`` in which the buyer took liquidity.
        taker_quote: the part of ``quote`` in which the buyer took liquidity.
    """

    open_time: Integers
    open: Integers
    high: Integers
    low: Integers
    close: Integers
    volume: Integers
    quote: Integers
    trades: Integers
    taker_volume: Integers
    taker_quote: Integers

    def __len__(self) -> int:
        return len(self.open_time)

    def between(self, start_ms: int, end_ms: int) -> Bars:
        """The bars that open in [start, end)."""
        first, last = np.searchsorted(self.open_time, [start_ms, end_ms])
        return self[int(first) : int(last)]

    def __getitem__(self, rows: slice) -> Bars:
        return Bars(*(getattr(self, field.name)[rows] for field in fields(self)))

    def take(self, rows: Integers) -> Bars:
        """The bars at ``rows``, in that order."""
        return Bars(*(getattr(self, field.name)[rows] for field in fields(self)))

    @staticmethod
    def concatenate(parts: Sequence[Bars]) -> Bars:
        """``parts``, each later than the one before, as one; none gives no bars."""
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return Bars(*(np.zeros(0, np.int64) for _ in fields(Bars)))
        columns = (field.name for field in fields(Bars))
        return Bars(*(np.concatenate([getattr(part, name) for part in parts]) for name in columns))


def bucket_starts(times_ms: Integers, interval: str) -> Integers:
    """When the bar of ``interval`` that holds each instant opened."""
    if interval == MONTH:
        months = times_ms.astype("datetime64[ms]").astype("datetime64[M]")
        starts: Integers = months.astype("datetime64[ms]").astype(np.int64)
        return starts
    offset = _FIRST_MONDAY_MS if interval == "1w" else 0
    length = INTERVALS[interval]
    return (times_ms - offset) // length * length + offset


def closings(starts_ms: Integers, interval: str) -> Integers:
    """When bars of ``interval`` that open at these instants close."""
    if interval == MONTH:
        months = starts_ms.astype("datetime64[ms]").astype("datetime64[M]") + np.timedelta64(1, "M")
        ends: Integers = months.astype("datetime64[ms]").astype(np.int64)
        return ends
    return starts_ms + INTERVALS[interval]


def bucket_start(time_ms: int, interval: str, *, following: bool = False) -> int:
    """When the bar of ``interval`` that holds ``time_ms`` opened, or when the following opens."""
    start = int(bucket_starts(np.asarray([time_ms]), interval)[0])
    return shift_bucket(start, interval, 1) if following else start


def shift_bucket(start_ms: int, interval: str, count: int) -> int:
    """Opening of the bar ``count`` bars after the one that opens at ``start_ms``."""
    if interval != MONTH:
        return start_ms + count * INTERVALS[interval]
    month = np.datetime64(start_ms, "ms").astype("datetime64[M]") + np.timedelta64(count, "M")
    return int(month.astype("datetime64[ms]").astype(np.int64))


def aggregate(bars: Bars, interval: str) -> Bars:
    """Bars of ``interval`` made of ``bars``, whose own length must divide it."""
    if not len(bars):
        return bars
    starts = bucket_starts(bars.open_time, interval)
    first = np.flatnonzero(np.r_[True, starts[1:] != starts[:-1]])
    last = np.r_[first[1:], len(bars)] - 1
    sums = (bars.volume, bars.quote, bars.trades, bars.taker_volume, bars.taker_quote)
    return Bars(
        starts[first],
        bars.open[first],
        np.maximum.reduceat(bars.high, first),
        np.minimum.reduceat(bars.low, first),
        bars.close[last],
        *(np.add.reduceat(column, first) for column in sums),
    )
