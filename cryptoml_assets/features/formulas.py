"""Formulas of price features, as terms over the bars of one symbol.

Windows and spans count bars. Recursive smoothings are cut off where the weight of all that is
older has fallen below one millionth (:func:`kept`): the value then depends on a declared number of
bars, and differs from the endless recursion by about that share.
"""

from __future__ import annotations

import math

import numpy as np

from cryptoml_assets.features.terms import (
    Term,
    Values,
    apply,
    column,
    larger,
    log,
    smaller,
    sqrt,
)
from cryptoml_assets.features.windows import (
    decayed_mean,
    decayed_sum,
    window_mean,
    window_squares,
    window_sum,
)

OPEN, HIGH, LOW, CLOSE, VOLUME = map(column, ("open", "high", "low", "close", "volume"))

#: Angle of the close in the UTC day, and in the week that begins on Monday; 0 at its start.
DAY_PHASE, WEEK_PHASE = (column(name, shared=True) for name in ("day_phase", "week_phase"))

_NEGLIGIBLE = 1e-6
_BITS_KEPT = 2
#: Share of the raw sum of squares up to which what is left after the mean is only rounding.
_ROUNDING = 1e-13
#: The share up to which too few digits are left for third and fourth powers: 50 times as much mean
#: as spread.
_FEW_DIGITS = 4e-4


def log_return(bars: int = 1) -> Term:
    """Log of the close over the close ``bars`` before."""
    return log(CLOSE / CLOSE.lag(bars))


def momentum(bars: int) -> Term:
    """Close over the close ``bars`` before, less 1."""
    return CLOSE / CLOSE.lag(bars) - 1.0


def mean_gap(bars: int) -> Term:
    """Close over its mean, less 1."""
    return CLOSE / window_mean(CLOSE, bars) - 1.0


def volatility(bars: int) -> Term:
    """Sample standard deviation of one-bar log returns."""
    return sqrt(_spread(log_return(), bars)) * (1.0 / math.sqrt(bars - 1))


def realised_volatility(bars: int) -> Term:
    """Root of the sum of squared one-bar log returns.

    Andersen, Bollerslev, Diebold and Labys, Modeling and Forecasting Realized Volatility, 2003.
    """
    return sqrt(_raw_squares(log_return(), bars))


def parkinson(bars: int) -> Term:
    """Range volatility: root of the mean squared log range over 4 log 2.

    Parkinson, The Extreme Value Method for Estimating the Variance of the Rate of Return, 1980.
    """
    span = log(HIGH / LOW)
    return sqrt(window_sum(span * span, bars) * (1.0 / (4.0 * math.log(2.0) * bars)))


def garman_klass(bars: int) -> Term:
    """Range volatility from open, high, low and close.

    Garman and Klass, On the Estimation of Security Price Volatilities from Historical Data, 1980;
    their practical estimator. A window whose estimate is negative has none.
    """
    span, change = log(HIGH / LOW), log(CLOSE / OPEN)
    variance = span * span * 0.5 - change * change * (2.0 * math.log(2.0) - 1.0)
    return sqrt(window_sum(variance, bars) * (1.0 / bars))


def rsi(span: int) -> Term:
    """Relative strength index, 0 to 100, with Wilder's smoothing of gains and losses.

    Wilder, New Concepts in Technical Trading Systems, 1978. Undefined where the close never moved.
    """
    change = CLOSE - CLOSE.lag(1)
    factor = 1.0 - 1.0 / span
    gains = decayed_sum(larger(change, 0.0), factor, kept(factor))
    return 100.0 * gains / decayed_sum(apply(np.abs, change), factor, kept(factor))


def average_true_range(span: int) -> Term:
    """True range with Wilder's smoothing (Wilder, 1978)."""
    before = CLOSE.lag(1)
    factor = 1.0 - 1.0 / span
    return decayed_mean(larger(HIGH, before) - smaller(LOW, before), factor, kept(factor))


def macd_line(fast: int, slow: int) -> Term:
    """Exponential mean of the close over ``fast`` bars less that over ``slow``, over the close.

    Appel, The Moving Average Convergence-Divergence Trading Method, 1979; there not over the close.
    """
    return _macd(fast, slow) / CLOSE


def macd_signal(fast: int, slow: int, span: int) -> Term:
    """Exponential mean over ``span`` bars of what :func:`macd_line` divides, over the close."""
    return _exponential_mean(_macd(fast, slow), span) / CLOSE


def macd_histogram(fast: int, slow: int, span: int) -> Term:
    """What :func:`macd_line` divides less its exponential mean, over the close."""
    line = _macd(fast, slow)
    return (line - _exponential_mean(line, span)) / CLOSE


def bollinger_position(bars: int) -> Term:
    """Where the close lies between the bands: 0 at the lower, 1 at the upper.

    Bands are the mean less and plus two population standard deviations (Bollinger, Bollinger on
    Bollinger Bands, 2001; there %b). Undefined where the close never moved.
    """
    return (CLOSE - window_mean(CLOSE, bars)) / (4.0 * _population_std(CLOSE, bars)) + 0.5


def bollinger_width(bars: int) -> Term:
    """Distance of the Bollinger bands over their mean (Bollinger, 2001; there BandWidth)."""
    return 4.0 * _population_std(CLOSE, bars) / window_mean(CLOSE, bars)


def volume_zscore(bars: int) -> Term:
    """Log volume in sample standard deviations from its mean; undefined where it never varied."""
    volume = apply(np.log1p, VOLUME)
    deviation = sqrt(_spread(volume, bars)) * (1.0 / math.sqrt(bars - 1))
    return (volume - _raw_mean(volume, bars)) / deviation


def illiquidity(bars: int) -> Term:
    """Mean of the absolute log return per million of quote currency traded.

    Amihud, Illiquidity and Stock Returns, 2002. Undefined where a bar traded nothing.
    """
    share = apply(np.abs, log_return()) / (CLOSE * VOLUME)
    return window_sum(share, bars) * (1e6 / bars)


def skewness(bars: int) -> Term:
    """Sample skewness of one-bar log returns: G1 of Joanes and Gill, 1998.

    Undefined where the return hardly varied (:data:`_FEW_DIGITS`).
    """
    returns = log_return()
    mean, spread, varied = _raw_mean(returns, bars), _spread(returns, bars), _varied(returns, bars)
    raw2, raw3 = (window_sum(_power(returns, power), bars) for power in (2, 3))
    cubes = raw3 - mean * (3.0 * raw2 - mean * mean * (2.0 * bars))
    scale = bars * math.sqrt(bars - 1.0) / (bars - 2.0)
    return cubes / (varied * sqrt(spread)) * scale


def kurtosis(bars: int) -> Term:
    """Sample excess kurtosis of one-bar log returns: G2 of Joanes and Gill, 1998.

    Undefined where the return hardly varied (:data:`_FEW_DIGITS`).
    """
    returns = log_return()
    mean, varied = _raw_mean(returns, bars), _varied(returns, bars)
    raw2, raw3, raw4 = (window_sum(_power(returns, power), bars) for power in (2, 3, 4))
    square = mean * mean
    fourths = raw4 - mean * (4.0 * raw3) + square * (6.0 * raw2 - square * (3.0 * bars))
    below = (bars - 2.0) * (bars - 3.0)
    scale = bars * (bars + 1.0) * (bars - 1.0) / below
    return fourths / (varied * varied) * scale - 3.0 * (bars - 1.0) ** 2 / below


def beta(symbol: str, bars: int) -> Term:
    """Slope of one-bar log returns on those of ``symbol`` (Sharpe, 1963).

    Undefined where the return of ``symbol`` never varied; exactly 1 of ``symbol`` itself.
    """
    returns, market = log_return(), log_return().of(symbol)
    products = window_sum(returns * market, bars)
    shared = _raw_mean(returns, bars) * window_sum(market, bars)
    return (products - shared) / _spread(market, bars)


def correlation(symbol: str, bars: int) -> Term:
    """Pearson correlation of one-bar log returns with those of ``symbol``: never past 1 or -1.

    Undefined where either return never varied; exactly 1 of ``symbol`` itself.
    """
    returns, market = log_return(), log_return().of(symbol)
    slope, scale = sqrt(_spread(market, bars)), sqrt(_spread(returns, bars))
    share = beta(symbol, bars) * (slope / scale)
    # Rounding may lead past 1. What is infinite has no correlation, and this makes it NaN.
    return share / larger(apply(np.abs, share), 1.0)


def growth(term: Term, steps: int) -> Term:
    """Log of a quantity over itself ``steps`` before."""
    return log(term / term.lag(steps))


def kept(factor: float) -> int:
    """Values a smoothing with decay ``factor`` keeps: all but a millionth of the weight.

    Rounded up to a number that takes at most two windows of doubled length to put together.
    """
    length = math.ceil(math.log(_NEGLIGIBLE) / math.log(factor))
    step = 1 << max(length.bit_length() - _BITS_KEPT, 0)
    return -(-length // step) * step


def _macd(fast: int, slow: int) -> Term:
    return _exponential_mean(CLOSE, fast) - _exponential_mean(CLOSE, slow)


def _exponential_mean(term: Term, span: int) -> Term:
    factor = 1.0 - 2.0 / (span + 1.0)
    return decayed_mean(term, factor, kept(factor))


def _population_std(term: Term, bars: int) -> Term:
    return sqrt(window_squares(term, bars) * (1.0 / bars))


def _power(term: Term, power: int) -> Term:
    """``term`` to the second, third or fourth, sharing the square."""
    square = term * term
    return {2: square, 3: square * term, 4: square * square}[power]


def _raw_mean(term: Term, bars: int) -> Term:
    return window_sum(term, bars) * (1.0 / bars)


def _raw_squares(term: Term, bars: int) -> Term:
    return window_sum(_power(term, 2), bars)


def _raw_spread(term: Term, bars: int) -> Term:
    """Sum of squared deviations from the mean of a window, by its raw sums.

    For quantities whose mean is not large beside their spread, as of returns or log volumes: the
    relative error is that of the squares, times mean over spread squared.
    """
    return _raw_squares(term, bars) - _raw_mean(term, bars) * window_sum(term, bars)


def _spread(term: Term, bars: int) -> Term:
    """:func:`_raw_spread`, zero where it is only rounding."""
    return apply(_none_of_rounding, _raw_spread(term, bars), _raw_squares(term, bars))


def _varied(term: Term, bars: int) -> Term:
    """:func:`_raw_spread`, missing where it has too few digits for higher powers."""
    return apply(_missing_few_digits, _raw_spread(term, bars), _raw_squares(term, bars))


def _none_of_rounding(squares: Values, raw: Values, out: Values) -> None:
    rounding = squares <= raw * _ROUNDING
    np.copyto(out, squares)
    np.copyto(out, 0.0, where=rounding)


def _missing_few_digits(squares: Values, raw: Values, out: Values) -> None:
    few = squares <= raw * _FEW_DIGITS
    np.copyto(out, squares)
    np.copyto(out, np.nan, where=few)
