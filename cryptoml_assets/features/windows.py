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

from functools import cache

from cryptoml_assets.features.terms import Term


def window_sum(term: Term, length: int) -> Term:
    """Sum of the newest ``length`` values."""
    total: Term | None = None
    covered = 0
    for size in _parts(length):
        part = _doubled_sum(term, size).lag(covered)
        total = part if total is None else total + part
        covered += size
    assert total is not None
    return total


def window_mean(term: Term, length: int) -> Term:
    """Mean of the newest ``length`` values; exactly their value where they are all equal."""
    mean: Term | None = None
    covered = 0
    for size in _parts(length):
        part = (_doubled_sum(term, size) * (1.0 / size)).lag(covered)
        share = size / (covered + size)
        mean = part if mean is None else mean + (part - mean) * share
        covered += size
    assert mean is not None
    return mean


def window_squares(term: Term, length: int) -> Term:
    """Sum of squared deviations of the newest ``length`` values from their mean.

    Exactly zero where they are all equal, and good to the last digits however large the mean: the
    deviations of adjacent windows are merged (Chan, Golub and LeVeque, Updating Formulae and a
    Pairwise Algorithm for Computing Sample Variances, 1979).
    """
    squares = mean = None
    covered = 0
    for size in _parts(length):
        part = (_doubled_sum(term, size) * (1.0 / size)).lag(covered)
        part_squares = _doubled_squares(term, size).lag(covered)
        if squares is None or mean is None:
            mean, squares = part, part_squares
        else:
            gap = part - mean
            total = covered + size
            mean = mean + gap * (size / total)
            squares = (squares + part_squares) + gap * gap * (covered * size / total)
        covered += size
    assert squares is not None
    return squares


def decayed_mean(term: Term, factor: float, length: int) -> Term:
    """Mean of the newest ``length`` values, each weighing ``factor`` times the next newer one.

    What a recursive smoothing with decay ``factor`` tends to, cut off after ``length`` values: the
    weights are scaled to add up to one.
    """
    total: Term | None = None
    covered = 0
    for size in _parts(length):
        part = _doubled_decay(term, factor, size).lag(covered)
        total = part if total is None else total + part * factor**covered
        covered += size
    assert total is not None
    return total * ((1.0 - factor) / (1.0 - factor**length))


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


def _parts(length: int) -> tuple[int, ...]:
    """The powers of two that add up to ``length``, smallest first."""
    return tuple(1 << place for place in range(length.bit_length()) if length >> place & 1)
