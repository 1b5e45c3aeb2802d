"""The comparison the schedules rest on sees a row that is lost, one twice and one that is torn."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from cryptoml_assets.prices.ledger import received
from cryptoml_assets.resources.lake import Lake
from tests.chaos import content as lakes
from tests.chaos.content import Difference, compare, content
from tests.chaos.price_worlds import GENESIS, WINDOW
from tests.chaos.watch import walk_prices

BAR = timedelta(minutes=15)
SLOTS = 192


@pytest.fixture
def bars() -> pl.DataFrame:
    """Two days of bars of one symbol."""
    opened = pl.datetime_range(
        GENESIS, GENESIS + SLOTS * BAR, BAR, closed="left", time_unit="us", eager=True
    )
    return pl.DataFrame({"open_time": opened}).select(
        pl.lit("binance").alias("venue"),
        pl.lit("BTC/USDT").alias("symbol"),
        pl.lit("15m").alias("timeframe"),
        "open_time",
        (pl.col("open_time") + BAR).alias("close_time"),
        *(pl.lit(100.0).alias(name) for name in ("open", "high", "low", "close", "volume")),
        pl.lit("simulated").alias("source"),
        pl.col("open_time").dt.date().alias("date"),
    )


@pytest.fixture
def lake(bars: pl.DataFrame, tmp_path: Path) -> Lake:
    """The bars and their ledger, as two runs stored them, a day each."""
    lake = Lake(str(tmp_path / "lake"))
    for day in sorted(set(bars["date"])):
        rows = bars.filter(date=day)
        lake.replace_days("raw_prices", rows, [day])
        lake.replace_days("price_ledger", received(rows, settled_until=GENESIS), [day])
    return lake


def difference(lake: Lake, bars: pl.DataFrame) -> Difference:
    """Of what is left against the bars and ledger of an undisturbed run."""
    right = {"raw_prices": bars, "price_ledger": received(bars, settled_until=GENESIS)}
    return compare(content(lake, ("raw_prices", "price_ledger")), right)


def test_equal_lakes_do_not_differ(lake: Lake, bars: pl.DataFrame) -> None:
    assert not difference(lake, bars.sample(fraction=1.0, shuffle=True, seed=1))
    assert not walk_prices(lake, bars, GENESIS + timedelta(days=3), BAR, None)


def test_a_lost_row_is_seen(lake: Lake, bars: pl.DataFrame) -> None:
    _plant(lake, bars[:7], bars[8:])
    found = difference(lake, bars)
    assert (found.lost, found.duplicated, found.torn) == (1, 0, 0)


def test_a_lost_table_is_seen(bars: pl.DataFrame, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "empty"))
    assert difference(lake, bars).lost == SLOTS + 2


def test_a_duplicated_row_is_seen(lake: Lake, bars: pl.DataFrame) -> None:
    _plant(lake, bars, bars[7:8])
    found = difference(lake, bars)
    assert (found.lost, found.duplicated, found.torn) == (0, 1, 0)


@pytest.mark.parametrize("column", ["close", "close_time", "source"])
def test_a_torn_row_is_seen(column: str, lake: Lake, bars: pl.DataFrame) -> None:
    changed = {"close": 1e-9 + 100.0, "close_time": GENESIS.replace(tzinfo=UTC), "source": "live"}
    value = pl.lit(changed[column]).cast(bars.schema[column]).alias(column)
    _plant(lake, bars[:7], bars[7:8].with_columns(value), bars[8:])
    found = difference(lake, bars)
    assert (found.lost, found.duplicated, found.torn) == (0, 0, 1)


def test_an_invented_row_is_seen(lake: Lake, bars: pl.DataFrame) -> None:
    shift = timedelta(days=-1)
    invented = bars[:1].with_columns(
        pl.col("open_time", "close_time") + shift, pl.col("date") + shift
    )
    _plant(lake, bars, invented)
    assert difference(lake, bars).torn == 1


def test_a_claim_without_a_bar_is_seen_at_the_version_that_made_it(
    lake: Lake, bars: pl.DataFrame
) -> None:
    _plant(lake, bars[:7], bars[8:])
    claims = received(bars, settled_until=GENESIS + WINDOW)
    lake.replace_days("price_ledger", claims, sorted(set(bars["date"])))
    lake.replace_days("raw_prices", bars, sorted(set(bars["date"])))
    found = walk_prices(lake, bars, GENESIS, BAR, None)
    assert found.torn == 1
    assert "price_ledger" in found.seen[0]


def test_half_a_day_is_seen_at_the_version_that_held_it(lake: Lake, bars: pl.DataFrame) -> None:
    _plant(lake, bars[:90])
    _plant(lake, bars)
    end = datetime.combine(bars["date"][-1], datetime.max.time(), UTC)
    assert walk_prices(lake, bars, end, BAR, None).torn > 0
    assert not difference(lake, bars)


def test_a_block_that_is_no_child_of_the_one_below_is_seen() -> None:
    blocks = pl.DataFrame(
        {"number": [4, 5, 6, 9], "hash": list("abcd"), "parent_hash": ["x", "a", "y", "z"]}
    )
    assert lakes.broken_chain(blocks)["number"].to_list() == [6]


def _plant(lake: Lake, *parts: pl.DataFrame) -> None:
    rows = pl.concat(parts)
    lake.replace_days("raw_prices", rows, sorted(set(rows["date"])))
