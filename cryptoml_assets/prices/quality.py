"""What makes ``raw_prices`` rows fit to build on; each function returns what offends.

All of them are given whole UTC days, so that a long run can be looked at a few days at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta

import polars as pl

from cryptoml_assets.prices.bars import KEY, PRICES, SCHEMA
from cryptoml_assets.prices.ledger import DELISTED, LISTED_LATER, MISSING, RECEIVED, gap_ranges
from cryptoml_assets.prices.resample import bar_length

#: The cause of a slot that nobody asked for yet.
NOT_FETCHED = "not_fetched"
#: Causes that a gap may have without being one: the symbol was not traded yet, or no longer.
UNLISTED = (LISTED_LATER, DELISTED)
_DAY = timedelta(days=1)
_INSTANT = pl.Datetime("us", "UTC")
_SERIES = ("venue", "symbol", "timeframe")
#: Largest relative difference of two volumes that are the same amount added up differently.
_SAME_VOLUME = 1e-9


def schema_problems(schema: pl.Schema) -> list[str]:
    """Columns that are absent, of another type, or not part of ``raw_prices``."""
    return [
        f"{name}: expected {SCHEMA.get(name, 'no such column')}, found {schema.get(name, 'none')}"
        for name in dict.fromkeys((*SCHEMA, *schema))
        if SCHEMA.get(name) != schema.get(name)
    ]


def duplicate_keys(bars: pl.DataFrame) -> pl.DataFrame:
    """Keys that more than one row carries: the key's columns and ``rows``."""
    counted = bars.group_by(KEY).agg(pl.len().alias("rows"))
    return counted.filter(pl.col("rows") > 1).sort(KEY)


def broken_bars(bars: pl.DataFrame) -> pl.DataFrame:
    """Bars that contradict themselves.

    Prices must be positive numbers, high the greatest and low the least of the four, volume a
    number from 0 up, and the date the UTC day of the open time.
    """
    high, low = pl.col("high"), pl.col("low")
    sound = [
        *((pl.col(price) > 0) & pl.col(price).is_finite() for price in PRICES),
        high >= pl.max_horizontal("open", "close", "low"),
        low <= pl.min_horizontal("open", "close"),
        (pl.col("volume") >= 0) & pl.col("volume").is_finite(),
        pl.col("date") == pl.col("open_time").dt.date(),
    ]
    return bars.filter(~pl.all_horizontal(rule.fill_null(value=False) for rule in sound))


def untimely_bars(bars: pl.DataFrame) -> pl.DataFrame:
    """Bars whose times are not those of a timeframe: the key's columns, ``close_time``, ``why``.

    Open times lie on the timeframe's grid and rise from row to row of a series, as stored; a bar
    closes one timeframe after it opens.
    """
    frames = [bars.clear().select(*KEY, "close_time", pl.lit("").alias("why"))]
    opened, closed = pl.col("open_time"), pl.col("close_time")
    for (timeframe,), rows in bars.group_by("timeframe", maintain_order=True):
        length = bar_length(str(timeframe))
        why = (
            pl.when(opened.is_null() | (opened.dt.epoch("us") % _microseconds(length) != 0))
            .then(pl.lit("opens off the grid"))
            .when(closed.ne_missing(opened + length))
            .then(pl.lit("closes at another time than a bar after it opens"))
            .when(opened.diff().over(_SERIES) <= timedelta(0))
            .then(pl.lit("stored after a bar that opens no earlier"))
        )
        frames.append(rows.select(*KEY, "close_time", why.alias("why")).drop_nulls("why"))
    return pl.concat(frames)


def false_claims(bars: pl.DataFrame, ledger: pl.DataFrame) -> pl.DataFrame:
    """Ranges that the ledger calls received and that do not hold a bar in each of their slots.

    Rows of ``ledger`` with the column ``held``, the bars that are there.
    """
    claims = ledger.filter(pl.col("status") == RECEIVED)
    placed = _placed(bars, claims).filter(pl.col("open_time") < pl.col("end"))
    held = placed.group_by(*_SERIES, "start").agg(
        pl.col("open_time").n_unique().cast(pl.Int32).alias("held")
    )
    counted = claims.join(held, on=[*_SERIES, "start"], how="left").with_columns(
        pl.col("held").fill_null(0)
    )
    return counted.filter(pl.col("held") != pl.col("bars")).sort(*_SERIES, "start")


def unclaimed_bars(bars: pl.DataFrame, ledger: pl.DataFrame) -> pl.DataFrame:
    """Bars in no range that the ledger calls received; the next run asks for them again."""
    placed = _placed(bars, ledger.filter(pl.col("status") == RECEIVED))
    outside = pl.col("end").is_null() | (pl.col("open_time") >= pl.col("end"))
    return placed.filter(outside).select(*KEY)


def gaps(
    ledger: pl.DataFrame,
    *,
    symbols: Sequence[str],
    days: Sequence[date],
    bar: timedelta,
    until: datetime,
) -> pl.DataFrame:
    """Every range of slots without a bar and its cause, the ranges of one cause joined.

    Args:
        ledger: rows of one venue and timeframe.
        symbols: symbols to look at.
        days: days to look at.
        bar: length of a slot.
        until: slots that close by this instant are expected.

    Returns:
        Columns ``symbol``, ``start``, ``end`` (exclusive), ``cause`` and ``bars``, the slots.
    """
    wanted = ledger.filter(pl.col("symbol").is_in(list(symbols)), pl.col("date").is_in(list(days)))
    missing = wanted.filter(pl.col("status") == MISSING)
    slots = (pl.col("end") - pl.col("start")).dt.total_microseconds() // _microseconds(bar)
    unknown = _unrecorded(wanted, symbols, days, _floor(until, bar)).with_columns(
        slots.cast(pl.Int32).alias("bars")
    )
    return gap_ranges(pl.concat([missing.select(unknown.columns), unknown]))


def listed_gaps(ranges: pl.DataFrame) -> pl.DataFrame:
    """Those of ``ranges``, as ``gaps`` gives them, in which the symbol was listed."""
    return ranges.filter(~pl.col("cause").is_in(UNLISTED))


def overdue(
    newest: pl.DataFrame,
    ledger: pl.DataFrame,
    *,
    symbols: Sequence[str],
    now: datetime,
    bar: timedelta,
    longest: timedelta,
) -> pl.DataFrame:
    """Symbols whose next bar is overdue: ``symbol``, ``last_close``, ``due`` and ``late``.

    Those of which the newest row of ``ledger`` says that they are not listed are left out.

    Args:
        newest: rows with the newest bar of each symbol: ``symbol`` and ``close_time``.
        ledger: the newest rows of ``price_ledger``, of one venue and timeframe.
        symbols: symbols that should have bars.
        now: the present.
        bar: length of a bar.
        longest: how long after its close a bar may be absent.
    """
    said = ledger.sort("start").group_by("symbol").agg(pl.col("cause").last())
    unlisted = said.filter(pl.col("cause").is_in(UNLISTED))
    last = newest.group_by("symbol").agg(pl.col("close_time").max().alias("last_close"))
    return (
        pl.DataFrame({"symbol": symbols}, schema={"symbol": pl.String})
        .join(unlisted, on="symbol", how="anti", maintain_order="left")
        .join(last, on="symbol", how="left", maintain_order="left")
        .with_columns((pl.col("last_close") + bar).alias("due"))
        .with_columns((pl.lit(now, _INSTANT) - pl.col("due")).alias("late"))
        .filter(pl.col("last_close").is_null() | (pl.col("late") > longest))
    )


def settled_days(ledger: pl.DataFrame, bar: timedelta) -> pl.DataFrame:
    """Columns ``symbol`` and ``date`` of the days whose every slot is known for good."""
    known = ledger.group_by("symbol", "date").agg(
        pl.col("bars").filter(pl.col("settled")).sum().alias("slots")
    )
    return known.filter(pl.col("slots") == _DAY // bar).select("symbol", "date")


def native_differences(ours: pl.DataFrame, native: pl.DataFrame) -> pl.DataFrame:
    """Where bars made of stored ones are not the venue's own of the same timeframe.

    Prices must be equal, volumes to a part in 1e9. One row per figure that differs: ``symbol``,
    ``open_time``, ``figure``, ``ours`` and ``venue``, null where the venue has no such bar.
    """
    on = ("symbol", "open_time")
    figures = (*PRICES, "volume")
    both = ours.join(native.select(*on, *figures), on=on, how="left", suffix="_venue")
    near = (pl.col("ours") - pl.col("venue")).abs() <= _SAME_VOLUME * pl.col("ours").abs()
    frames = [
        both.select(
            *on,
            pl.lit(figure).alias("figure"),
            pl.col(figure).alias("ours"),
            pl.col(f"{figure}_venue").alias("venue"),
        )
        for figure in figures
    ]
    same = (
        pl.when(pl.col("figure") == "volume")
        .then(near)
        .otherwise(pl.col("ours") == pl.col("venue"))
    )
    return pl.concat(frames).filter(~same.fill_null(value=False)).sort("open_time", "symbol")


def _placed(bars: pl.DataFrame, ledger: pl.DataFrame) -> pl.DataFrame:
    """The keys of ``bars``, each with the last range of ``ledger`` that starts by its open time."""
    ranges = ledger.select(*_SERIES, "start", "end").sort("start")
    return (
        bars.select(*KEY)
        .sort("open_time")
        .join_asof(
            ranges, left_on="open_time", right_on="start", by=_SERIES, check_sortedness=False
        )
    )


def _unrecorded(
    ledger: pl.DataFrame, symbols: Sequence[str], days: Sequence[date], until: datetime
) -> pl.DataFrame:
    """Spans of closed slots that ``ledger`` has no row for, as ``gaps`` are."""
    grid = pl.DataFrame({"symbol": symbols}, schema={"symbol": pl.String}).join(
        pl.DataFrame({"date": days}, schema={"date": pl.Date}), how="cross"
    )
    midnight = pl.col("date").cast(_INSTANT)
    ends = pl.min_horizontal(midnight + _DAY, pl.lit(until, _INSTANT))
    edges = [
        grid.select("symbol", "date", edge.alias("start"), edge.alias("end"))
        for edge in (midnight, pl.max_horizontal(ends, midnight))
    ]
    known = ledger.select("symbol", "date", "start", "end")
    return (
        pl.concat([known, *edges])
        .sort("symbol", "date", "start", "end")
        .select(
            "symbol",
            pl.lit(NOT_FETCHED).alias("cause"),
            pl.col("end").shift(1).over("symbol", "date").alias("start"),
            pl.col("start").alias("end"),
        )
        .filter(pl.col("start") < pl.col("end"), pl.col("end") <= until)
    )


def _floor(instant: datetime, bar: timedelta) -> datetime:
    midnight = datetime.combine(instant.date(), datetime.min.time(), instant.tzinfo)
    return midnight + (instant - midnight) // bar * bar


def _microseconds(length: timedelta) -> int:
    return length // timedelta(microseconds=1)
