"""Statistics of moving windows that depend on the window's values and on nothing else.

The usual moving sum adds what enters and subtracts what leaves, so its rounding remembers where the
series began: the same bar gets other last bits in a longer slice. Here the sums of two adjacent
windows of 1, 2, 4, 8 ... values are added into those of twice the length, and windows of other
lengths are put together from these, in an order fixed by the length alone. A value has the same
bits in every slice that holds its window, rounding grows with the logarithm of the length, and the
windows of one series share their halves.

A missing value makes every window over it missing, and no other.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable
from functools import cache

from cryptoml_assets.features.terms import Term


def window_sum(term: Term, length: int) -> Term:
    """Sum of the newest ``length`` values."""
    return _joined(_doubled_sum(term, size).lag(covered) for size, covered in _parts(length))


def window_mean(term: Term, length: int) -> Term:
    """Mean of the newest ``length`` values; exactly their value where they are all equal."""
    return _merged(term, length)[0]


def window_squares(term: Term, length: int) -> Term:
    """Sum of squared deviations of the newest ``length`` values from their mean.

    Exactly zero where they are all equal, and good to the last digits however large the mean: the
    deviations of adjacent windows are merged (Chan, Golub and LeVeque, Updating Formulae and a
    Pairwise Algorithm for Computing Sample Variances, 1979).
    """
    return _merged(term, length)[1]


def decayed_mean(term: Term, factor: float, length: int) -> Term:
    """Mean of the newest ``length`` values, each weighing ``factor`` times the next newer one.

    What a recursive smoothing with decay ``factor`` tends to, cut off after ``length`` values: the
    weights are scaled to add up to one.
    """
    return decayed_sum(term, factor, length) * ((1.0 - factor) / (1.0 - factor**length))


def decayed_sum(term: Term, factor: float, length: int) -> Term:
    """Sum of the newest ``length`` values, each times ``factor`` to the power of its age."""
    return _joined(
        _doubled_decay(term, factor, size).lag(covered) * factor**covered
        if covered
        else _doubled_decay(term, factor, size)
        for size, covered in _parts(length)
    )


def _joined(parts: Iterable[Term]) -> Term:
    return functools.reduce(Term.__add__, parts)


@cache
def _merged(term: Term, length: int) -> tuple[Term, Term]:
    """Mean of a window, and sum of squared deviations from it."""
    (newest, _), *older = _parts(length)
    mean, squares = _doubled_mean(term, newest), _doubled_squares(term, newest)
    for size, covered in older:
        gap = _doubled_mean(term, size).lag(covered) - mean
        total = covered + size
        mean = mean + gap * (size / total)
        squares = squares + _doubled_squares(term, size).lag(covered)
        squares = squares + gap * gap * (covered * size / total)
    return mean, squares


def _doubled_mean(term: Term, size: int) -> Term:
    return _doubled_sum(term, size) * (1.0 / size) if size > 1 else term


@cache
def _doubled_sum(term: Term, size: int) -> Term:
    """Sum of ``size`` values, a power of two."""
    if size == 1:
        return term
    half = _doubled_sum(term, size // 2)
    return half + half.lag(size // 2)


@cache
def _doubled_squares(term: Term, size: int) -> Term:
    """Squared deviations from the mean of ``size`` values, a power of two."""
    if size == 1:
        return term - term
    half = _doubled_sum(term, size // 2)
    gap = half.lag(size // 2) - half
    between = gap * gap * (1.0 / size)
    if size == 2:  # noqa: PLR2004
        return between
    squares = _doubled_squares(term, size // 2)
    return (squares + squares.lag(size // 2)) + between


@cache
def _doubled_decay(term: Term, factor: float, size: int) -> Term:
    """Decaying sum of ``size`` values, a power of two."""
    if size == 1:
        return term
    half = _doubled_decay(term, factor, size // 2)
    return half + half.lag(size // 2) * factor ** (size // 2)


def _parts(length: int) -> list[tuple[int, int]]:
    """The powers of two that add up to ``length``, smallest first, and what is newer than each."""
    sizes = [1 << place for place in range(length.bit_length()) if length >> place & 1]
    return list(zip(sizes, itertools.accumulate(sizes, initial=0), strict=False))
