"""The planted predictability: none at 0, as documented at 1, more with more."""

from __future__ import annotations

import numpy as np
import pytest

from cryptoml_sandbox.bars import DAY_MS, aggregate
from cryptoml_sandbox.market import SimulatedMarket
from cryptoml_sandbox.symbols import KNOWN

GENESIS_MS = 1_704_067_200_000
DAYS = 180


def past_and_future(signal, seed):
    """Hourly returns before and after each whole hour."""
    market = SimulatedMarket(KNOWN, seed=seed, signal=signal, genesis_ms=GENESIS_MS)
    bars = aggregate(market.bars(KNOWN[0], GENESIS_MS, GENESIS_MS + DAYS * DAY_MS), "1h")
    r = np.diff(np.log(bars.close))
    return r[:-1], r[1:]


def information_coefficient(signal, seeds):
    pairs = [past_and_future(signal, seed) for seed in seeds]
    return float(np.mean([np.corrcoef(past, future)[0, 1] for past, future in pairs]))


def test_without_signal_the_past_hour_says_nothing():
    """Ranks are compared, which heavy tails cannot disturb; the bound is five deviations."""
    pairs = [past_and_future(0.0, seed) for seed in range(6)]
    ranks = [np.corrcoef(x.argsort().argsort(), y.argsort().argsort())[0, 1] for x, y in pairs]
    assert abs(np.mean(ranks)) < 5 / np.sqrt(6 * 24 * DAYS)


def test_with_signal_one_the_past_hour_says_what_the_documentation_promises():
    assert -0.20 < information_coefficient(1.0, range(6)) < -0.14


def test_more_signal_says_more():
    weak, strong = (information_coefficient(signal, range(2)) for signal in (0.5, 2.0))
    assert strong < weak < -0.05


def test_the_signal_leaves_shocks_and_volume_alone():
    """Only the drift differs, so that worlds of different signals can be compared path by path."""
    with_, without = (
        SimulatedMarket(KNOWN, seed=3, signal=signal, genesis_ms=GENESIS_MS)
        for signal in (1.0, 0.0)
    )
    one, other = (m.bars(KNOWN[0], GENESIS_MS, GENESIS_MS + DAY_MS) for m in (with_, without))
    np.testing.assert_array_equal(one.volume, other.volume)
    assert (one.close != other.close).any()
    r, s = (np.diff(np.log(bars.close)) for bars in (one, other))
    assert np.corrcoef(r, s)[0, 1] > 0.98


@pytest.mark.parametrize("signal", [0.0, 2.5])
def test_prices_stay_positive_and_finite(signal):
    market = SimulatedMarket(KNOWN, seed=11, signal=signal, genesis_ms=GENESIS_MS)
    bars = market.bars(KNOWN[2], GENESIS_MS, GENESIS_MS + 120 * DAY_MS)
    assert bars.low.min() >= 1
    assert bars.high.max() < 10_000_000
