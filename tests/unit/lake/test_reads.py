"""What a day is computed from: its text changes with what it reads, and with nothing else."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from cryptoml_assets import reads
from cryptoml_assets.errors import LakeError
from cryptoml_assets.reads import Reading, Reads, days_read
from cryptoml_assets.resources.lake import Lake

DAYS = tuple(date(2024, 1, 1) + timedelta(days=number) for number in range(8))
NOW = datetime(2024, 1, 9, tzinfo=UTC)
TWO = Reads({"a": 1, "b": 2})


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(str(tmp_path))
    for table in "ab":
        put(lake, table, *DAYS[1:])
    return lake


def put(lake: Lake, table: str, *days: date, value: int = 1, rows: int = 2) -> None:
    found = [(value, day) for day in days for _ in range(rows)]
    schema = {"value": pl.Int64, "date": pl.Date}
    lake.replace_days(table, pl.DataFrame(found, schema=schema, orient="row"), days)


def changed(before: dict[date, str], after: dict[date, str]) -> tuple[date, ...]:
    return tuple(day for day in before if before[day] != after[day])


@pytest.mark.parametrize(("table", "reach"), [("a", 1), ("b", 2)])
def test_a_rewritten_day_changes_the_days_that_read_it(lake: Lake, table: str, reach: int) -> None:
    before = TWO.versions(lake, DAYS, NOW)
    put(lake, table, DAYS[3], value=5)
    assert changed(before, TWO.versions(lake, DAYS, NOW)) == DAYS[3 : 4 + reach]
    put(lake, table, DAYS[0])
    assert changed(before, TWO.versions(lake, DAYS, NOW))[:2] == DAYS[:2]


def test_the_same_rows_again_and_other_tables_change_nothing(lake: Lake) -> None:
    before = TWO.versions(lake, DAYS, NOW)
    put(lake, "a", *DAYS[1:])
    put(lake, "c", *DAYS)
    assert not changed(before, TWO.versions(lake, DAYS, NOW))
    assert not changed(before, TWO.versions(lake, DAYS, NOW + timedelta(days=9)))


def test_the_text_of_a_day_does_not_depend_on_the_days_asked_with_it(lake: Lake) -> None:
    whole = TWO.versions(lake, DAYS, NOW)
    for day in DAYS:
        assert TWO.versions(lake, [day], NOW) == {day: whole[day]}


def test_a_table_that_is_not_there_holds_no_rows(lake: Lake) -> None:
    late = Reads({"a": 1, "later": 1})
    before = late.versions(lake, DAYS, NOW)
    put(lake, "later", DAYS[4])
    assert changed(before, late.versions(lake, DAYS, NOW)) == DAYS[4:6]


def test_a_day_changes_when_it_comes_to_be_known(lake: Lake) -> None:
    delayed = Reads({"a": 0}, delay=timedelta(hours=6))
    known = datetime(2024, 1, 4, 6, tzinfo=UTC)
    before = delayed.versions(lake, DAYS, known - timedelta(microseconds=1))
    assert changed(before, delayed.versions(lake, DAYS, known)) == DAYS[2:3]


def test_history_before_what_is_read_matters_where_it_is_said_to(lake: Lake) -> None:
    told = Reads({"a": 1}, history=True)
    first = told.versions(lake, DAYS, NOW), Reads({"a": 1}).versions(lake, DAYS, NOW)
    put(lake, "a", date(2023, 6, 1))
    then = told.versions(lake, DAYS, NOW), Reads({"a": 1}).versions(lake, DAYS, NOW)
    assert changed(first[0], then[0]) == DAYS[:3]
    assert not changed(first[1], then[1])


def test_a_run_reads_what_was_there_when_it_began(lake: Lake) -> None:
    reading = Reading.begin(TWO, lake, DAYS[3:5], NOW)
    told = reading.versions()
    put(lake, "a", *DAYS[1:5], value=5)
    rows = reading.scan("a", DAYS[4:5]).collect()
    assert rows["value"].unique().to_list() == [1]
    assert sorted(rows["date"].unique()) == list(DAYS[3:5])
    assert reading.history("a").collect()["value"].unique().to_list() == [1]
    assert reading.versions() == told != TWO.versions(lake, DAYS[3:5], NOW)
    with pytest.raises(LakeError, match="has no table z"):
        Reading.begin(Reads({"z": 0}), lake, DAYS, NOW)


def test_other_code_changes_every_day(lake: Lake) -> None:
    before, after = (Reads({"a": 1}, code=code).versions(lake, DAYS, NOW) for code in ("1", "2"))
    assert all(before[day] != after[day] for day in DAYS)


def test_parts_hold_so_many_rows_or_one_day(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    put(lake, "a", DAYS[4], rows=9)
    reading = Reading.begin(TWO, lake, DAYS, NOW)
    monkeypatch.setattr(reads, "ROWS_AT_A_TIME", 8)
    assert reading.slices() == [DAYS[:3], DAYS[3:4], DAYS[4:5], DAYS[5:7], DAYS[7:]]
    monkeypatch.setattr(reads, "ROWS_AT_A_TIME", 1_000)
    assert reading.slices() == [DAYS]


def test_the_days_read_are_the_days_and_those_before() -> None:
    assert days_read(DAYS[3:5], 2) == DAYS[1:5]
    assert days_read(DAYS[3:4], 0) == DAYS[3:4]
