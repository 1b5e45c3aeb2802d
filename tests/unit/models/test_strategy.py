from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoml_assets.models.evaluation import Answered, Baseline
from cryptoml_assets.models.rows import Rows
from cryptoml_assets.models.strategy import Costs, Track, trade

START = np.datetime64("2024-01-01T00:00", "us")
HOUR = np.timedelta64(1, "h")
DAY = np.timedelta64(1, "D")
COSTS = Costs(fee_bps=4.0, slippage_bps=1.0)
BASE = Baseline(np.array([-1.0, 1.0]), 0.5, 0.0)


def part(
    symbols: list[str], events: np.ndarray, labels: np.ndarray, expected: np.ndarray, horizon=HOUR
) -> Answered:
    features = np.zeros((len(events), 0), np.float32)
    rows = Rows(np.array(symbols), events, events + horizon, features, np.asarray(labels, float))
    plain = np.zeros(len(events), np.float32)
    answers = {"expected_return": np.float32(expected), "lower": plain, "upper": plain}
    return Answered(rows, answers | {"probability_up": plain}, BASE)


def test_two_tranches_by_hand() -> None:
    """Bars of half an hour and a horizon of one: each tranche has half of the capital."""
    events = START + np.arange(1, 6) * np.timedelta64(30, "m")
    expected = np.array([0.01, 0.0, 0.01, -0.02, -0.02])
    labels = np.log([1.02, 1.5, 0.99, 1.01, 0.98])
    track = trade([part(["A"] * 5, events, labels, expected)], horizon=HOUR, costs=COSTS)
    # Phase one: long, long, short; phase two: nothing, short.
    gross = 0.5 * (0.02 - 0.01 + 0.02) - 0.5 * 0.01
    turnover = 0.5 * (1 + 0 + 2 + 1) + 0.5 * (1 + 1)
    assert track.days.tolist() == [START.astype("datetime64[D]").item()]
    assert track.gross == pytest.approx([gross])
    assert track.turnover == pytest.approx([turnover])
    assert track.net == pytest.approx([gross - turnover * 5e-4])
    assert track.trades == 3


def test_only_moves_larger_than_a_round_trip_are_traded() -> None:
    events = START + np.arange(1, 4) * HOUR
    expected = np.array([0.00099, -0.00101, np.nan])
    track = trade([part(["A"] * 3, events, np.full(3, -0.01), expected)], horizon=HOUR, costs=COSTS)
    assert track.trades == 1
    assert track.gross == pytest.approx([1 - np.exp(-0.01)])


def test_a_label_of_midnight_is_of_the_day_that_ends() -> None:
    events = START + np.array([22, 23, 24]) * HOUR
    track = trade([part(["A"] * 3, events, np.log([1.0, 1.1, 1.2]), np.ones(3))], horizon=HOUR,
                  costs=COSTS)  # fmt: skip
    assert track.gross == pytest.approx([0.1, 0.2])


def test_capital_goes_on_from_fold_to_fold_and_positions_do_not() -> None:
    events = START + np.arange(1, 49) * HOUR
    labels = np.full(48, 0.001)
    whole = part(["A"] * 48, events, labels, np.ones(48))
    halves = [part(["A"] * 24, own, labels[:24], np.ones(24)) for own in (events[:24], events[24:])]
    one, two = (trade(parts, horizon=HOUR, costs=COSTS) for parts in ([whole], halves))
    assert two.turnover.sum() == pytest.approx(one.turnover.sum() + 2)
    assert two.gross == pytest.approx(one.gross)
    assert two.equity[-1] == pytest.approx(np.prod(1 + two.net))
    later = [halves[0], part(["A"] * 24, events[24:] + 30 * DAY, labels[:24], np.ones(24))]
    apart = trade(later, horizon=HOUR, costs=COSTS)
    assert len(apart.days) == len(two.days) + 1  # 23:00 on day 1 no longer ends in fold 2's days


def test_days_without_rows_count_as_idle_ones() -> None:
    events = START + np.array([1, 2, 3, 97, 98, 99]) * HOUR
    track = trade([part(["A"] * 6, events, np.full(6, 0.01), np.ones(6))], horizon=HOUR,
                  costs=COSTS)  # fmt: skip
    assert track.turnover == pytest.approx([2.0, 0.0, 0.0, 0.0, 2.0])


def test_what_never_trades_has_figures() -> None:
    events = START + np.arange(1, 200) * HOUR
    idle = part(["A"] * 199, events, np.full(199, 0.01), np.zeros(199))
    figures = trade([idle], horizon=HOUR, costs=COSTS).figures()
    assert figures == {
        "sharpe_net": 0.0,
        "sharpe_gross": 0.0,
        "max_drawdown": 0.0,
        "turnover": 0.0,
        "trades": 0.0,
        "days": 9.0,
    }


def test_figures_are_annual_and_daily() -> None:
    net = np.array([0.01, -0.02, 0.03, 0.0])
    days = START.astype("datetime64[D]") + np.arange(4)
    track = Track(days, net, net + 0.001, np.array([1.0, 2.0, 3.0, 4.0]), 7)
    figures = track.figures()
    assert figures["sharpe_net"] == pytest.approx(net.mean() / net.std(ddof=1) * np.sqrt(365))
    assert figures["sharpe_gross"] > figures["sharpe_net"]
    assert figures["max_drawdown"] == pytest.approx(0.02)
    assert figures["turnover"] == 2.5
    ruined = Track(days, np.array([0.5, -1.5, 0.3, 0.2]), net, net, 1)
    assert ruined.equity.tolist() == [1.5, 0.0, 0.0, 0.0]
    assert ruined.drawdown.tolist() == [0.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("bps", [-1.0, np.nan, np.inf])
def test_costs_are_basis_points_of_zero_or_more(bps: float) -> None:
    with pytest.raises(ValueError, match=f"slippage_bps={bps}"):
        Costs(fee_bps=1.0, slippage_bps=bps)


TEN = np.timedelta64(10, "m")
WORLDS = st.tuples(
    st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 3), st.sampled_from([0.0, 0.2])
)


def folds_of(world: tuple[int, int, int, float], count: int = 200) -> list[Answered]:
    """Two folds of bars of ten minutes.

    Args:
        world: seed, bars of a horizon, symbols, share of the rows that is missing.
        count: bars of a fold.
    """
    seed, bars, symbols, missing = world
    rng = np.random.default_rng(seed)
    parts = []
    for fold in range(2):
        events = np.repeat(START + (fold * count + np.arange(count)) * TEN, symbols)
        names = ["C", "A", "B"][:symbols] * count
        kept = np.flatnonzero(rng.random(len(events)) >= missing)
        labels, expected = rng.normal(size=(2, len(events)))[:, kept] * 0.002
        parts.append(part([names[i] for i in kept], events[kept], labels, expected, bars * TEN))
    return parts


def slowly(parts: list[Answered], horizon: np.timedelta64, tranches: int) -> tuple[dict, int]:
    """The same strategy, one position after another."""
    days, trades = defaultdict(lambda: np.zeros(2)), 0
    for one in parts:
        rows, book = one.rows, {}
        present = defaultdict(int)
        for event in rows.events:
            present[event] += 1
        for symbol, event, size in zip(
            rows.symbols, rows.events, one.answers["expected_return"], strict=True
        ):
            going = 0 if abs(float(size)) <= COSTS.round_trip else np.sign(float(size))
            book[symbol, event] = going / tranches / present[event]
        for (symbol, event), label in zip(book, rows.labels, strict=True):
            now, held = book[symbol, event], book.get((symbol, event - horizon), 0.0)
            closing = 0.0 if (symbol, event + horizon) in book else abs(now)
            day = (event + horizon - np.timedelta64(1, "us")).astype("datetime64[D]")
            days[day] += now * np.expm1(label), abs(now - held) + closing
            trades += now not in (0.0, held)
    return days, trades


@given(WORLDS)
@settings(max_examples=25, deadline=None)
def test_all_positions_at_once_earn_what_one_after_another_does(world: tuple) -> None:
    parts, bars = folds_of(world), world[1]
    days, trades = slowly(parts, bars * TEN, bars)
    track = trade(parts, horizon=bars * TEN, costs=COSTS)
    assert track.trades == trades
    for day, gross, turnover in zip(track.days, track.gross, track.turnover, strict=True):
        assert (gross, turnover) == pytest.approx(tuple(days[day]), abs=1e-12)
    assert track.net == pytest.approx(track.gross - 5e-4 * track.turnover)


@given(WORLDS, st.integers(160, 390))
@settings(max_examples=25, deadline=None)
def test_no_day_knows_what_comes_after_it(world: tuple, cut: int) -> None:
    whole, horizon = folds_of(world, 400)[0], world[1] * TEN
    rows, expected = whole.rows, whole.answers["expected_return"]
    now = START + cut * TEN
    shocked = np.where(rows.label_times <= now, rows.labels, -9 * rows.labels)
    later = part(list(rows.symbols), rows.events, shocked, expected, horizon)
    past = rows.events <= now
    ended = part(
        list(rows.symbols[past]), rows.events[past], rows.labels[past], expected[past], horizon
    )
    track, *others = (trade([one], horizon=horizon, costs=COSTS) for one in (whole, later, ended))
    for other in others:
        before = int((other.days < now.astype("datetime64[D]")).sum())
        assert before >= 1
        assert other.net[:before] == pytest.approx(track.net[:before], abs=1e-15)
