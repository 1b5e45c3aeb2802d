"""Bars of a longer timeframe, made of the stored ones exactly as the venue makes its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from typing import cast, get_args

import polars as pl

from cryptoml_assets.errors import LakeError
from cryptoml_assets.prices.bars import KEY, SCHEMA
from cryptoml_assets.prices.ledger import LEDGER_SCHEMA, LEDGER_TABLE, MISSING
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import Timeframe
from cryptoml_serving.contract.settings import parse_duration

#: Every timeframe that can be asked for; each divides a day, so that no bar spans two partitions.
TIMEFRAMES: tuple[str, ...] = get_args(Timeframe)
#: Days read at once where all days of a run have to be looked at: memory stays bounded.
DAYS_AT_ONCE = 7

_SERIES = ("venue", "symbol", "timeframe")
#: Decimals to which venues publish amounts.
_DECIMALS = 8


def resample(
    bars: pl.DataFrame, timeframe: str, ledger: pl.DataFrame | None = None
) -> pl.DataFrame:
    """The bars of ``timeframe`` that ``bars`` add up to, none of them from a part of its span.

    Open is that of the first, close that of the last, high the greatest and low the least. Volume
    is added up in decimals, so that it is the float of the very text the venue publishes. Buckets
    begin at multiples of ``timeframe`` since midnight UTC.

    A bucket is given when each of its slots is in ``bars``, or when the ledger says of the others
    that the venue has no bar there and will not have one: then the venue's own bar is made of the
    same trades. A bucket with a slot that was not fetched, or whose absence is not settled, is not
    a bar.

    Args:
        bars: rows of ``raw_prices`` of one timeframe, each once, in any order.
        timeframe: a multiple of that of ``bars``; the same gives ``bars`` themselves.
        ledger: rows of ``price_ledger`` for the same days; none: only buckets without a gap.

    Returns:
        Rows in the schema of ``raw_prices``, in the order of its key.

    Raises:
        LakeError: bars of several timeframes, or a timeframe they do not add up to.
    """
    if bars.is_empty():
        check_timeframe(timeframe)
        return bars.clear()
    base = _base(bars)
    check_timeframe(timeframe, base)
    if timeframe == base:
        return bars.sort(KEY)
    slots = bar_length(timeframe) // bar_length(base)
    buckets = _buckets(bars, timeframe)
    whole = pl.col("slots") == slots
    if ledger is not None:
        parts = buckets.filter(~whole).select(*_SERIES, "bucket")
        absent = _explained(parts, bars, ledger, timeframe)
        buckets = buckets.join(absent, on=[*_SERIES, "bucket"], how="left")
        whole = pl.col("slots") + pl.col("absent").fill_null(0) == slots
    return _rows(buckets.filter(whole), timeframe)


def read_bars(
    lake: Lake, timeframe: str, days: Sequence[date], symbols: Sequence[str] | None = None
) -> pl.DataFrame:
    """Bars of ``timeframe`` that open on ``days``, from the stored ones and their ledger.

    Args:
        lake: holds ``raw_prices``, and ``price_ledger`` where gaps are explained.
        timeframe: any multiple of the stored timeframe.
        days: UTC days, in any order.
        symbols: symbols to read; none: all.

    Raises:
        LakeError: no ``raw_prices``, or a timeframe that its bars do not add up to.
    """
    check_timeframe(timeframe)
    wanted = pl.lit(True) if symbols is None else pl.col("symbol").is_in(list(symbols))  # noqa: FBT003  (a literal of a query)
    parts = [pl.DataFrame(schema=SCHEMA)]
    for batch in batches(sorted(days)):
        ledger = scan_ledger(lake, batch).filter(wanted).collect()
        bars = lake.scan("raw_prices", batch).filter(wanted).collect()
        parts.append(resample(bars, timeframe, ledger))
    return pl.concat(parts).sort(KEY)


def scan_ledger(lake: Lake, days: Sequence[date] | None) -> pl.LazyFrame:
    """Rows of ``price_ledger``, of all days or of ``days``; none where it was never written."""
    if not lake.exists(LEDGER_TABLE):
        return pl.LazyFrame(schema=LEDGER_SCHEMA)
    return lake.scan(LEDGER_TABLE, days)


def batches(days: Sequence[date], size: int = DAYS_AT_ONCE) -> Iterator[Sequence[date]]:
    """``days`` in order, at most ``size`` at a time."""
    return (days[first : first + size] for first in range(0, len(days), size))


def bar_length(timeframe: str) -> timedelta:
    """How long a bar of ``timeframe``, spelt as ccxt does, lasts."""
    return cast("timedelta", parse_duration(timeframe))


def multiples(base: str) -> tuple[str, ...]:
    """The timeframes that bars of ``base`` add up to, ``base`` first."""
    return tuple(t for t in TIMEFRAMES if bar_length(t) % bar_length(base) == timedelta(0))


def check_timeframe(timeframe: str, base: str | None = None) -> None:
    """Refuse a timeframe that is unknown, or that bars of ``base`` do not add up to.

    Raises:
        LakeError: naming those that are accepted.
    """
    accepted = TIMEFRAMES if base is None else multiples(base)
    if timeframe not in accepted:
        what = "bars" if base is None else f"bars, made of {base} ones"
        message = f"no {timeframe} {what}: expected one of {', '.join(accepted)}"
        raise LakeError(message)


def _base(bars: pl.DataFrame) -> str:
    found = bars["timeframe"].unique().sort().to_list()
    if len(found) > 1:
        message = f"bars of one timeframe can be added up, not of {', '.join(found)} together"
        raise LakeError(message)
    return str(found[0])


def _buckets(bars: pl.DataFrame, timeframe: str) -> pl.DataFrame:
    """One row per bucket that holds a bar; ``slots`` counts those it holds."""
    amounts = pl.col("volume").cast(pl.String).str.to_decimal(scale=_DECIMALS)
    return (
        bars.sort(KEY)
        .with_columns(pl.col("open_time").dt.truncate(timeframe).alias("bucket"), volume=amounts)
        .group_by(*_SERIES, "bucket", maintain_order=True)
        .agg(
            pl.col("open").first(),
            pl.col("high").max(),
            pl.col("low").min(),
            pl.col("close").last(),
            pl.col("volume").sum().cast(pl.Float64),
            pl.col("source").first(),
            pl.len().cast(pl.Int64).alias("slots"),
        )
    )


def _explained(
    parts: pl.DataFrame, bars: pl.DataFrame, ledger: pl.DataFrame, timeframe: str
) -> pl.DataFrame:
    """How many slots of each of ``parts``, buckets with gaps, are known to have no bar."""
    base = _base(bars)
    gaps = ledger.filter(pl.col("status") == MISSING, pl.col("settled"))
    return (
        gaps.with_columns(
            pl.datetime_ranges(
                pl.col("start").dt.truncate(timeframe), "end", timeframe, closed="left"
            ).alias("bucket")
        )
        .explode("bucket")
        .join(parts, on=[*_SERIES, "bucket"], how="semi")
        .with_columns(
            pl.max_horizontal("start", "bucket").alias("start"),
            pl.min_horizontal("end", pl.col("bucket") + bar_length(timeframe)).alias("end"),
        )
        .with_columns(pl.datetime_ranges("start", "end", base, closed="left").alias("open_time"))
        .explode("open_time")
        .join(bars, on=KEY, how="anti")
        .group_by(*_SERIES, "bucket")
        .agg(pl.len().cast(pl.Int64).alias("absent"))
    )


def _rows(buckets: pl.DataFrame, timeframe: str) -> pl.DataFrame:
    columns = {
        "timeframe": pl.lit(timeframe),
        "open_time": pl.col("bucket"),
        "close_time": pl.col("bucket") + bar_length(timeframe),
        "date": pl.col("bucket").dt.date(),
    }
    return buckets.select(columns.get(name, pl.col(name)).alias(name) for name in SCHEMA).sort(KEY)
