"""Whether a figure could be luck: block bootstraps over rows, and Sharpe ratios of many trials.

Labels overlap in time and symbols move together, so no figure's significance may count rows. Every
p-value comes from a moving-block bootstrap that draws blocks of consecutive instants with all their
symbols, blocks at least four times as long as the horizon.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

#: Redrawn samples of a bootstrap, unless more are asked for.
DRAWS = 2000
_DAY = np.timedelta64(1, "D")
_NORMAL = NormalDist()
_FEWEST = 2
_STREAM = 0x57D


def overlap_block(horizon: np.timedelta64) -> np.timedelta64:
    """Block length that spans labels which overlap.

    Rows of two blocks count as independent, so short blocks lose what reaches over their ends. With
    two horizons a worthless lean that lasts for days passes 7 or 8 times in 100 at 5 %, with four 6
    or 7 times; longer ones win little and leave too few of them.
    """
    return 4 * horizon


def regime_block(horizon: np.timedelta64) -> np.timedelta64:
    """Block length that spans calm and wild days, which alternate slower than labels overlap."""
    return max(overlap_block(horizon), _DAY)


def bootstrap_p_value(
    events: NDArray[np.datetime64],
    gains: NDArray[np.float64],
    block: np.timedelta64,
    seed: int,
    draws: int = DRAWS,
) -> float:
    """One-sided p-value of "the mean gain is not above zero".

    Args:
        events: shape (n,), the instant of each row.
        gains: shape (n,).
        block: time a block spans.
        seed: of the draws.
        draws: how many.

    Returns:
        Between ``1 / (draws + 1)`` and 1; 1 where no row gains or loses anything, where a gain is
        no finite number, which nothing can be told from, and where the sample is shorter than two
        blocks, which is too short to tell.
    """
    if not gains.any() or not np.isfinite(gains).all():
        return 1.0
    drawn = bootstrap_means(events, gains, block, seed, draws)
    if drawn is None:
        return 1.0
    # Centred on the draws' own mean: blocks underweight the sample's ends.
    deviations = (drawn - drawn.mean()) * _few_blocks(events, block, seed, draws)
    at_least = int((deviations >= gains.mean()).sum())
    return (at_least + 1) / (draws + 1)


def _few_blocks(
    events: NDArray[np.datetime64], block: np.timedelta64, seed: int, draws: int
) -> NDArray[np.float64]:
    """Factors that give draws from few blocks the tails of Student's t, shape (draws,).

    Blocks that are redrawn around their own mean vary too little by as much as a sample of so many
    values does, and by how much is itself unknown: as of a mean of independent normal values, the
    deviations become those of Student (1908) with one degree of freedom less than there are blocks.
    Without this three blocks pass 14 worthless models in 100 at 5 %, and an interval of 95 % from
    three blocks holds the truth 70 times in 100.
    """
    instants, length = _instants(events, block)
    blocks = instants / length
    spread = np.random.default_rng([seed, _STREAM]).chisquare(blocks - 1, draws)
    return np.asarray(np.sqrt(blocks / spread), np.float64)


def bootstrap_interval(
    events: NDArray[np.datetime64],
    values: NDArray[np.float64],
    block: np.timedelta64,
    seed: int,
    level: float = 0.95,
) -> tuple[float, float] | None:
    """Where the mean lies with confidence ``level``, or none where there are fewer than two blocks.

    As wide as Student's t makes it where blocks are few, like the p-values.

    Args:
        events: shape (n,), the instant of each row.
        values: shape (n,).
        block: time a block spans.
        seed: of the draws.
        level: between 0 and 1.
    """
    drawn = bootstrap_means(events, values, block, seed)
    if drawn is None:
        return None
    deviations = (drawn - drawn.mean()) * _few_blocks(events, block, seed, len(drawn))
    lower, upper = np.quantile(deviations, [(1 - level) / 2, (1 + level) / 2]) + values.mean()
    return float(lower), float(upper)


def bootstrap_means(
    events: NDArray[np.datetime64],
    values: NDArray[np.float64],
    block: np.timedelta64,
    seed: int,
    draws: int = DRAWS,
) -> NDArray[np.float64] | None:
    """Means of redrawn samples, shape (draws,), or none where there are fewer than two blocks.

    Moving-block bootstrap of Künsch (1989) over instants: each draw strings together blocks of
    consecutive instants, all symbols with them, until it is as long as the sample.
    """
    instants, position = np.unique(events, return_inverse=True)
    sums = np.asarray(np.bincount(position, values), np.float64)
    counts = np.asarray(np.bincount(position), np.float64)
    _, length = _instants(events, block)
    blocks = -(-len(instants) // length)
    if blocks < _FEWEST:
        return None
    block_sums, block_counts = (_window_sums(part, length) for part in (sums, counts))
    starts = np.random.default_rng(seed).integers(0, len(block_sums), (draws, blocks))
    means: NDArray[np.float64] = block_sums[starts].sum(axis=1) / block_counts[starts].sum(axis=1)
    return means


def _instants(events: NDArray[np.datetime64], block: np.timedelta64) -> tuple[int, int]:
    """How many instants there are, and how many of them a block spans."""
    instants = np.unique(events)
    step = np.median(np.diff(instants)) if len(instants) > 1 else block
    return len(instants), max(1, int(np.ceil(block / step)))


def sharpe(returns: NDArray[np.float64]) -> float:
    """Mean over sample deviation of returns per period, not annualised; 0 where none vary."""
    if len(returns) < _FEWEST or np.ptp(returns) == 0.0:
        return 0.0
    return float(returns.mean() / returns.std(ddof=1))


def probabilistic_sharpe(returns: NDArray[np.float64], benchmark: float = 0.0) -> float:
    """Confidence that the true Sharpe ratio is above ``benchmark``.

    Args:
        returns: shape (n,), one per period.
        benchmark: a Sharpe ratio per period.

    Returns:
        Between 0 and 1; 0 where the returns do not vary, which shows nothing.
    """
    if len(returns) < _FEWEST or np.ptp(returns) == 0.0:
        return 0.0
    standard = (returns - returns.mean()) / returns.std()
    skewness, kurtosis = float((standard**3).mean()), float((standard**4).mean())
    return sharpe_confidence(sharpe(returns), benchmark, len(returns), skewness, kurtosis)


def sharpe_confidence(
    observed: float, benchmark: float, periods: int, skewness: float, kurtosis: float
) -> float:
    """The probabilistic Sharpe ratio from moments.

    Bailey and López de Prado, *The Sharpe ratio efficient frontier* (2012), equation 11, on the
    standard error of Mertens (2002) for returns that are not normal.

    Args:
        observed: Sharpe ratio per period.
        benchmark: the one to be above, per period.
        periods: how many returns were observed.
        skewness: of the returns; 0 if normal.
        kurtosis: of the returns, not in excess; 3 if normal.
    """
    spread = 1.0 - skewness * observed + (kurtosis - 1.0) / 4.0 * observed**2
    # Kurtosis is at least 1 + skewness², so the spread is never below zero but for rounding.
    error = math.sqrt(max(spread, 1e-12) / (periods - 1))
    return _NORMAL.cdf((observed - benchmark) / error)


def expected_best_sharpe(trials: int, variance: float) -> float:
    """Sharpe ratio per period that the best of so many worthless strategies shows by luck.

    Bailey and López de Prado, *The deflated Sharpe ratio* (2014), equation 1.

    Args:
        trials: strategies tried, 1 or more.
        variance: of their Sharpe ratios per period.
    """
    if trials < 1:
        message = f"trials={trials}: a strategy that was tried makes at least 1"
        raise ValueError(message)
    if trials == 1:
        return 0.0
    weight = np.euler_gamma
    lower, upper = _NORMAL.inv_cdf(1 - 1 / trials), _NORMAL.inv_cdf(1 - 1 / (trials * math.e))
    return math.sqrt(variance) * ((1 - weight) * lower + weight * upper)


def deflated_sharpe(
    daily_returns: NDArray[np.float64], trials: int, trial_sharpes: Sequence[float]
) -> float:
    """Confidence that a strategy is worth anything, knowing how many were tried to find it.

    Bailey and López de Prado, *The deflated Sharpe ratio* (2014). A few finalists that agree say
    little of how far luck spreads over all that was tried, so the variance is taken to be no less
    than that of independent worthless strategies, one over the number of days.

    Args:
        daily_returns: shape (n,), of the strategy that was chosen.
        trials: strategies tried, those given up included.
        trial_sharpes: daily Sharpe ratios of those that are known.

    Returns:
        Between 0 and 1; 0 where the returns do not vary.
    """
    if len(daily_returns) < _FEWEST:
        return 0.0
    known = float(np.var(trial_sharpes, ddof=1)) if len(trial_sharpes) >= _FEWEST else 0.0
    variance = max(known, 1.0 / (len(daily_returns) - 1))
    return probabilistic_sharpe(daily_returns, expected_best_sharpe(trials, variance))


def _window_sums(values: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """Sum of every run of ``length`` consecutive values, shape (n - length + 1,)."""
    totals = np.concatenate(([0.0], np.cumsum(values)))
    sums: NDArray[np.float64] = totals[length:] - totals[:-length]
    return sums
