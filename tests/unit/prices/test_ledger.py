"""The laws of the ledger: equal knowledge is equal rows, whatever the order it was gathered in."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from cryptoml_assets.prices.bars import bars_frame
from cryptoml_assets.prices.chunk import plan_chunk
from cryptoml_assets.prices.fetch import BarRequest
from cryptoml_assets.prices.ledger import (
    CAUSES,
    DELISTED,
    LEDGER_KEY,
    LEDGER_SCHEMA,
    LISTED_LATER,
    NOTHING_TRADED,
    RECEIVED,
    VENUE_OUTAGE,
    day_summary,
    gap_ranges,
    merge_ledger,
    missing,
    received,
)

BAR = timedelta(hours=1)
START = datetime(2024, 1, 1, tzinfo=UTC)
START_MS = 1_704_067_200_000
SLOTS = 60
SYMBOLS = ("BTC/USDT", "ETH/USDT")
NOTHING = pl.DataFrame(schema=LEDGER_SCHEMA)
#: A slot of a symbol, and what is learnt of it: received, or missing and why.
Facts = dict[tuple[str, int], tuple[str, bool]]

facts = st.dictionaries(
    st.tuples(st.sampled_from(SYMBOLS), st.integers(0, SLOTS - 1)),
    st.tuples(st.sampled_from((RECEIVED, *CAUSES)), st.booleans()),
    max_size=16,
)


def at(slot: int) -> datetime:
    return START + slot * BAR


def got(*slots: int, symbol: str = "BTC/USDT", settled: bool = True) -> pl.DataFrame:
    rows = [[START_MS + slot * 3_600_000, 10.0, 11.0, 9.0, 10.5, 3.0] for slot in slots]
    bars = bars_frame(rows, venue="v", symbol=symbol, timeframe="1h", bar=BAR, source="simulated")
    return received(bars, settled_until=at(SLOTS + 24) if settled else START)


def absent(
    first: int, last: int, cause: str, *, symbol: str = "BTC/USDT", settled: bool = True
) -> pl.DataFrame:
    return missing(
        [(at(first), at(last))],
        venue="v",
        symbol=symbol,
        timeframe="1h",
        bar=BAR,
        cause=cause,
        settled_until=at(SLOTS + 24) if settled else START,
        source="simulated",
    )


def ledger(known: Facts) -> pl.DataFrame:
    """Row by row what ``known`` says, put together in the order given."""
    whole = NOTHING
    for (symbol, slot), (said, settled) in known.items():
        row = (
            got(slot, symbol=symbol, settled=settled)
            if said == RECEIVED
            else absent(slot, slot + 1, said, symbol=symbol, settled=settled)
        )
        whole = merge_ledger(whole, row)
    return whole


def test_a_day_of_bars_is_one_row() -> None:
    rows = got(*range(30))
    assert rows.schema == LEDGER_SCHEMA
    assert rows.select("start", "end", "bars", "settled", "date").rows() == [
        (START, at(24), 24, True, date(2024, 1, 1)),
        (at(24), at(30), 6, True, date(2024, 1, 2)),
    ]
    assert rows["cause"].null_count() == 2


def test_bars_settle_by_their_close() -> None:
    bars = bars_frame(
        [[START_MS + i * 3_600_000, 1.0, 1.0, 1.0, 1.0, 0.0] for i in range(4)],
        venue="v",
        symbol="BTC/USDT",
        timeframe="1h",
        bar=BAR,
        source="simulated",
    )
    rows = received(bars, settled_until=at(3))
    assert rows.select("start", "end", "settled").rows() == [
        (START, at(3), True),
        (at(3), at(4), False),
    ]


def test_missing_slots_settle_by_their_close_and_part_at_midnight() -> None:
    rows = missing(
        [(at(22), at(27)), (at(40), at(42))],
        venue="v",
        symbol="BTC/USDT",
        timeframe="1h",
        bar=BAR,
        cause=DELISTED,
        settled_until=at(25) + BAR / 2,
        source="simulated",
    )
    assert rows.select("start", "end", "bars", "settled").rows() == [
        (at(22), at(24), 2, True),
        (at(24), at(25), 1, True),
        (at(25), at(27), 2, False),
        (at(40), at(42), 2, False),
    ]


def test_what_is_learnt_later_wins() -> None:
    before = merge_ledger(got(0, 1, 2, settled=False), absent(3, 6, NOTHING_TRADED, settled=False))
    after = merge_ledger(before, got(2, 3, 4))
    assert after.select("start", "end", "status", "settled").rows() == [
        (START, at(2), "received", False),
        (at(2), at(5), "received", True),
        (at(5), at(6), "missing", False),
    ]


def test_a_bar_that_is_no_longer_told_of_stays_received_and_settles() -> None:
    before = got(0, 1, 2, settled=False)
    after = merge_ledger(before, absent(1, 4, NOTHING_TRADED))
    assert after.select("start", "end", "status", "settled").rows() == [
        (START, at(1), "received", False),
        (at(1), at(3), "received", True),
        (at(3), at(4), "missing", True),
    ]


def test_an_outage_in_which_another_symbol_traded_was_none() -> None:
    before = absent(2, 6, VENUE_OUTAGE)
    after = merge_ledger(before, got(3, 4, symbol="ETH/USDT"))
    assert after.filter(symbol="BTC/USDT").select("start", "end", "cause").rows() == [
        (at(2), at(3), VENUE_OUTAGE),
        (at(3), at(5), NOTHING_TRADED),
        (at(5), at(6), VENUE_OUTAGE),
    ]
    assert_frame_equal(merge_ledger(got(3, 4, symbol="ETH/USDT"), before), after)


def test_other_venues_timeframes_and_days_are_left_alone() -> None:
    elsewhere = pl.concat(
        [
            got(0).with_columns(venue=pl.lit("w")),
            got(0).with_columns(timeframe=pl.lit("2h")),
            got(25),
        ]
    )
    after = merge_ledger(elsewhere, absent(0, 1, VENUE_OUTAGE))
    assert after.height == 4
    assert_frame_equal(after.join(elsewhere, on=LEDGER_KEY, how="semi"), elsewhere.sort(LEDGER_KEY))
    assert after["cause"].drop_nulls().to_list() == [VENUE_OUTAGE]


@given(facts)
@settings(max_examples=40, deadline=None)
def test_every_slot_has_one_row_at_most_and_rows_are_canonical(known: Facts) -> None:
    rows = ledger(known)
    assert rows["bars"].sum() == len(known)
    again = merge_ledger(NOTHING, rows)
    assert_frame_equal(again, rows)
    by_symbol = rows.sort("symbol", "start").rows(named=True)
    for one, two in pairwise(by_symbol):
        if one["symbol"] == two["symbol"]:
            assert one["end"] <= two["start"]
            said = ("date", "status", "cause", "settled", "origin", "source")
            apart = one["end"] < two["start"]
            assert apart or any(one[name] != two[name] for name in said)


@given(facts, facts)
@settings(max_examples=40, deadline=None)
def test_merging_twice_is_merging_once(one: Facts, two: Facts) -> None:
    first, second = ledger(one), ledger(two)
    merged = merge_ledger(first, second)
    assert_frame_equal(merge_ledger(merged, second), merged)


@given(facts, st.randoms(use_true_random=False), st.lists(st.integers(1, 15), max_size=4))
@settings(max_examples=40, deadline=None)
def test_disjoint_knowledge_merges_in_any_order_and_any_pieces(
    known: Facts, random: object, cuts: list[int]
) -> None:
    slots = list(known.items())
    random.shuffle(slots)  # type: ignore[attr-defined]
    bounds = [0, *sorted(cut for cut in set(cuts) if cut < len(slots)), len(slots)]
    pieces = [ledger(dict(slots[first:last])) for first, last in pairwise(bounds)]
    whole = NOTHING
    for piece in pieces:
        whole = merge_ledger(whole, piece)
    assert_frame_equal(whole, ledger(known))


@given(facts, st.integers(0, SLOTS), st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_plan_wants_every_closed_slot_that_is_not_settled(
    known: Facts, closed: int, refetch: bool
) -> None:
    request = BarRequest(
        SYMBOLS, "1h", BAR, START, START + timedelta(days=3), "simulated", refetch=refetch
    )
    plan = plan_chunk(request, request.days, at(closed), ledger(known))
    for symbol in SYMBOLS:
        settled = {
            slot
            for slot in range(closed)
            if known.get((symbol, slot), ("", False))[1] and not refetch
        }
        wanted = {slot for slot in range(plan.slots) if plan.wanted[symbol][slot]}
        assert wanted == set(range(closed)) - settled


@given(facts, st.integers(0, SLOTS))
@settings(max_examples=40, deadline=None)
def test_a_summary_counts_every_slot_once(known: Facts, closed: int) -> None:
    known = {place: said for place, said in known.items() if place[1] < closed}
    days = [date(2024, 1, day) for day in (1, 2, 3)]
    summary = day_summary(ledger(known), SYMBOLS, days, BAR, at(closed) + BAR / 2)
    assert summary.height == len(SYMBOLS) * len(days)
    assert summary["expected"].sum() == len(SYMBOLS) * closed
    counted = summary.select(
        total=pl.sum_horizontal("received", *CAUSES, "not_fetched"), expected="expected"
    )
    assert counted["total"].to_list() == counted["expected"].to_list()


def test_completeness_excuses_what_could_not_exist() -> None:
    rows = pl.concat([absent(0, 6, LISTED_LATER), got(*range(6, 12)), absent(12, 18, VENUE_OUTAGE)])
    rows = merge_ledger(rows, absent(18, 20, NOTHING_TRADED))
    days = [date(2024, 1, 1), date(2024, 1, 2)]
    summary = day_summary(rows, ["BTC/USDT"], days, BAR, at(24))
    first, second = summary.rows(named=True)
    assert (first["received"], first["nothing_traded"], first["not_fetched"]) == (6, 2, 4)
    assert first["share"] == pytest.approx(6 / 12)
    assert (second["expected"], second["share"]) == (0, None)


def test_gaps_go_on_across_midnight() -> None:
    rows = merge_ledger(absent(20, 30, VENUE_OUTAGE), absent(30, 31, NOTHING_TRADED))
    assert gap_ranges(merge_ledger(rows, got(31))).rows() == [
        ("BTC/USDT", at(20), at(30), VENUE_OUTAGE, 10),
        ("BTC/USDT", at(30), at(31), NOTHING_TRADED, 1),
    ]
