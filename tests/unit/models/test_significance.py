from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from cryptoml_assets.models.significance import (
    bootstrap_interval,
    bootstrap_p_value,
    deflated_sharpe,
    expected_best_sharpe,
    overlap_block,
    probabilistic_sharpe,
    regime_block,
    sharpe,
    sharpe_confidence,
)

START = np.datetime64("2024-01-01T00:00", "us")
BAR = np.timedelta64(5, "m")
HOUR = np.timedelta64(1, "h")


def overlapping(seed: int, count: int = 2000) -> np.ndarray:
    """Means over an hour of independent noise: each shares 11 of 12 bars with the next."""
    noise = np.random.default_rng(seed).normal(size=count + 11)
    return np.convolve(noise, np.ones(12) / 12, mode="valid")


def test_overlapping_gains_are_not_counted_as_independent() -> None:
    """The bootstrap's false alarms stay near its level where a naive test's do not."""
    events = START + np.arange(2000) * BAR
    alarms, naive = 0, 0
    for seed in range(60):
        gains = overlapping(seed)
        alarms += bootstrap_p_value(events, gains, 2 * HOUR, seed, draws=300) <= 0.05
        naive += gains.mean() / gains.std() * np.sqrt(len(gains)) > 1.645
    assert alarms <= 9
    assert naive >= 15


def test_the_interval_of_a_mean_of_overlapping_values_holds_the_truth() -> None:
    events = START + np.arange(2000) * BAR
    held, naive = 0, 0
    for seed in range(40):
        values = overlapping(seed)
        lower, upper = bootstrap_interval(events, values, 2 * HOUR, seed)
        assert lower < values.mean() < upper
        held += lower <= 0.0 <= upper
        naive += abs(values.mean()) <= 1.96 * values.std() / np.sqrt(len(values))
    assert held >= 34
    assert naive <= 26


@pytest.mark.parametrize("blocks", [3, 4, 12])
def test_few_blocks_make_the_interval_as_wide_as_what_they_cannot_tell(blocks: int) -> None:
    """Of 300 at 95 % fewer than 272 hold the truth once in a thousand times.

    Without Student's correction 3 blocks hold it 70 times in 100, 12 blocks 90.
    """
    block, days = np.timedelta64(1, "D"), blocks
    events = START + np.arange(days * 288) * BAR
    intervals = [
        bootstrap_interval(events, overlapping(seed, len(events)), block, seed)
        for seed in range(300)
    ]
    held = sum(lower <= 0.0 <= upper for lower, upper in intervals)
    assert held >= stats.binom.ppf(0.001, 300, 0.95)


def test_the_interval_is_about_the_mean_of_all_rows() -> None:
    """Blocks reach the ends of the sample less often than its middle."""
    values = np.zeros(2000)
    values[:24] = values[-24:] = 5.0
    lower, upper = bootstrap_interval(START + np.arange(2000) * BAR, values, 2 * HOUR, 1)
    # Many draws miss both ends: about their own mean the interval would begin at 0.
    assert 0.03 < lower < values.mean() < upper


def test_symbols_that_move_together_are_drawn_together() -> None:
    events = START + np.arange(1000) * BAR
    gains = np.random.default_rng(5).normal(0.02, 1.0, 1000)
    alone = bootstrap_p_value(events, gains, 2 * HOUR, 1)
    copies = bootstrap_p_value(np.repeat(events, 10), np.repeat(gains, 10), 2 * HOUR, 1)
    assert copies == alone


@pytest.mark.parametrize(("count", "gain"), [(10, 1.0), (1, 1.0), (500, 0.0)])
def test_too_short_or_empty_samples_prove_nothing(count: int, gain: float) -> None:
    events = START + np.arange(count) * BAR
    assert bootstrap_p_value(events, np.full(count, gain), 2 * HOUR, 1) == 1.0


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [slice(None), 0], ids=["all", "one"])
def test_gains_that_are_no_finite_numbers_prove_nothing(wrong: float, place: slice | int) -> None:
    events, gains = START + np.arange(500) * BAR, np.full(500, 1.0)
    assert bootstrap_p_value(events, gains, 2 * HOUR, 1) < 0.01
    gains[place] = wrong
    assert bootstrap_p_value(events, gains, 2 * HOUR, 1) == 1.0
    assert bootstrap_p_value(events, -gains, 2 * HOUR, 1) == 1.0


def test_samples_shorter_than_two_blocks_have_no_interval() -> None:
    assert bootstrap_interval(START + np.arange(20) * BAR, np.ones(20), 2 * HOUR, 1) is None


def test_blocks_span_labels_and_regimes() -> None:
    week = np.timedelta64(7, "D")
    assert (overlap_block(HOUR), overlap_block(week)) == (4 * HOUR, 4 * week)
    assert (regime_block(HOUR), regime_block(week)) == (np.timedelta64(1, "D"), 4 * week)


def test_the_deflated_sharpe_ratio_is_that_of_the_papers_example() -> None:
    """Bailey and López de Prado (2014): Sharpe 2.5 a year, 5 years of 250 days, 100 trials."""
    observed, variance = 2.5 / math.sqrt(250), 0.5 / 250
    best = expected_best_sharpe(100, variance)
    assert best == pytest.approx(0.1132, abs=5e-5)
    assert sharpe_confidence(observed, best, 1250, -3.0, 10.0) == pytest.approx(0.9004, abs=5e-5)
    fewer = expected_best_sharpe(46, variance)
    assert sharpe_confidence(observed, fewer, 1250, -3.0, 10.0) == pytest.approx(0.9505, abs=5e-5)


def test_the_best_of_many_worthless_ones_is_as_good_as_expected() -> None:
    best = np.random.default_rng(0).normal(size=(20_000, 30)).max(axis=1) * 0.05
    assert expected_best_sharpe(30, 0.05**2) == pytest.approx(best.mean(), rel=0.02)
    assert expected_best_sharpe(1, 0.05**2) == 0.0
    with pytest.raises(ValueError, match="trials=0"):
        expected_best_sharpe(0, 1.0)


def test_the_probabilistic_sharpe_ratio_knows_skew_and_tails() -> None:
    returns = np.random.default_rng(3).gamma(2.0, 0.01, 300) - 0.0188
    ratio = returns.mean() / returns.std(ddof=1)
    skew, kurtosis = stats.skew(returns), stats.kurtosis(returns, fisher=False)
    error = np.sqrt((1 - skew * ratio + (kurtosis - 1) / 4 * ratio**2) / 299)
    assert probabilistic_sharpe(returns) == pytest.approx(stats.norm.cdf(ratio / error))
    assert probabilistic_sharpe(returns, ratio) == pytest.approx(0.5)


def test_the_best_of_many_noise_strategies_is_rarely_believed() -> None:
    rng, believed, naive = np.random.default_rng(1), 0, 0
    for _ in range(300):
        returns = rng.standard_t(5, (10, 120)) * 0.01
        sharpes = [sharpe(one) for one in returns]
        best = returns[int(np.argmax(sharpes))]
        believed += deflated_sharpe(best, 10, sharpes) > 0.95
        naive += probabilistic_sharpe(best) > 0.95
    assert believed <= 15
    assert naive >= 75


def test_a_good_strategy_is_believed_less_the_more_were_tried() -> None:
    returns = np.random.default_rng(2).normal(0.003, 0.01, 250)
    few, many = (deflated_sharpe(returns, trials, [sharpe(returns)]) for trials in (1, 500))
    assert few > 0.99
    assert 0.5 < many < few
    # Finalists that happen to agree do not make what was tried agree.
    assert deflated_sharpe(returns, 500, [sharpe(returns)] * 5) == many
    assert deflated_sharpe(returns, 500, [0.3, -0.3]) < 0.5


@pytest.mark.parametrize("returns", [[], [0.01], [0.0, 0.0, 0.0]])
def test_returns_that_do_not_vary_show_nothing(returns: list[float]) -> None:
    assert sharpe(np.array(returns)) == 0.0
    assert probabilistic_sharpe(np.array(returns)) == 0.0
    assert deflated_sharpe(np.array(returns), 3, [0.1, 0.2]) == 0.0
