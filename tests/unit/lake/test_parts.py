"""A range written part by part is one commit, and what a write of all days at once would be."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from cryptoml_assets.errors import LakeError
from cryptoml_assets.resources.lake import Lake

DAYS = [date(2024, 1, 1) + timedelta(days=number) for number in range(6)]
PARTS = [DAYS[:2], DAYS[2:4], DAYS[4:]]
SCHEMA = {"key": pl.String, "value": pl.Float64, "date": pl.Date}


class Source:
    """Rows of each day, and which parts were asked for."""

    def __init__(self, values: dict[date, list[float]]) -> None:
        self.values = values
        self.asked: list[tuple[date, ...]] = []

    def rows(self, days: Sequence[date]) -> pl.DataFrame:
        self.asked.append(tuple(days))
        return frame({day: self.values[day] for day in days})


def frame(values: dict[date, list[float]]) -> pl.DataFrame:
    found = [(f"k{at}", value, day) for day in values for at, value in enumerate(values[day])]
    return pl.DataFrame(found, schema=SCHEMA, orient="row")


@pytest.fixture
def source() -> Source:
    return Source({day: [day.day + 0.5, float("nan")] for day in DAYS})


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path))


def test_parts_make_the_table_that_all_days_at_once_make(lake: Lake, source: Source) -> None:
    stored = lake.replace_parts("t", PARTS, source.rows)
    lake.replace_days("whole", frame(source.values), DAYS)
    assert_frame_equal(lake.scan("t").collect(), lake.scan("whole").collect())
    assert lake.schema("t") == lake.schema("whole")
    assert (stored.version, stored.rows, stored.days_changed) == (0, 12, tuple(DAYS))
    assert lake.day_rows("t", DAYS) == dict.fromkeys(DAYS, 2)
    assert lake.replace_days("t", frame(source.values), DAYS) == 0


def test_all_parts_are_one_commit_that_spares_what_is_the_same(lake: Lake, source: Source) -> None:
    other = date(2024, 2, 1)
    lake.replace_days("t", frame({**source.values, other: [9.0]}), [*DAYS, other])
    before = lake.day_versions("t")
    source.values |= {DAYS[1]: [7.0], DAYS[5]: []}
    stored = lake.replace_parts("t", PARTS, source.rows)
    assert (stored.version, stored.days_changed) == (1, (DAYS[1], DAYS[5]))
    after = lake.day_versions("t", list(before))
    assert {day for day in before if before[day] != after[day]} == {DAYS[1], DAYS[5]}
    assert_frame_equal(
        lake.scan("t").collect(), frame({**source.values, other: [9.0]}), check_row_order=True
    )
    assert lake.replace_parts("t", PARTS, source.rows).version == 1


def test_rows_of_one_part_are_gone_before_the_next_is_computed(lake: Lake, source: Source) -> None:
    held: list[weakref.ref[pl.DataFrame]] = []

    def rows(days: Sequence[date]) -> pl.DataFrame:
        assert not any(kept() is not None for kept in held)
        found = source.rows(days)
        held.append(weakref.ref(found))
        return found

    lake.replace_parts("t", PARTS, rows)
    source.values[DAYS[3]] = [1.0]
    lake.replace_parts("t", PARTS, rows)
    assert len(held) == 2 * len(PARTS)


@pytest.mark.parametrize("start", ["no table", "a table"])
def test_a_run_that_dies_leaves_the_table_as_it_was(lake: Lake, source: Source, start: str) -> None:
    if start == "a table":
        lake.replace_days("t", frame({DAYS[0]: [1.0]}), [DAYS[0]])

    def dying(days: Sequence[date]) -> pl.DataFrame:
        if days == PARTS[2]:
            raise KeyboardInterrupt
        return source.rows(days)

    with pytest.raises(KeyboardInterrupt):
        lake.replace_parts("t", PARTS, dying)
    assert lake.exists("t") is (start == "a table")
    if start == "a table":
        assert_frame_equal(lake.scan("t").collect(), frame({DAYS[0]: [1.0]}))
    lake.replace_parts("t", PARTS, source.rows)
    assert_frame_equal(lake.scan("t").collect(), frame(source.values))


@pytest.mark.parametrize(("day", "again"), [(DAYS[0], 1), (DAYS[3], 0)])
def test_after_another_writer_only_parts_it_may_have_undone_are_computed_again(
    lake: Lake, source: Source, day: date, again: int
) -> None:
    lake.replace_days("t", frame(source.values), DAYS)
    source.values[DAYS[3]] = [4.0]

    def overtaken(days: Sequence[date]) -> pl.DataFrame:
        if days == PARTS[2] and lake.version("t") == 0:
            lake.replace_days("t", frame({day: [99.0]}), [day])
        return source.rows(days)

    assert lake.replace_parts("t", PARTS, overtaken).version == 2
    assert_frame_equal(lake.scan("t").collect(), frame(source.values))
    assert len(source.asked) == len(PARTS) + again


def test_a_table_that_another_writer_made_meanwhile_is_taken_over(
    lake: Lake, source: Source
) -> None:
    other = date(2024, 2, 1)

    def overtaken(days: Sequence[date]) -> pl.DataFrame:
        if not lake.exists("t"):
            lake.replace_days("t", frame({other: [1.0]}), [other])
        return source.rows(days)

    assert lake.replace_parts("t", PARTS, overtaken).version == 1
    assert_frame_equal(lake.scan("t").collect(), frame({**source.values, other: [1.0]}))


def test_a_new_column_is_added_in_the_same_commit(lake: Lake, source: Source) -> None:
    lake.replace_days(
        "t", frame({**source.values, date(2024, 2, 1): [1.0]}), [*DAYS, date(2024, 2, 1)]
    )

    def rows(days: Sequence[date]) -> pl.DataFrame:
        return source.rows(days).with_columns(extra=pl.lit("x"))

    assert lake.replace_parts("t", PARTS, rows).version == 1
    found = lake.scan("t").collect()
    assert found.columns == [*SCHEMA, "extra"]
    assert found["extra"].to_list() == ["x"] * 12 + [None]


def test_what_the_table_cannot_take_is_refused_and_named(lake: Lake, source: Source) -> None:
    with pytest.raises(LakeError, match=r"lake table t: 2 rows outside .* 2024-01-03"):
        lake.replace_parts("t", PARTS, lambda _: source.rows([DAYS[2]]))
    with pytest.raises(LakeError, match="lake table t: column odd is UInt8"):
        lake.replace_parts(
            "t", PARTS, lambda days: source.rows(days).with_columns(odd=pl.lit(1, pl.UInt8))
        )

    def uneven(days: Sequence[date]) -> pl.DataFrame:
        rows = source.rows(days)
        return rows if days == PARTS[0] else rows.with_columns(more=1.0)

    with pytest.raises(LakeError, match="rows of 2024-01-03 have other columns than those before"):
        lake.replace_parts("t", PARTS, uneven)
    assert not lake.exists("t")
    lake.replace_days("t", frame(source.values), DAYS)
    with pytest.raises(LakeError, match="value is Float64 in the table, absent in the rows"):
        lake.replace_parts("t", PARTS, lambda days: source.rows(days).drop("value"))
    lake.overwrite("whole", frame(source.values))
    with pytest.raises(LakeError, match="whole is not stored by days"):
        lake.replace_parts("whole", PARTS, source.rows)


def test_every_tenth_commit_leaves_a_checkpoint(lake: Lake, source: Source) -> None:
    for turn in range(11):
        source.values[DAYS[0]] = [float(turn)]
        lake.replace_parts("t", PARTS, source.rows)
    assert list(Path(lake.address("t"), "_delta_log").glob("*.checkpoint.parquet"))
    assert_frame_equal(lake.scan("t").collect(), frame(source.values))
