"""Each rule of quality finds what offends it and nothing else."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from cryptoml_assets.prices import quality
from cryptoml_assets.prices.bars import SCHEMA, bars_frame

BAR = timedelta(hours=6)
DAY = date(2024, 1, 1)
START_MS = 1_704_067_200_000


def bars(symbol: str = "BTC/USDT", count: int = 4) -> pl.DataFrame:
    rows = [[START_MS + i * 6 * 3_600_000, 10.0, 11.0, 9.0, 10.5, 3.0] for i in range(count)]
    return bars_frame(rows, venue="v", symbol=symbol, timeframe="6h", bar=BAR, source="simulated")


def test_sound_bars_offend_nothing() -> None:
    sound = bars()
    assert quality.schema_problems(sound.schema) == []
    assert quality.duplicate_keys(sound.lazy()).is_empty()
    assert quality.broken_bars(sound.lazy()).is_empty()


def test_every_difference_of_the_schema_is_named() -> None:
    odd = bars().drop("close").with_columns(pl.col("volume").cast(pl.Int64), extra=1)
    problems = quality.schema_problems(odd.schema)
    assert [problem.split(":")[0] for problem in problems] == ["close", "volume", "extra"]
    assert quality.schema_problems(pl.Schema(SCHEMA)) == []


def test_a_bar_stored_twice_is_found_whatever_its_figures() -> None:
    twice = pl.concat([bars(), bars().head(1).with_columns(close=pl.lit(10.1))])
    found = quality.duplicate_keys(twice.lazy())
    assert found.select("open_time", "rows").rows() == [(datetime(2024, 1, 1, tzinfo=UTC), 2)]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("low", -1.0),
        ("low", 0.0),
        ("low", 10.2),
        ("high", 10.4),
        ("high", float("inf")),
        ("close", float("nan")),
        ("open", None),
        ("volume", -0.1),
        ("volume", None),
        ("date", date(2024, 1, 2)),
        ("close_time", datetime(2024, 1, 1, 6, tzinfo=UTC)),
    ],
)
def test_a_bar_that_contradicts_itself_is_found(column: str, value: object) -> None:
    second = pl.int_range(pl.len()) == 1
    kind = SCHEMA[column]
    broken = bars().with_columns(
        pl.when(second).then(pl.lit(value, kind)).otherwise(column).alias(column)
    )
    found = quality.broken_bars(broken.lazy())
    assert found["open_time"].to_list() == [datetime(2024, 1, 1, 6, tzinfo=UTC)]


def test_completeness_counts_absent_symbols_and_days_too() -> None:
    held = pl.concat([bars(), bars("ETH/USDT", count=3), bars("XRP/USDT")])
    shares = quality.completeness(
        held.lazy(),
        symbols=["BTC/USDT", "ETH/USDT", "SOL/USDT"],
        days=[DAY, DAY + timedelta(days=1)],
        bar=BAR,
    )
    assert shares.rows() == [
        (DAY, "BTC/USDT", 4, 4, 1.0),
        (DAY, "ETH/USDT", 3, 4, 0.75),
        (DAY, "SOL/USDT", 0, 4, 0.0),
        (DAY + timedelta(days=1), "BTC/USDT", 0, 4, 0.0),
        (DAY + timedelta(days=1), "ETH/USDT", 0, 4, 0.0),
        (DAY + timedelta(days=1), "SOL/USDT", 0, 4, 0.0),
    ]


def test_a_duplicate_does_not_make_a_day_complete() -> None:
    held = pl.concat([bars(count=3), bars(count=1)])
    shares = quality.completeness(held.lazy(), symbols=["BTC/USDT"], days=[DAY], bar=BAR)
    assert shares["share"].to_list() == [0.75]
