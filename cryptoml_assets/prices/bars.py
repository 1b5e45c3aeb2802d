"""Bars as frames: from a venue's answer to the rows of ``raw_prices``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import polars as pl

from cryptoml_assets.errors import LakeError, UnusableAnswerError

_INSTANT = pl.Datetime("us", "UTC")
#: Columns of ``raw_prices``; prices in the quote currency, volume in the base currency.
SCHEMA = pl.Schema(
    {
        "venue": pl.String(),
        "symbol": pl.String(),
        "timeframe": pl.String(),
        "open_time": _INSTANT,
        "close_time": _INSTANT,
        "open": pl.Float64(),
        "high": pl.Float64(),
        "low": pl.Float64(),
        "close": pl.Float64(),
        "volume": pl.Float64(),
        "source": pl.String(),
        "date": pl.Date(),
    }
)
#: What identifies a bar.
KEY = ("venue", "symbol", "timeframe", "open_time")
PRICES = ("open", "high", "low", "close")
_FIGURES = (*PRICES, "volume")

Answer = Sequence[Sequence[float | None]]
#: Bars as numbers, one a row: open time in milliseconds since 1970, prices, volume.
Rows = npt.NDArray[np.float64]
#: For each slot of a bar, counted from an instant that is known elsewhere, yes or no.
Mask = npt.NDArray[np.bool_]
Span = tuple[datetime, datetime]


def page_spans(start: datetime, end: datetime, bar: timedelta, page_bars: int) -> list[Span]:
    """``[start, end)`` cut into half-open spans of at most ``page_bars`` bars, oldest first."""
    spans = []
    while start < end:
        stop = min(start + page_bars * bar, end)
        spans.append((start, stop))
        start = stop
    return spans


def answer_rows(answer: Answer | Rows, what: str) -> Rows:
    """A venue's rows ``[open time in ms, open, high, low, close, volume]`` as numbers.

    A figure that is absent is not a number; ``what`` names the bars in an error.

    Raises:
        UnusableAnswerError: the answer holds something else than bars, or one without a time.
    """
    width = 1 + len(_FIGURES)
    try:
        rows = np.asarray(answer, dtype=np.float64)
        rows = rows if rows.size else rows.reshape(0, width)
    except (TypeError, ValueError) as error:
        message = f"{what}: the answer holds no bars: {error}"
        raise UnusableAnswerError(message) from error
    if rows.ndim != 2 or rows.shape[1] != width or np.isnan(rows[:, 0]).any():  # noqa: PLR2004
        message = f"{what}: the answer holds no bars of a time and {width - 1} figures"
        raise UnusableAnswerError(message)
    return rows


def once_each(rows: Rows) -> Rows:
    """``rows`` in order of time, each time once; of two with the same time the later row."""
    times = rows[:, 0]
    if (times[1:] > times[:-1]).all():
        return rows
    backwards = rows[::-1]
    return backwards[np.unique(backwards[:, 0], return_index=True)[1]]


def held_slots(rows: Rows, start: datetime, slots: int, bar: timedelta) -> Mask:
    """Which of the ``slots`` from ``start`` on the ``rows`` hold a bar of."""
    begin = start.timestamp() * 1000
    mask = np.zeros(slots, dtype=np.bool_)
    mask[((rows[:, 0] - begin) // (bar / timedelta(milliseconds=1))).astype(np.int64)] = True
    return mask


def bars_frame(
    answer: Answer | Rows, *, venue: str, symbol: str, timeframe: str, bar: timedelta, source: str
) -> pl.DataFrame:
    """A venue's rows ``[open time in ms, open, high, low, close, volume]`` as ``raw_prices`` rows.

    Raises:
        UnusableAnswerError: naming the first bar that does not start on the timeframe's grid, or
            whose prices are not positive numbers or whose volume is not a number from 0 up.
    """
    what = f"{venue} {symbol} {timeframe}"
    rows = answer_rows(answer, what)
    _check_usable(rows, what, bar)
    times = pl.from_numpy((rows[:, 0] * 1000).astype(np.int64), schema=["open_time"])
    open_time = pl.col("open_time").cast(_INSTANT)
    figures = (pl.Series(name, rows[:, i + 1]) for i, name in enumerate(_FIGURES))
    return times.select(
        pl.lit(venue).alias("venue"),
        pl.lit(symbol).alias("symbol"),
        pl.lit(timeframe).alias("timeframe"),
        open_time,
        (open_time + bar).alias("close_time"),
        *figures,
        pl.lit(source).alias("source"),
        open_time.dt.date().alias("date"),
    )


def merge_bars(*frames: pl.DataFrame) -> pl.DataFrame:
    """All bars, each once, in the order of their key; of two with the same key the later wins."""
    return pl.concat(frames).unique(KEY, keep="last", maintain_order=True).sort(KEY)


def check_one_source(stored: pl.DataFrame, source: str) -> None:
    """Refuse to put bars of ``source`` among stored ones of another world.

    Raises:
        LakeError: naming the first stored bar of another source.
    """
    others = stored.filter(pl.col("source") != source)
    if others.height:
        first = others.row(0, named=True)
        message = (
            f"raw_prices holds {first['source']} bars ({first['symbol']} {first['date']}); "
            f"{source} ones do not go among them: give each world its own CRYPTOML_LAKE"
        )
        raise LakeError(message)


def _check_usable(rows: Rows, what: str, bar: timedelta) -> None:
    """Raise on the first of ``rows`` that is no bar."""
    prices, volume = rows[:, 1:-1], rows[:, -1]
    usable = rows[:, 0] % (bar // timedelta(milliseconds=1)) == 0
    usable &= ((prices > 0) & (prices < np.inf)).all(axis=1)
    usable &= (volume >= 0) & (volume < np.inf)
    if not usable.all():
        opened, *values = rows[np.argmin(usable)].tolist()
        at = pl.from_epoch(pl.Series([int(opened)]), "ms")[0]
        figures = ", ".join(f"{name} {value}" for name, value in zip(_FIGURES, values, strict=True))
        message = f"{what}: unusable bar at {at} UTC ({opened:.0f} ms): {figures}"
        raise UnusableAnswerError(message)
