"""Statistics of moving windows that depend on the window's values and on nothing else.

The usual moving sum adds what enters and subtracts what leaves, so its rounding remembers where the
series began: the same bar gets other last bits in a longer slice. Here the statistics of two
adjacent windows of 1, 2, 4, 8 ... values are merged into those of twice the length (Chan, Golub and
LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979), in an
order fixed by the window's length alone. A value has the same bits in every slice that holds its
window, a constant window has exactly no variance, and rounding grows with the logarithm of the
length.

Arrays are float64, oldest value first; NaN is a missing value and makes every window over it NaN.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
from numpy.typing import NDArray

Values = NDArray[np.float64]

#: Rows worked on at a time: the arrays of one pass then stay in the processor's cache.
_BLOCK = 8192


def moving_mean(values: pl.Expr, length: int) -> pl.Expr:
    """Mean of the newest ``length`` values at each row; null where one of them is missing."""
    return _over_window(values, window_mean, length)


def moving_std(values: pl.Expr, length: int) -> pl.Expr:
    """Sample standard deviation of the newest ``length`` values; null where one is missing."""
    return _over_window(values, window_std, length)


def moving_zscore(values: pl.Expr, length: int) -> pl.Expr:
    """Newest value less the mean of the newest ``length``, over their standard deviation."""
    return _over_window(values, window_zscore, length)


def window_mean(values: Values, length: int) -> Values:
    """Mean of ``values[i - length + 1 : i + 1]`` at each ``i``, NaN where that is incomplete."""
    block, block_length = values, 1
    mean, covered = values, 0
    for more in _binary_digits(length):
        if more:
            older = _earlier(block, covered)
            share = block_length / (covered + block_length)
            mean = older if not covered else mean + (older - mean) * share
            covered += block_length
        if covered < length:
            block = (block + _earlier(block, block_length)) * 0.5
            block_length *= 2
    return mean


def window_std(values: Values, length: int) -> Values:
    """Sample standard deviation of ``values[i - length + 1 : i + 1]``, NaN where incomplete."""
    _, squares = _moments(values, length)
    return np.sqrt(squares / (length - 1))


def window_zscore(values: Values, length: int) -> Values:
    """``values[i]`` in standard deviations from the mean of its window; NaN where undefined."""
    mean, squares = _moments(values, length)
    with np.errstate(invalid="ignore"):
        return (values - mean) / np.sqrt(squares / (length - 1))


def _moments(values: Values, length: int) -> tuple[Values, Values]:
    """Mean and sum of squared deviations from it of ``values[i - length + 1 : i + 1]``."""
    block, block_squares, block_length = values, np.where(np.isnan(values), np.nan, 0.0), 1
    mean, squares, covered = block, block_squares, 0
    for more in _binary_digits(length):
        if more:
            older, older_squares = _earlier(block, covered), _earlier(block_squares, covered)
            if covered:
                gap = older - mean
                total = covered + block_length
                mean = mean + gap * (block_length / total)
                squares = squares + older_squares + gap * gap * (covered * block_length / total)
            else:
                mean, squares = older, older_squares
            covered += block_length
        if covered < length:
            older, older_squares = (
                _earlier(block, block_length),
                _earlier(block_squares, block_length),
            )
            gap = older - block
            block = (block + older) * 0.5
            block_squares = block_squares + older_squares + gap * gap * (block_length / 2)
            block_length *= 2
    return mean, squares


def _over_window(
    values: pl.Expr, statistic: Callable[[Values, int], Values], length: int
) -> pl.Expr:
    def apply(series: pl.Series) -> pl.Series:
        array = series.to_numpy()
        moved = np.empty_like(array)
        for begin in range(0, len(array), _BLOCK):
            first = max(begin - length + 1, 0)
            block = statistic(array[first : begin + _BLOCK], length)
            moved[begin : begin + _BLOCK] = block[begin - first :]
        return pl.Series(series.name, moved, nan_to_null=True)

    return values.cast(pl.Float64).map_batches(apply, return_dtype=pl.Float64)


def _binary_digits(number: int) -> list[bool]:
    """Digits of ``number`` in base two, lowest first."""
    return [digit == "1" for digit in reversed(f"{number:b}")]


def _earlier(values: Values, steps: int) -> Values:
    """At each place the value ``steps`` places before it."""
    if not steps:
        return values
    moved = np.empty_like(values)
    moved[:steps] = np.nan
    moved[steps:] = values[:-steps]
    return moved
