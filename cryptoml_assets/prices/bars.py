"""Bars as frames: from a venue's answer to the rows of ``raw_prices``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

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
Span = tuple[datetime, datetime]


def page_spans(start: datetime, end: datetime, bar: timedelta, page_bars: int) -> list[Span]:
    """``[start, end)`` cut into half-open spans of at most ``page_bars`` bars, oldest first."""
    spans = []
    while start < end:
        stop = min(start + page_bars * bar, end)
        spans.append((start, stop))
        start = stop
    return spans


def bars_frame(
    answer: Answer, *, venue: str, symbol: str, timeframe: str, bar: timedelta, source: str
) -> pl.DataFrame:
    """A venue's rows ``[open time in ms, open, high, low, close, volume]`` as ``raw_prices`` rows.

    Raises:
        UnusableAnswerError: naming the first bar that does not start on the timeframe's grid, or
            whose prices are not positive numbers or whose volume is not a number from 0 up.
    """
    kinds = pl.Schema([("ms", pl.Int64), *((name, pl.Float64) for name in _FIGURES)])
    try:
        raw = pl.DataFrame(answer, schema=kinds, orient="row")
    except (pl.exceptions.PolarsError, TypeError) as error:
        message = f"{venue} {symbol} {timeframe}: the answer holds no bars: {error}"
        raise UnusableAnswerError(message) from error
    _check_usable(raw, f"{venue} {symbol} {timeframe}", bar)
    open_time = pl.from_epoch("ms", time_unit="ms").cast(_INSTANT)
    return raw.select(
        pl.lit(venue).alias("venue"),
        pl.lit(symbol).alias("symbol"),
        pl.lit(timeframe).alias("timeframe"),
        open_time.alias("open_time"),
        (open_time + bar).alias("close_time"),
        *_FIGURES,
        pl.lit(source).alias("source"),
        open_time.dt.date().alias("date"),
    )


def closed_bars(bars: pl.DataFrame, venue_time: datetime) -> pl.DataFrame:
    """The bars that have closed when the venue's clock reads ``venue_time``."""
    return bars.filter(pl.col("close_time") <= venue_time)


def merge_bars(*frames: pl.DataFrame) -> pl.DataFrame:
    """All bars, each once, in the order of their key; of two with the same key the later wins."""
    return pl.concat(frames).unique(KEY, keep="last", maintain_order=True).sort(KEY)


def missing_span(bars: pl.DataFrame, start: datetime, end: datetime, bar: timedelta) -> Span | None:
    """The shortest span of ``[start, end)`` that holds every bar absent from ``bars``, or none.

    ``start`` lies on the timeframe's grid and ``bars`` are those of one symbol.
    """
    grid = pl.datetime_range(
        start, end, bar, closed="left", time_unit="us", time_zone="UTC", eager=True
    )
    missing = grid.filter(~grid.is_in(bars["open_time"].implode()))
    if missing.is_empty():
        return None
    return missing[0], missing[-1] + bar


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


def _check_usable(raw: pl.DataFrame, what: str, bar: timedelta) -> None:
    """Raise on the first row of ``raw`` that is no bar."""
    on_grid = pl.col("ms") % (bar // timedelta(milliseconds=1)) == 0
    usable = [
        on_grid,
        *((pl.col(price) > 0) & pl.col(price).is_finite() for price in PRICES),
        (pl.col("volume") >= 0) & pl.col("volume").is_finite(),
    ]
    broken = raw.filter(~pl.all_horizontal(pred.fill_null(value=False) for pred in usable))
    if broken.height:
        first = broken.row(0, named=True)
        opened = first.pop("ms")
        at = pl.from_epoch(pl.Series([opened], dtype=pl.Int64), "ms")[0]
        figures = ", ".join(f"{name} {value}" for name, value in first.items())
        message = f"{what}: unusable bar at {at} UTC ({opened} ms): {figures}"
        raise UnusableAnswerError(message)
