"""Each rule of quality finds what offends it and nothing else."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from cryptoml_assets.prices import quality
from cryptoml_assets.prices.bars import SCHEMA, bars_frame
from cryptoml_assets.prices.ledger import (
    DELISTED,
    LEDGER_SCHEMA,
    LISTED_LATER,
    NOTHING_TRADED,
    VENUE_OUTAGE,
    missing,
    received,
)
from cryptoml_assets.prices.outliers import Returns

BAR = timedelta(hours=6)
DAY = date(2024, 1, 1)
START = datetime(2024, 1, 1, tzinfo=UTC)
START_MS = 1_704_067_200_000


def bars(symbol: str = "BTC/USDT", count: int = 4) -> pl.DataFrame:
    rows = [[START_MS + i * 6 * 3_600_000, 10.0, 11.0, 9.0, 10.5, 3.0] for i in range(count)]
    return bars_frame(rows, venue="v", symbol=symbol, timeframe="6h", bar=BAR, source="simulated")


def second(column: str, value: object) -> pl.DataFrame:
    """Bars of which the second has another ``value``."""
    at, kind = pl.int_range(pl.len()) == 1, SCHEMA[column]
    return bars().with_columns(
        pl.when(at).then(pl.lit(value, kind)).otherwise(column).alias(column)
    )


def at(slot: int) -> datetime:
    return START + slot * BAR


def gap(first: int, last: int, cause: str, symbol: str = "BTC/USDT") -> pl.DataFrame:
    return missing(
        [(at(first), at(last))],
        venue="v",
        symbol=symbol,
        timeframe="6h",
        bar=BAR,
        cause=cause,
        settled_until=at(99),
        source="simulated",
    )


def test_sound_bars_offend_nothing() -> None:
    sound = bars()
    assert quality.schema_problems(sound.schema) == []
    assert quality.duplicate_keys(sound).is_empty()
    assert quality.broken_bars(sound).is_empty()
    assert quality.untimely_bars(sound).is_empty()


def test_every_difference_of_the_schema_is_named() -> None:
    odd = bars().drop("close").with_columns(pl.col("volume").cast(pl.Int64), extra=1)
    problems = quality.schema_problems(odd.schema)
    assert [problem.split(":")[0] for problem in problems] == ["close", "volume", "extra"]
    assert quality.schema_problems(pl.Schema(SCHEMA)) == []


def test_a_bar_stored_twice_is_found_whatever_its_figures() -> None:
    twice = pl.concat([bars(), bars().head(1).with_columns(close=pl.lit(10.1))])
    found = quality.duplicate_keys(twice)
    assert found.select("open_time", "rows").rows() == [(START, 2)]


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
    ],
)
def test_a_bar_that_contradicts_itself_is_found(column: str, value: object) -> None:
    found = quality.broken_bars(second(column, value))
    assert found["open_time"].to_list() == [at(1)]


@pytest.mark.parametrize(
    ("column", "value", "why"),
    [
        ("open_time", START + timedelta(hours=7), "opens off the grid"),
        ("open_time", None, "opens off the grid"),
        ("close_time", START + timedelta(hours=13), "closes at another time"),
        ("close_time", None, "closes at another time"),
    ],
)
def test_a_bar_at_another_time_than_its_timeframe_has_is_found(
    column: str, value: object, why: str
) -> None:
    found = quality.untimely_bars(second(column, value))
    assert found.height == 1
    assert found["why"][0].startswith(why)


def test_bars_must_rise_as_stored_in_each_series_alone() -> None:
    apart = pl.concat([bars(), bars("ETH/USDT")])
    assert quality.untimely_bars(apart).is_empty()
    falling = pl.concat([bars().reverse(), bars("ETH/USDT"), bars("ETH/USDT").tail(1)])
    found = quality.untimely_bars(falling)
    assert found.group_by("symbol").len().sort("symbol").rows() == [
        ("BTC/USDT", 3),
        ("ETH/USDT", 1),
    ]
    assert found["why"].unique().to_list() == ["stored after a bar that opens no earlier"]


def test_the_ledger_claims_no_bar_that_is_not_there() -> None:
    held = pl.concat([bars(), bars("ETH/USDT")])
    ledger = received(held, settled_until=START)
    assert quality.false_claims(held, ledger).is_empty()
    assert quality.unclaimed_bars(held, ledger).is_empty()
    found = quality.false_claims(held.filter(pl.col("open_time") != at(2)), ledger)
    assert found.select("symbol", "bars", "held").rows() == [("BTC/USDT", 4, 3), ("ETH/USDT", 4, 3)]
    assert quality.false_claims(held.clear(), ledger)["held"].to_list() == [0, 0]


def test_a_bar_stored_twice_does_not_make_up_for_one_that_is_not_there() -> None:
    ledger = received(bars(), settled_until=START)
    held = pl.concat([bars(count=3), bars(count=1)])
    assert quality.false_claims(held, ledger)["held"].to_list() == [3]


def test_bars_that_the_ledger_does_not_know_of_are_found() -> None:
    ledger = received(bars(count=2), settled_until=START)
    unknown = quality.unclaimed_bars(bars(), pl.concat([ledger, gap(2, 3, NOTHING_TRADED)]))
    assert unknown["open_time"].to_list() == [at(2), at(3)]
    assert quality.unclaimed_bars(bars(), ledger.clear()).height == 4


def test_gaps_are_ranges_with_their_cause_joined_across_midnight() -> None:
    known = received(bars(count=2), settled_until=START)
    ledger = pl.concat([known, gap(2, 6, VENUE_OUTAGE), gap(6, 7, NOTHING_TRADED)])
    ranges = quality.gaps(
        ledger,
        symbols=["BTC/USDT", "ETH/USDT"],
        days=[DAY, DAY + timedelta(days=1)],
        bar=BAR,
        until=at(8) - timedelta(seconds=1),
    )
    assert ranges.rows() == [
        ("ETH/USDT", at(0), at(7), "not_fetched", 7),
        ("BTC/USDT", at(2), at(6), VENUE_OUTAGE, 4),
        ("BTC/USDT", at(6), at(7), NOTHING_TRADED, 1),
    ]


def test_what_has_not_closed_is_no_gap() -> None:
    known = received(bars(count=3), settled_until=START)
    asked = {"symbols": ["BTC/USDT"], "bar": BAR}
    assert quality.gaps(known, days=[DAY], until=at(3), **asked).is_empty()
    assert quality.gaps(known, days=[DAY], until=START, **asked).is_empty()
    later = [DAY + timedelta(days=1)]
    assert quality.gaps(known, days=later, until=at(3), **asked).is_empty()


def test_slots_in_which_a_symbol_was_not_listed_are_no_gap_of_it() -> None:
    known = received(bars().slice(1, 2), settled_until=START)
    ledger = pl.concat([gap(0, 1, LISTED_LATER), known, gap(3, 4, DELISTED)])
    ranges = quality.gaps(ledger, symbols=["BTC/USDT"], days=[DAY], bar=BAR, until=at(4))
    assert ranges["cause"].to_list() == [LISTED_LATER, DELISTED]
    assert quality.listed_gaps(ranges).is_empty()


@pytest.mark.parametrize(("hours", "late"), [(6.5, False), (6.51, True), (30, True)])
def test_a_symbol_is_overdue_past_the_close_of_its_next_bar(hours: float, late: bool) -> None:
    found = quality.overdue(
        bars(),
        LEDGER_SCHEMA.to_frame(),
        symbols=["BTC/USDT"],
        now=at(4) + timedelta(hours=hours),
        bar=BAR,
        longest=timedelta(minutes=30),
    )
    assert found["symbol"].to_list() == (["BTC/USDT"] if late else [])


def test_a_symbol_without_bars_is_overdue_unless_it_is_not_listed() -> None:
    ledger = pl.concat([gap(2, 4, DELISTED, "OLD/USDT"), gap(0, 4, LISTED_LATER, "NEW/USDT")])
    found = quality.overdue(
        bars(),
        ledger,
        symbols=["BTC/USDT", "OLD/USDT", "NEW/USDT", "ETH/USDT"],
        now=at(4),
        bar=BAR,
        longest=timedelta(0),
    )
    assert found.select("symbol", "last_close").rows() == [("ETH/USDT", None)]


def test_a_day_is_settled_when_every_slot_is() -> None:
    full, part = bars(), bars("ETH/USDT", count=3)
    ledger = pl.concat(
        [
            received(full, settled_until=at(4)),
            received(part, settled_until=at(4)),
            received(bars("SOL/USDT"), settled_until=at(3)),
            received(bars("XRP/USDT", count=3), settled_until=at(4)),
            gap(3, 4, NOTHING_TRADED, "XRP/USDT"),
        ]
    )
    found = quality.settled_days(ledger, BAR).sort("symbol").rows()
    assert found == [("BTC/USDT", DAY), ("XRP/USDT", DAY)]


def test_native_bars_differ_by_any_price_or_by_more_volume_than_rounding() -> None:
    ours = bars()
    assert quality.native_differences(ours, ours).is_empty()
    near = ours.with_columns(volume=pl.col("volume") * (1 + 1e-10))
    assert quality.native_differences(ours, near).is_empty()
    far = ours.with_columns(volume=pl.col("volume") * (1 + 1e-8))
    assert quality.native_differences(ours, far)["figure"].unique().to_list() == ["volume"]
    found = quality.native_differences(ours, second("high", 12.0))
    assert found.rows() == [("BTC/USDT", at(1), "high", 11.0, 12.0)]
    absent = quality.native_differences(ours, ours.tail(3))
    assert absent["venue"].to_list() == [None] * 5


def walk(steps: list[float], symbol: str = "BTC/USDT") -> pl.DataFrame:
    closes = 100 * pl.Series([0.0, *steps]).cum_sum().exp()
    frame = bars(symbol, count=len(closes))
    return frame.with_columns(close=closes)


def test_returns_far_from_the_quartiles_are_listed_most_distant_first() -> None:
    steps = [0.001, -0.001, 0.002, -0.002] * 25
    steps[40], steps[60] = 0.08, -0.05
    returns = Returns()
    for (_,), day in walk(steps).group_by("date", maintain_order=True):
        returns.add(day)
    returns.add(walk([0.003, -0.003] * 10, "ETH/USDT"))
    found = returns.outliers(10.0)
    assert found.select("symbol", "open_time", "bars").rows() == [
        ("BTC/USDT", at(41), 1),
        ("BTC/USDT", at(61), 1),
    ]
    assert found["log_return"].to_list() == pytest.approx([0.08, -0.05])
    whole = Returns()
    whole.add(pl.concat([walk(steps), walk([0.003, -0.003] * 10, "ETH/USDT")]))
    assert whole.outliers(10.0).equals(found), "the same however the days are cut"
    assert returns.outliers(100.0).is_empty()


def test_bars_that_stand_still_do_not_make_outliers_of_those_that_move() -> None:
    returns = Returns()
    returns.add(walk([0.0] * 90 + [0.01, -0.01, 0.012, -0.012] * 3))
    assert returns.outliers(1.0).is_empty()
    still = Returns()
    still.add(walk([0.0] * 20))
    assert still.outliers(0.1).is_empty()


def test_a_return_across_a_gap_is_none() -> None:
    jump = walk([0.001, -0.001] * 20 + [0.5] + [0.001, -0.001] * 20)
    assert_returns(jump, 1)
    assert_returns(jump.filter(pl.col("open_time") != at(41)), 0)


def test_a_close_that_is_no_price_has_no_return() -> None:
    broken = walk([0.001, -0.001] * 20).with_columns(
        close=pl.when(pl.col("open_time") == at(7)).then(pl.lit(-1.0)).otherwise("close")
    )
    assert_returns(broken, 0)


def assert_returns(held: pl.DataFrame, outliers: int) -> None:
    returns = Returns()
    returns.add(held)
    assert returns.outliers(10.0).height == outliers
