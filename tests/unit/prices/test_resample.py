"""Longer bars are the venue's own, to the last bit, and never made of a part of their span."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import reduce
from operator import add
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from cryptoml_assets.errors import LakeError
from cryptoml_assets.prices.bars import KEY, SCHEMA, bars_frame
from cryptoml_assets.prices.ledger import (
    CAUSES,
    LEDGER_TABLE,
    NOTHING_TRADED,
    merge_ledger,
    missing,
    received,
)
from cryptoml_assets.prices.resample import multiples, read_bars, resample
from cryptoml_assets.resources.lake import Lake

START = datetime(2024, 1, 1, tzinfo=UTC)
BAR = timedelta(minutes=5)
LATE = datetime(2030, 1, 1, tzinfo=UTC)


def recorded(folder: Path, pair: str, timeframe: str) -> pl.DataFrame:
    """A recorded file as rows of ``raw_prices``."""
    bar = timedelta(minutes=5) if timeframe == "5m" else timedelta(hours=1)
    name = f"{pair.replace('/', '_')}-{timeframe}.feather"
    rows = pl.read_ipc(folder / "ohlcv" / name).with_columns(
        pl.col("date").dt.epoch("ms").cast(pl.Float64)
    )
    return bars_frame(
        rows.rows(), venue="binance", symbol=pair, timeframe=timeframe, bar=bar, source="replay"
    )


def some_bars(volumes: list[float], symbol: str = "BTC/USDT") -> pl.DataFrame:
    rows = [
        [
            (START + i * BAR).timestamp() * 1000,
            100.0 + i % 7,
            110.0 + i % 5,
            90.0 - i % 3,
            101.0 + i % 11,
            volume,
        ]
        for i, volume in enumerate(volumes)
    ]
    return bars_frame(
        rows, venue="binance", symbol=symbol, timeframe="5m", bar=BAR, source="simulated"
    )


def slots(*numbers: int) -> pl.Expr:
    return pl.col("open_time").is_in([START + n * BAR for n in numbers])


def gap(first: int, last: int, cause: str, settled_until: datetime = LATE) -> pl.DataFrame:
    return missing(
        [(START + first * BAR, START + last * BAR)],
        venue="binance",
        symbol="BTC/USDT",
        timeframe="5m",
        bar=BAR,
        cause=cause,
        settled_until=settled_until,
        source="simulated",
    )


@pytest.mark.realdata
@pytest.mark.parametrize("pair", ["BTC/USDT", "ETH/USDT"])
def test_recorded_hours_are_the_recorded_five_minutes_added_up(realdata: Path, pair: str) -> None:
    hours = recorded(realdata, pair, "1h")
    made = resample(recorded(realdata, pair, "5m"), "1h")
    assert hours.height > 5900
    # The last recorded hour in five minutes is not in the native file yet.
    assert made.height == hours.height
    assert_frame_equal(made, hours, check_exact=True)


@pytest.mark.realdata
def test_recorded_bars_read_back_by_any_multiple(realdata: Path, tmp_path: Path) -> None:
    bars = pl.concat([recorded(realdata, pair, "5m") for pair in ("BTC/USDT", "ETH/USDT")])
    days = bars["date"].unique().sort().to_list()[:40]
    bars = bars.filter(pl.col("date").is_in(days))
    lake = Lake(str(tmp_path))
    lake.replace_days("raw_prices", bars, days)
    native = pl.concat([recorded(realdata, pair, "1h") for pair in ("BTC/USDT", "ETH/USDT")])
    hours = read_bars(lake, "1h", days)
    assert_frame_equal(hours, native.filter(pl.col("date").is_in(days)).sort(KEY), check_exact=True)
    quarter = read_bars(lake, "6h", days, symbols=["ETH/USDT"])
    assert_frame_equal(
        quarter, resample(native, "6h").filter(pl.col("symbol") == "ETH/USDT").head(160)
    )


def test_a_longer_bar_is_first_greatest_least_last_and_the_decimal_sum() -> None:
    row = resample(some_bars([0.1, 0.2, 0.3]), "15m").row(0, named=True)
    assert row == {
        "venue": "binance",
        "symbol": "BTC/USDT",
        "timeframe": "15m",
        "open_time": START,
        "close_time": START + 3 * BAR,
        "open": 100.0,
        "high": 112.0,
        "low": 88.0,
        "close": 103.0,
        "volume": 0.6,
        "source": "simulated",
        "date": date(2024, 1, 1),
    }


def test_large_amounts_add_up_without_the_noise_of_floats() -> None:
    tenths = [9277674511, 62026273687, 833] * 96
    volumes = [tenth / 10 for tenth in tenths]
    # One by one: from 3.12 on `sum` makes up for what it rounds off.
    assert round(reduce(add, volumes), 8) != sum(tenths) / 10, "floats alone would not do"
    assert resample(some_bars(volumes), "1d")["volume"].to_list() == [sum(tenths) / 10]


def test_days_begin_at_midnight_utc_and_quarters_at_multiples_of_six_hours() -> None:
    bars = some_bars([1.0] * 288 * 2)
    assert resample(bars, "1d")["open_time"].to_list() == [START, START + timedelta(days=1)]
    opens = resample(bars.sample(fraction=1, shuffle=True, seed=1), "6h")["open_time"]
    assert opens.to_list() == [START + i * timedelta(hours=6) for i in range(8)]


def test_the_same_timeframe_gives_the_bars_themselves() -> None:
    bars = some_bars([1.0] * 5)
    assert_frame_equal(resample(bars.reverse(), "5m"), bars)


def test_a_bucket_with_an_unexplained_gap_is_not_a_bar() -> None:
    bars = some_bars([1.0] * 9)
    made = resample(bars.filter(~slots(4)), "15m")
    assert made["open_time"].to_list() == [START, START + 6 * BAR]
    ledger = received(bars.filter(~slots(4)), settled_until=LATE)
    assert_frame_equal(resample(bars.filter(~slots(4)), "15m", ledger), made)


@pytest.mark.parametrize("cause", CAUSES)
def test_a_bucket_whose_absent_slots_have_a_settled_cause_is_a_bar(cause: str) -> None:
    bars = some_bars([1.0] * 9).filter(~slots(4, 5))
    ledger = merge_ledger(received(bars, settled_until=LATE), gap(4, 6, cause))
    made = resample(bars, "15m", ledger)
    assert made["volume"].to_list() == [3.0, 1.0, 3.0]
    assert made["close"].to_list() == [103.0, 104.0, 109.0]


def test_an_absence_that_is_not_settled_leaves_the_bucket_open() -> None:
    bars = some_bars([1.0] * 6).filter(~slots(4))
    young = gap(4, 5, NOTHING_TRADED, settled_until=START)
    assert resample(bars, "15m", young)["open_time"].to_list() == [START]


def test_a_slot_that_is_held_and_called_missing_counts_once() -> None:
    bars = some_bars([1.0] * 6).filter(~slots(5))
    assert resample(bars, "15m", gap(3, 5, NOTHING_TRADED)).height == 1


def test_a_gap_over_many_buckets_makes_none_of_them() -> None:
    bars = some_bars([1.0] * 15).filter(~slots(*range(2, 13)))
    made = resample(bars, "15m", gap(2, 13, NOTHING_TRADED))
    assert made.select("open_time", "volume").rows() == [(START, 2.0), (START + 12 * BAR, 2.0)]


def test_gaps_of_another_symbol_explain_nothing() -> None:
    bars = some_bars([1.0] * 3, symbol="ETH/USDT").filter(~slots(1))
    assert resample(bars, "15m", gap(1, 2, NOTHING_TRADED)).is_empty()


@pytest.mark.parametrize("timeframe", ["7m", "1w", "1M", "3m", "1m", "5min", ""])
def test_what_bars_do_not_add_up_to_is_refused_with_what_they_do(timeframe: str) -> None:
    bars = some_bars([1.0])
    with pytest.raises(LakeError, match="expected one of 5m, 15m, 30m, 1h, 2h, 4h, 6h, 12h, 1d"):
        resample(bars, timeframe)


def test_multiples_are_of_the_base() -> None:
    assert multiples("4h") == ("4h", "12h", "1d")
    assert multiples("1d") == ("1d",)


def test_several_timeframes_together_are_refused() -> None:
    bars = some_bars([1.0] * 3)
    with pytest.raises(LakeError, match="not of 15m, 5m together"):
        resample(pl.concat([bars, resample(bars, "15m")]), "1h")


def test_no_bars_make_none(tmp_path: Path) -> None:
    empty = pl.DataFrame(schema=SCHEMA)
    assert resample(empty, "1h").schema == SCHEMA
    with pytest.raises(LakeError, match="no 1w bars: expected one of 1m, 3m, 5m"):
        resample(empty, "1w")
    Lake(str(tmp_path)).replace_days("raw_prices", empty, [START.date()])
    assert read_bars(Lake(str(tmp_path)), "1h", [START.date()]).schema == SCHEMA


def test_the_reader_explains_gaps_by_the_stored_ledger(tmp_path: Path) -> None:
    lake, days = Lake(str(tmp_path)), [START.date()]
    bars = some_bars([1.0] * 6).filter(~slots(4))
    lake.replace_days("raw_prices", bars, days)
    assert read_bars(lake, "15m", days).height == 1
    lake.replace_days(LEDGER_TABLE, gap(4, 5, NOTHING_TRADED), days)
    assert read_bars(lake, "15m", days)["volume"].to_list() == [3.0, 2.0]


amounts = st.integers(0, 10**13).map(lambda n: n / 10**8)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(amounts, min_size=1, max_size=600),
    st.sets(st.integers(0, 600), max_size=5),
    st.sets(st.integers(0, 600), max_size=20),
)
def test_resampling_in_steps_or_by_days_is_resampling_at_once(
    volumes: list[float], unfetched: set[int], calm: set[int]
) -> None:
    bars = some_bars(volumes).filter(~slots(*unfetched, *calm))
    silent = [gap(n, n + 1, NOTHING_TRADED) for n in sorted(calm - unfetched)]
    ledger = pl.concat([received(bars, settled_until=LATE), *silent]).sort("start")
    by_days = [
        resample(bars.filter(pl.col("date") == day), "4h", ledger.filter(pl.col("date") == day))
        for day in (START.date() + timedelta(days=d) for d in range(3))
    ]
    at_once = resample(bars, "4h", ledger)
    assert_frame_equal(pl.concat(by_days), at_once, check_exact=True)
    without = resample(bars, "4h")
    in_steps = resample(resample(resample(bars, "15m"), "1h"), "4h")
    assert_frame_equal(in_steps, without, check_exact=True)
    whole = at_once.join(without, on=KEY, how="semi")
    assert_frame_equal(whole, without, check_exact=True)
