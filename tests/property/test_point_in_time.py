"""The as-of join against its definition, row by row, and against a changed future."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoml_assets.features.point_in_time import FeatureRows, as_of

MIDNIGHT = datetime(2024, 1, 1, tzinfo=UTC)
TICK = timedelta(hours=5, microseconds=1)
INSTANT = pl.Datetime("us", "UTC")
#: The first two are known to tables, the third to none, and an entity may have none at all.
SYMBOLS = ("A/USDT", "B/USDT", "C/USDT")

Key = tuple[str | None, int]


class Known(NamedTuple):
    """A table: what is known of a symbol from a tick on, in any order, and for how many ticks."""

    rows: list[tuple[Key, tuple[float | None, float | None]]]
    ttl: int
    by_days: bool


values = st.none() | st.floats(width=64, allow_subnormal=True)
ticks = st.integers(0, 40)
known = st.builds(
    Known,
    st.lists(
        st.tuples(
            st.tuples(st.sampled_from(SYMBOLS[:2]), ticks),
            st.tuples(values, values),
        ),
        unique_by=lambda row: row[0],
        max_size=40,
    ),
    st.integers(1, 15),
    st.booleans(),
)
entities = st.lists(st.tuples(st.none() | st.sampled_from(SYMBOLS), ticks), max_size=30)


def instant(tick: int) -> datetime:
    return MIDNIGHT + tick * TICK


def frame_of(asked: Sequence[Key]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "symbol": [symbol for symbol, _ in asked],
            "event_timestamp": [instant(tick) for _, tick in asked],
            "place": range(len(asked)),
        },
        schema={"symbol": pl.String, "event_timestamp": INSTANT, "place": pl.Int64},
    )


def table_of(number: int, table: Known) -> FeatureRows:
    names = (f"first_{number}", f"second_{number}")
    columns = {
        "symbol": pl.Series([key[0] for key, _ in table.rows], dtype=pl.String),
        "event_timestamp": pl.Series([instant(key[1]) for key, _ in table.rows], dtype=INSTANT),
        names[0]: pl.Series([pair[0] for _, pair in table.rows], dtype=pl.Float64),
        names[1]: pl.Series([pair[1] for _, pair in table.rows], dtype=pl.Float64),
    }
    if table.by_days:
        days = [day_of(key[1]) for key, _ in table.rows]
        columns["date"] = pl.Series(days, dtype=pl.Date)
    rows = pl.DataFrame(columns).lazy()
    # The second column is asked for first, and of every other table alone.
    wanted = names[::-1] if number % 2 == 0 else names[1:]
    return FeatureRows(f"table_{number}", rows, wanted, table.ttl * TICK)


def day_of(tick: int) -> date:
    """A day whose start is before the tick, by up to a month."""
    return (instant(tick) - tick % 31 * timedelta(days=1)).date()


def by_hand(asked: Key, table: Known) -> tuple[float | None, float | None]:
    """The values of the newest row, looked for among all."""
    symbol, tick = asked
    newest = None
    for (of, at), pair in table.rows:
        in_time = at <= tick <= at + table.ttl
        if of == symbol and in_time and (newest is None or at > newest[0]):
            newest = (at, pair)
    return newest[1] if newest else (None, None)


def bits(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(pl.col(pl.Float64).reinterpret(dtype=pl.Int64))


def joined(asked: Sequence[Key], tables: Sequence[Known]) -> pl.DataFrame:
    return as_of(frame_of(asked), [table_of(*each) for each in enumerate(tables)])


@settings(deadline=None)
@given(entities, st.lists(known, max_size=3))
def test_each_row_has_the_newest_values_known_by_its_instant(
    asked: list[Key], tables: list[Known]
) -> None:
    expected = frame_of(asked)
    for number, table in enumerate(tables):
        found = [by_hand(each, table) for each in asked]
        both = [
            pl.Series(f"second_{number}", [pair[1] for pair in found], pl.Float64),
            pl.Series(f"first_{number}", [pair[0] for pair in found], pl.Float64),
        ]
        expected = expected.hstack(both if number % 2 == 0 else both[:1])
    rows = joined(asked, tables)
    assert rows.schema == expected.schema
    assert bits(rows).equals(bits(expected))


@settings(max_examples=50, deadline=None)
@given(entities, known, known, ticks)
def test_another_future_changes_no_row_before_it(
    asked: list[Key], table: Known, other: Known, cut: int
) -> None:
    past = [row for row in table.rows if row[0][1] <= cut]
    future = [row for row in other.rows if row[0][1] > cut]
    by_then = pl.col("event_timestamp") <= instant(cut)
    expected = bits(joined(asked, [table])).filter(by_then)
    for rows in (past, past + future, future + past[::-1]):
        changed = bits(joined(asked, [table._replace(rows=rows)])).filter(by_then)
        assert changed.equals(expected)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(SYMBOLS), ticks), min_size=1, max_size=12), known)
def test_a_row_does_not_depend_on_the_rows_beside_it(asked: list[Key], table: Known) -> None:
    together = bits(joined(asked, [table])).drop("place")
    alone = pl.concat(bits(joined([each], [table])).drop("place") for each in asked)
    assert together.equals(alone)
