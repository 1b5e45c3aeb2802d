from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from cryptoml_assets.errors import LakeError
from cryptoml_assets.features.point_in_time import LONGEST_LAG, FeatureRows, as_of
from cryptoml_assets.resources.lake import Lake

NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
MICROSECOND = timedelta(microseconds=1)
INSTANT = pl.Datetime("us", "UTC")


def asked(*rows: tuple[str | None, datetime]) -> pl.DataFrame:
    return pl.DataFrame(
        rows, schema={"symbol": pl.String, "event_timestamp": INSTANT}, orient="row"
    )


def table(*rows: tuple[str, datetime, float | None], ttl: timedelta = DAY) -> FeatureRows:
    schema = {"symbol": pl.String, "event_timestamp": INSTANT, "x": pl.Float64}
    return FeatureRows("x_features", pl.LazyFrame(rows, schema=schema, orient="row"), ("x",), ttl)


def test_a_row_counts_from_its_instant_until_it_is_older_than_the_time_to_live() -> None:
    moments = (NOON - MICROSECOND, NOON, NOON + DAY, NOON + DAY + MICROSECOND)
    rows = as_of(asked(*(("A", moment) for moment in moments)), [table(("A", NOON, 1.0))])
    assert rows["x"].to_list() == [None, 1.0, 1.0, None]


def test_a_missing_value_is_not_filled_from_an_older_row() -> None:
    rows = as_of(asked(("A", NOON)), [table(("A", NOON - HOUR, 1.0), ("A", NOON, None))])
    assert rows["x"].to_list() == [None]


def test_a_symbol_no_table_knows_has_no_values() -> None:
    """Its neighbours in the order of symbols have rows on all sides."""
    known = table(("A", NOON, 1.0), ("C", NOON - DAY, 2.0), ("C", NOON, 3.0))
    rows = as_of(asked(("B", NOON), (None, NOON), ("A", NOON), ("C", NOON), ("D", NOON)), [known])
    assert rows["x"].to_list() == [None, None, 1.0, 3.0, None]


def test_rows_keep_their_order_their_number_and_their_columns() -> None:
    entities = asked(("B", NOON), ("A", NOON + HOUR), ("B", NOON), ("A", NOON)).with_columns(
        label=pl.Series([4, 3, 2, 1])
    )
    known = table(("A", NOON + HOUR, 3.0), ("B", NOON - HOUR, 2.0), ("A", NOON, 1.0))
    rows = as_of(entities, [known])
    assert rows.drop("x").equals(entities)
    assert rows["x"].to_list() == [2.0, 3.0, 2.0, 1.0]


def test_of_no_rows_or_no_tables_there_is_nothing_to_join() -> None:
    none = as_of(asked(), [table(("A", NOON, 1.0))])
    assert none.schema == {"symbol": pl.String, "event_timestamp": INSTANT, "x": pl.Float64}
    assert none.is_empty()
    assert as_of(asked(("A", NOON)), []).equals(asked(("A", NOON)))
    assert as_of(asked(("A", NOON)), [table()])["x"].to_list() == [None]


def test_two_rows_of_one_instant_are_refused() -> None:
    known = table(("A", NOON, 1.0), ("B", NOON, 2.0), ("A", NOON - HOUR, 0.0), ("B", NOON, 3.0))
    message = r"x_features: more than one row of B at 2024-03-01 12:00:00.*; none is the newest"
    with pytest.raises(LakeError, match=message):
        as_of(asked(("B", NOON), ("A", NOON)), [known])
    # Whom nobody asked for is not looked at.
    assert as_of(asked(("A", NOON)), [known])["x"].to_list() == [1.0]


def test_a_column_from_two_places_is_refused() -> None:
    known = table(("A", NOON, 1.0))
    with pytest.raises(ValueError, match="column x is in both x_features and x_features"):
        as_of(asked(("A", NOON)), [known, known])
    with pytest.raises(ValueError, match="column x is in both the entities and x_features"):
        as_of(asked(("A", NOON)).with_columns(x=1), [known])


@pytest.mark.parametrize(
    "instants",
    [
        pl.Series([None], dtype=INSTANT),
        pl.Series([NOON.replace(tzinfo=None)], dtype=pl.Datetime("us")),
        pl.Series([NOON], dtype=pl.Datetime("ns", "UTC")),
    ],
)
def test_rows_without_an_instant_in_utc_are_refused(instants: pl.Series) -> None:
    entities = pl.DataFrame({"symbol": ["A"], "event_timestamp": instants})
    with pytest.raises(ValueError, match="entities need an event_timestamp of type Datetime"):
        as_of(entities, [table(("A", NOON, 1.0))])


def test_a_time_to_live_must_be_positive() -> None:
    with pytest.raises(ValueError, match="x_features: a time to live must be positive, not 0:00"):
        as_of(asked(("A", NOON)), [table(ttl=timedelta(0))])


def test_more_symbols_and_time_than_fit_are_refused() -> None:
    ages = [(str(place), datetime(2 + 200 * place, 1, 1, tzinfo=UTC)) for place in range(48)]
    with pytest.raises(ValueError, match=r"48 symbols over .* days, .*: join fewer"):
        as_of(asked(*ages), [table()])


def stored(home: Path, days: int, column: pl.Expr | None = None) -> Lake:
    """A table of noons: one row and one file a day, the last of them of the day of ``NOON``."""
    moments = [NOON - DAY * before for before in range(days)]
    frame = pl.DataFrame(
        {
            "symbol": ["A"] * days,
            "event_timestamp": pl.Series(moments, dtype=INSTANT),
            "x": [float(before) for before in range(days)],
            "date": [moment.date() for moment in moments],
        }
    )
    lake = Lake(str(home / "lake"))
    rows = frame if column is None else frame.with_columns(column)
    lake.replace_days("x_features", rows, rows["date"].unique().to_list())
    return lake


def test_days_that_cannot_matter_are_not_read(tmp_path: Path) -> None:
    lake = stored(tmp_path, 60)
    scanned = FeatureRows("x_features", lake.scan("x_features"), ("x",), 2 * DAY)
    entities = asked(("A", NOON - 10 * DAY), ("A", NOON - 7 * DAY + HOUR))
    least = (NOON - 12 * DAY - LONGEST_LAG).date()
    for file in (tmp_path / "lake" / "x_features").glob("date=*/*.parquet"):
        day = date.fromisoformat(file.parent.name.removeprefix("date="))
        if not least <= day <= (NOON - 7 * DAY).date():
            file.unlink()
    assert as_of(entities, [scanned])["x"].to_list() == [10.0, 7.0]


def test_columns_not_asked_for_are_not_read() -> None:
    def read(_: pl.Series) -> pl.Series:
        raise AssertionError

    known = table(("A", NOON, 1.0))
    wider = known.rows.with_columns(unread=pl.col("x").map_batches(read, pl.Float64))
    rows = as_of(asked(("A", NOON)), [FeatureRows("x_features", wider, ("x",))])
    assert rows.columns == ["symbol", "event_timestamp", "x"]


@pytest.mark.parametrize(
    ("lag", "refused"), [(LONGEST_LAG, False), (LONGEST_LAG + MICROSECOND, True)]
)
def test_a_row_known_too_late_for_its_day_is_refused(
    tmp_path: Path, lag: timedelta, refused: bool
) -> None:
    day_start = NOON.replace(hour=0)
    lake = stored(tmp_path, 1, pl.lit(day_start + lag, INSTANT).alias("event_timestamp"))
    scanned = FeatureRows("x_features", lake.scan("x_features"), ("x",))
    entities = asked(("A", day_start + lag + 7 * DAY - HOUR))
    if refused:
        with pytest.raises(LakeError, match=r"x_features: the row of A at 2024-04-01 .* 31 days"):
            as_of(entities, [scanned])
    else:
        assert as_of(entities, [scanned])["x"].to_list() == [0.0]
