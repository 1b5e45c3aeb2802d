"""Feature values as they were known: for each row, the newest of its symbol by its instant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cryptoml_assets.errors import LakeError
from cryptoml_assets.features.catalog import TTL
from cryptoml_assets.settings import LONGEST_DELAY

#: A row of a table kept by days is known within this time from its day's start.
LONGEST_LAG = LONGEST_DELAY + timedelta(days=1)
_INSTANT = pl.Datetime("us", "UTC")
_MICROSECOND = timedelta(microseconds=1)
_KEY = ("symbol", "event_timestamp")

_Ints = NDArray[np.int64]


@dataclass(frozen=True)
class FeatureRows:
    """Rows of one feature table, to be joined as of an instant.

    Attributes:
        table: Name of the table, for messages.
        rows: One row per ``symbol`` and ``event_timestamp``, the instant from which it was known,
            in any order. Where there is a ``date``, only the days that can matter are read.
        columns: The features wanted.
        ttl: Age past which a row is no longer used; a row exactly as old still is, as with Feast.
    """

    table: str
    rows: pl.LazyFrame
    columns: tuple[str, ...]
    ttl: timedelta = TTL


@dataclass(frozen=True)
class _Span:
    """The instants from ``start`` to ``end`` of ``symbols``, as integers in one order.

    A key is the place of the symbol times the span's length, plus the microseconds since its start.
    """

    symbols: tuple[str, ...]
    start: datetime
    end: datetime

    @property
    def length(self) -> int:
        return (self.end - self.start) // _MICROSECOND + 1

    def keys(self, frame: pl.DataFrame) -> _Ints:
        """Key of each row; those of other symbols come after all others."""
        place = pl.col("symbol").cast(pl.Enum(self.symbols), strict=False).to_physical()
        since = pl.col("event_timestamp") - pl.lit(self.start, _INSTANT)
        return frame.select(
            place.cast(pl.Int64).fill_null(len(self.symbols)) * self.length + since.to_physical()
        )["symbol"].to_numpy()


def as_of(entities: pl.DataFrame, tables: Sequence[FeatureRows]) -> pl.DataFrame:
    """Each of ``entities`` with the newest row of each table known by its instant.

    A row counts from its own ``event_timestamp`` on and for as long as its table's time to live.
    Of each table only the slice from the oldest entity's instant less the time to live to the
    newest entity's instant is read, and of it only the symbols and columns asked for.

    Args:
        entities: Columns ``symbol`` and ``event_timestamp`` beside any others; in any order, and
            the same symbol and instant as often as wanted.
        tables: What to join.

    Returns:
        The rows of ``entities``, in their order, with the columns of each table after their own:
        null where the table knows no row of the symbol by then that is young enough, or where that
        row has none.

    Raises:
        LakeError: two rows of a table have the same symbol and instant, or one was known later
            than :data:`LONGEST_LAG` from its day's start.
        ValueError: entities without an instant, a column that two of them bring, a time to live
            that is not positive, or more symbols and time than 64 bits tell apart.
    """
    _check(entities, tables)
    if entities.is_empty():
        return entities.hstack(
            [
                pl.Series(name, [], kind)
                for each in tables
                for name, kind in each.rows.select(each.columns).collect_schema().items()
            ]
        )
    symbols = tuple(entities["symbol"].drop_nulls().unique().sort())
    instant = pl.col("event_timestamp")
    start, end = entities.select(instant.min().alias("start"), instant.max()).row(0)
    span = _Span(symbols, start - max((each.ttl for each in tables), default=TTL), end)
    if (len(symbols) + 1) * span.length >= 2**63:
        message = f"{len(symbols)} symbols over {end - start}: join fewer, or a shorter time"
        raise ValueError(message)
    wanted = span.keys(entities)
    order = _order(wanted)
    joined = [entities]
    for each in tables:
        known = _known(each, span, start)
        at = _newest(each, known, wanted, order, span)
        joined.append(known.select(pl.col(each.columns).gather(at)))
    return pl.concat(joined, how="horizontal")


def _check(entities: pl.DataFrame, tables: Sequence[FeatureRows]) -> None:
    moments = entities["event_timestamp"]
    if moments.dtype != _INSTANT or moments.null_count():
        message = (
            f"entities need an event_timestamp of type {_INSTANT} in every row: "
            f"it is {moments.dtype}, with {moments.null_count()} of {len(moments)} null"
        )
        raise ValueError(message)
    taken = dict.fromkeys(entities.columns, "the entities")
    for each in tables:
        if each.ttl <= timedelta(0):
            message = f"{each.table}: a time to live must be positive, not {each.ttl}"
            raise ValueError(message)
        for name in each.columns:
            if name in taken:
                message = f"column {name} is in both {taken[name]} and {each.table}"
                raise ValueError(message)
            taken[name] = each.table


def _known(each: FeatureRows, span: _Span, start: datetime) -> pl.DataFrame:
    """The rows that some entity can see."""
    oldest = start - each.ttl
    rows = each.rows.filter(
        pl.col("event_timestamp").is_between(oldest, span.end), pl.col("symbol").is_in(span.symbols)
    )
    if "date" not in rows.collect_schema():
        return rows.select(*_KEY, *each.columns).collect()
    day = pl.col("date")
    lag = pl.col("event_timestamp") - day.cast(_INSTANT)
    known = (
        rows.filter(day.is_between((oldest - LONGEST_LAG).date(), span.end.date()))
        .select(*_KEY, *each.columns, (lag > LONGEST_LAG).alias("late"))
        .collect()
    )
    late = known.filter("late")
    if late.height:
        symbol, moment = late.row(0)[:2]
        message = (
            f"{each.table}: the row of {symbol} at {moment} was known later than {LONGEST_LAG} "
            "from its day's start; as-of joins would not look for it"
        )
        raise LakeError(message)
    return known.drop("late")


def _newest(
    each: FeatureRows, known: pl.DataFrame, wanted: _Ints, order: _Ints | None, span: _Span
) -> pl.Series:
    """Where in ``known`` the newest row by each of ``wanted`` is; null where none is in time."""
    keys = span.keys(known)
    places = _order(keys)
    if places is not None:
        keys = keys[places]
    same = np.flatnonzero(keys[1:] == keys[:-1])
    if same.size:
        row = int(same[0]) if places is None else int(places[same[0]])
        symbol, moment = known.row(row)[:2]
        message = f"{each.table}: more than one row of {symbol} at {moment}; none is the newest"
        raise LakeError(message)
    if not keys.size:
        return pl.repeat(None, len(wanted), dtype=pl.get_index_type(), eager=True)
    # Looking for sorted keys walks through memory; for others it jumps.
    found = np.searchsorted(keys, wanted if order is None else wanted[order], side="right") - 1
    if order is not None:
        found[order] = found.copy()
    # No entity is nearer to its span's start than a time to live, so that a row of the symbol
    # before it, which the search finds where there is none of its own, is always too old.
    there = (found >= 0) & (wanted - keys[found] <= each.ttl // _MICROSECOND)
    rows = found if places is None else places[found]
    return pl.select(
        pl.when(pl.Series(there)).then(pl.Series(rows)).cast(pl.get_index_type())
    ).to_series()


def _order(keys: _Ints) -> _Ints | None:
    """What sorts ``keys``, equal ones as they come; none where they are sorted."""
    if bool((keys[1:] >= keys[:-1]).all()):
        return None
    return np.argsort(keys, kind="stable")
