"""What holds for every simulated market, whatever is asked of it and in whatever order."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import fields
from datetime import UTC, datetime

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoml_sandbox.bars import (
    DAY_MS,
    INTERVALS,
    MINUTE_MS,
    Bars,
    aggregate,
    bucket_start,
    bucket_starts,
    shift_bucket,
)
from cryptoml_sandbox.market import SimulatedMarket, trades_of
from cryptoml_sandbox.symbols import KNOWN, listed
from cryptoml_sandbox.venue import Page, klines, trade_page, visible_bars
from cryptoml_sandbox.volatility import CHUNK_MINUTES

GENESIS_MS = 1_704_067_200_000
SPAN_MINUTES = 3 * CHUNK_MINUTES
MARKET = SimulatedMarket(KNOWN, seed=5, signal=1.0, genesis_ms=GENESIS_MS)

symbols = st.sampled_from(KNOWN)
minutes = st.integers(0, SPAN_MINUTES)
instants = st.integers(GENESIS_MS, GENESIS_MS + SPAN_MINUTES * MINUTE_MS)
intervals = st.sampled_from(sorted(INTERVALS))
short = st.sampled_from(["1m", "3m", "5m", "15m", "1h", "4h"])


def fresh(seed=5, names=KNOWN):
    return SimulatedMarket(names, seed=seed, signal=1.0, genesis_ms=GENESIS_MS)


def at(minute):
    return GENESIS_MS + minute * MINUTE_MS


def assert_equal(one: Bars, other: Bars) -> None:
    for field in fields(Bars):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


@settings(max_examples=12, deadline=None)
@given(slices=st.lists(st.tuples(symbols, minutes, st.integers(0, 4000)), min_size=1, max_size=5))
def test_the_order_and_the_slices_of_requests_change_nothing(slices):
    market = fresh()
    for symbol, start, length in slices:
        got = market.bars(symbol, at(start), at(start + length))
        whole = MARKET.bars(symbol, GENESIS_MS, at(SPAN_MINUTES + 4000))
        assert_equal(got, whole.between(at(start), at(start + length)))


@settings(max_examples=6, deadline=None)
@given(symbol=symbols, others=st.sets(symbols, max_size=3))
def test_a_pair_does_not_depend_on_which_others_are_listed(symbol, others):
    market = fresh(names=(symbol, *others))
    assert_equal(market.bars(symbol, GENESIS_MS, at(600)), MARKET.bars(symbol, GENESIS_MS, at(600)))


@settings(max_examples=60, deadline=None)
@given(symbol=symbols, start=minutes, length=st.integers(1, 3000))
def test_bars_are_sound(symbol, start, length):
    bars = MARKET.bars(symbol, at(start), at(start + length))
    assert len(bars) == length
    assert (np.diff(bars.open_time) == MINUTE_MS).all()
    assert (bars.low >= 1).all()
    assert (bars.low <= np.minimum(bars.open, bars.close)).all()
    assert (bars.high >= np.maximum(bars.open, bars.close)).all()
    assert (bars.open[1:] == bars.close[:-1]).all()
    assert (bars.volume >= 1).all()
    assert ((bars.taker_volume >= 0) & (bars.taker_volume <= bars.volume)).all()
    assert ((bars.taker_quote >= 0) & (bars.taker_quote <= bars.quote)).all()
    assert (bars.quote >= bars.low * bars.volume).all()
    assert (bars.quote <= bars.high * bars.volume).all()


@settings(max_examples=40, deadline=None)
@given(symbol=symbols, start=minutes, length=st.integers(1, 2000))
def test_trades_make_their_bars(symbol, start, length):
    bars = MARKET.bars(symbol, at(start), at(start + length))
    trades = trades_of(MARKET, symbol, bars)
    assert_equal(trades.to_bars(bars.open_time), bars)
    times = trades.time
    assert (np.diff(times.ravel()) >= 0).all()
    assert (times >= bars.open_time[:, None]).all()
    assert (times < bars.open_time[:, None] + MINUTE_MS).all()
    ids = trades.first_id.ravel()
    assert (ids[1:] >= (trades.first_id + trades.count).ravel()[:-1]).all()


@settings(max_examples=60, deadline=None)
@given(symbol=symbols, start=instants, interval=intervals, count=st.integers(1, 40))
def test_longer_bars_are_exactly_the_minutes_in_them(symbol, start, interval, count):
    now = at(SPAN_MINUTES)
    page = Page(start, None, count)
    for k in range(len(bars := klines(MARKET, symbol, interval, page, now))):
        opened = int(bars.open_time[k])
        closes = min(shift_bucket(opened, interval, 1), now)
        inside = visible_bars(MARKET, symbol, opened, closes + 1, now)
        inside = inside.between(opened, shift_bucket(opened, interval, 1))
        assert opened == bucket_start(opened, interval)
        assert bars.open[k] == inside.open[0]
        assert bars.close[k] == inside.close[-1]
        assert bars.high[k] == inside.high.max()
        assert bars.low[k] == inside.low.min()
        for column in ("volume", "quote", "trades", "taker_volume", "taker_quote"):
            assert getattr(bars, column)[k] == getattr(inside, column).sum()


@settings(max_examples=60, deadline=None)
@given(symbol=symbols, interval=short, start=instants, now=instants, later=instants)
def test_the_clock_decides_what_is_seen_and_nothing_else(symbol, interval, start, now, later):
    now, later = sorted((now, later))
    early = klines(MARKET, symbol, interval, Page(start, None, 200), now)
    late = klines(MARKET, symbol, interval, Page(start, None, 200), later)
    assert (early.open_time <= now).all()
    closed = int((early.open_time + INTERVALS[interval] <= now).sum())
    assert closed >= len(early) - 1  # only the last may be forming
    assert_equal(early[:closed], late[:closed])
    if closed < len(early) <= len(late):
        assert early.open[-1] == late.open[closed]
        assert early.high[-1] <= late.high[closed]
        assert early.low[-1] >= late.low[closed]
        assert early.volume[-1] <= late.volume[closed]


@settings(max_examples=60, deadline=None)
@given(symbol=symbols, interval=short, start=instants, limit=st.integers(1, 100), now=instants)
def test_pages_walk_through_all_bars_once(symbol, interval, start, limit, now):
    whole = klines(MARKET, symbol, interval, Page(start, None, 3 * limit), now)
    parts, cursor = [], start
    for _ in range(3):
        part = klines(MARKET, symbol, interval, Page(cursor, None, limit), now)
        if not len(part):
            break
        parts.append(part)
        cursor = int(part.open_time[-1]) + 1
    assert_equal(Bars.concatenate(parts), whole)
    newest = klines(MARKET, symbol, interval, Page(None, None, limit), now)
    assert_equal(newest, klines(MARKET, symbol, interval, Page(0, None, 10**6), now)[-limit:])


@settings(max_examples=40, deadline=None)
@given(symbol=symbols, now=instants, limit=st.integers(1, 300))
def test_trade_pages_walk_by_id_without_gap_or_repeat(symbol, now, limit):
    newest = trade_page(MARKET, symbol, Page(None, None, limit), now)
    assert (newest.time <= now).all()
    if not len(newest):
        return
    first = int(newest.id[0])
    again = trade_page(MARKET, symbol, Page(None, None, limit), now, first)
    np.testing.assert_array_equal(again.id, newest.id)
    assert (np.diff(newest.id) == 1).all()


@settings(max_examples=100, deadline=None)
@given(time=st.integers(0, 4_000_000_000_000), interval=intervals, count=st.integers(-30, 30))
def test_buckets_tile_time(time, interval, count):
    start = bucket_start(time, interval)
    assert start <= time < shift_bucket(start, interval, 1)
    assert bucket_start(start, interval) == start
    moved = shift_bucket(start, interval, count)
    assert int(bucket_starts(np.asarray([moved]), interval)[0]) == moved
    assert shift_bucket(moved, interval, -count) == start


def test_weeks_open_on_mondays_and_months_on_firsts():
    friday = int(datetime(2024, 3, 15, 13, tzinfo=UTC).timestamp() * 1000)
    assert bucket_start(friday, "1w") == datetime(2024, 3, 11, tzinfo=UTC).timestamp() * 1000
    assert bucket_start(friday, "1M") == datetime(2024, 3, 1, tzinfo=UTC).timestamp() * 1000
    assert bucket_start(friday, "1M", following=True) == (
        datetime(2024, 4, 1, tzinfo=UTC).timestamp() * 1000
    )


def test_another_process_makes_the_same_bytes():
    program = (
        "import hashlib\n"
        "from cryptoml_sandbox.market import SimulatedMarket\n"
        "from cryptoml_sandbox.symbols import KNOWN\n"
        f"m = SimulatedMarket(KNOWN, seed=5, signal=1.0, genesis_ms={GENESIS_MS})\n"
        f"b = m.bars(KNOWN[1], {at(9000)}, {at(12000)})\n"
        "print(hashlib.sha256(b.close.tobytes() + b.volume.tobytes()).hexdigest())\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    bars = MARKET.bars(KNOWN[1], at(9000), at(12000))
    ours = hashlib.sha256(bars.close.tobytes() + bars.volume.tobytes()).hexdigest()
    assert result.stdout.strip() == ours


def test_another_seed_makes_another_world():
    one, other = (fresh(seed).bars(KNOWN[0], GENESIS_MS, at(100)) for seed in (1, 2))
    assert (one.close != other.close).any()


def test_an_unknown_pair_can_be_listed_and_is_the_same_everywhere():
    (pair,) = listed(("DOGE/USDT",))
    assert listed(("ETH/USDT", "DOGE/USDT"))[1] == pair
    bars = fresh(names=(pair,)).bars(pair, GENESIS_MS, GENESIS_MS + 60 * DAY_MS)
    returns = np.diff(np.log(aggregate(bars, "5m").close))
    assert 0.2 < returns.std() * np.sqrt(365 * 288) < 3
