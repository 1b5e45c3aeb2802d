"""Whether a recent window differs from a longer past more than windows of that past did.

Rows of a market are not independent: features look back over overlapping windows, and volatility
has moods of days and weeks. The textbook law of a two-sample statistic holds for independent rows
and would raise alarms all the time. Here the past is its own yardstick. Every window of it, of the
recent one's length, is compared with the half of the past that it is not in, and the recent window
with all of it. Without drift all of these are draws of one law, whatever the dependence inside a
window; a yardstick of half the rows is the coarser one, which errs on the side of silence.

The distance is that of Kolmogorov (1933) and Smirnov (1939), taken on a grid of quantiles, of the
values and of their distances from the median: the second sees a change of scale that the first
hardly does. As it is never looked up in a table, ties and constants need no rule of their own.

Many pairs of feature and symbol are judged at once, and share their moods. Their distances, each in
standard deviations of its own past, are reduced to the largest of each window, and the recent
largest is held against those (Westfall and Young, Resampling-Based Multiple Testing, 1993), which
holds under any dependence between pairs. Only where it is beyond them is a pair judged by its own
past (Fisher's protected comparison, The Design of Experiments, 1935). So the level bounds the
probability that *anything* counts as drifted where nothing has; where something has, it bounds
that of each other pair. Holm's rule would ask each of 80 pairs for a p-value of 0.0006, for which
the past would have to hold 1,600 windows.

A p-value is ``(1 + n) / (1 + k)``, of ``n`` among ``k`` past windows that are at least as far away
(Davison and Hinkley, Bootstrap Methods and their Application, 1997, 4.2), so never below
``1 / (1 + k)``. Neighbouring windows are alike: ``n`` counts all of them, ``k`` every second one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Bins of the population stability index.
BINS = 10
#: Bins of the grid on which distribution functions are compared.
_GRID = 40
#: Past windows begin this often in the length of one.
_STEPS = 8
#: Shares are floored at this, so that an empty bin gives a large index and not an infinite one.
_LEAST_SHARE = 1e-4
#: Least share of its usual rows that a window needs.
_LEAST_COVER = 0.5
#: What the distance of a recent mean counts. What forgets in a month takes few values of its own in
#: the months that a past holds, and now and then goes a little beyond them.
_NEWS = 0.8
#: Deviation of the distance of n independent rows, times the root of n (Kolmogorov's law).
_KOLMOGOROV_DEVIATION = 0.26
_DAY, _HOUR, _MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)

Floats = NDArray[np.float64]
Instants = NDArray[np.datetime64]


@dataclass(frozen=True)
class Sample:
    """Values with the instants they are of; both 1-d, of equal length, values without NaN."""

    times: Instants
    values: Floats


@dataclass(frozen=True)
class Windows:
    """How a past is cut into windows as long as the recent one.

    Attributes:
        start: of the past.
        end: of the past, not after the recent window begins.
        width: length of a window.
    """

    start: datetime
    end: datetime
    width: timedelta

    @property
    def independent(self) -> int:
        """Windows of the past that count as independent of each other: every second one."""
        return (self.end - self.start) // (2 * self.width)


@dataclass(frozen=True)
class Distances:
    """How far a recent sample is from a past one, and how far windows of the past were.

    Attributes:
        psi: population stability index.
        recent: distances of the recent values and of their spread, each in [0, 1], and where
            wanted of their means, in deviations; shape (2,) or (3,).
        past: the same of each past window, NaN where it held too few rows; shape (windows, 2 or 3).
        rows: recent rows.
    """

    psi: float
    recent: Floats
    past: Floats
    rows: int


@dataclass(frozen=True)
class Judgement:
    """What became of one pair.

    Attributes:
        statistic: the larger of its two distances, in standard deviations of the past ones above
            their mean.
        p_value: chance of so large a one without drift, were this the only pair.
        adjusted_p_value: the same, when it counts that all pairs were looked at.
    """

    statistic: float
    p_value: float
    adjusted_p_value: float


def choose_windows(
    start: datetime,
    end: datetime,
    now: datetime,
    *,
    significance: float,
    longest: timedelta,
    shortest: timedelta = timedelta(0),
) -> Windows | None:
    """The longest windows of which a past still holds enough for p-values to reach a level.

    Args:
        start: of the past.
        end: of the past, wherever the recent window begins.
        now: end of the recent window.
        significance: the level.
        longest: the most a window may be.
        shortest: the least it may be.

    Returns:
        Windows of whole days, or of hours or minutes where a day is too long, and the past without
        what the recent window holds; none where it is shorter than all that.
    """
    needed = 2 * math.ceil(1 / significance - 1 - 1e-9)
    width = min(longest, (end - start) / needed, (now - start) / (needed + 1))
    unit = next((unit for unit in (_DAY, _HOUR, _MINUTE) if width >= unit), None)
    if unit is None:
        return None
    width = width // unit * unit
    if width < shortest:
        return None
    return Windows(start, min(end, now - width), width)


def population_stability(reference: Floats, current: Floats) -> float:
    """The population stability index; both samples 1-d, non-empty, without NaN.

    ``sum((a - e) * ln(a / e))`` over the shares ``a`` of the current and ``e`` of the reference
    rows in bins between the deciles of the reference (Siddiqi, Credit Risk Scorecards, 2006).
    A value that holds a tenth of the reference has a bin of its own.
    """
    edges = _edges(reference, BINS)
    expected, actual = (
        np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1) / len(values)
        for values in (reference, current)
    )
    expected, actual = (np.maximum(shares, _LEAST_SHARE) for shares in (expected, actual))
    return float(np.sum((actual - expected) * np.log(actual / expected)))


def distances(
    reference: Sample, recent: Sample, windows: Windows, *, level: bool = False
) -> Distances | None:
    """Distances of a recent sample and of past windows; none where either holds too few rows.

    Args:
        reference: the past, in any order; what is not in its windows is ignored.
        recent: the recent window, in any order.
        windows: how the past is cut.
        level: whether to measure how far means are apart as well, in deviations of the past.
            Kolmogorov's distance of a few values from a thousand has no room above that of values
            at either end of what was seen before, so that nothing farther away stands out.
    """
    blocks, count = _blocks(reference, windows)
    kept = (blocks >= 0) & (blocks < count)
    values, blocks = reference.values[kept], blocks[kept]
    usual = _STEPS * len(values) / count if count else 0.0
    cover = min(1.0, len(recent.values) / usual) if usual else 0.0
    if cover < _LEAST_COVER:
        return None
    median = np.median(values)
    past, now = [], []
    for old, new in (
        (values, recent.values),
        (np.abs(values - median), np.abs(recent.values - median)),
    ):
        edges = _edges(old, _GRID)
        past.append(_past(old, blocks, count, edges))
        shares = [
            np.bincount(np.searchsorted(edges, x), minlength=len(edges) + 1) for x in (new, old)
        ]
        # Of fewer rows than usual the distance is larger by chance alone.
        now.append(math.sqrt(cover) * float(_distance(*shares)))
    if level:
        past.append(_past_levels(values, blocks, count))
        apart = abs(float(recent.values.mean() - values.mean())) / _deviation(values)
        now.append(_NEWS * math.sqrt(cover) * apart)
    if np.isnan(past[0]).mean() > 1 - _LEAST_COVER:
        return None
    psi = population_stability(values, recent.values)
    return Distances(psi, np.array(now), np.stack(past, axis=1), len(recent.values))


def judge(pairs: Sequence[Distances], independent: int) -> list[Judgement]:
    """Judge pairs together.

    Args:
        pairs: of equal past windows.
        independent: how many of those count as independent.
    """
    if not pairs:
        return []
    scored = [_standardised(pair) for pair in pairs]
    past = np.stack([old for old, _ in scored], axis=1)
    recent = np.array([new for _, new in scored])
    largest = past.max(axis=1)
    whole = _p_value(largest[np.isfinite(largest)], recent.max(), independent)
    own = [
        _p_value(column[np.isfinite(column)], new, independent)
        for column, new in zip(past.T, recent, strict=True)
    ]
    return [
        Judgement(float(new), p_value, max(whole, p_value))
        for new, p_value in zip(recent, own, strict=True)
    ]


def _p_value(past: Floats, recent: float, independent: int) -> float:
    as_far = 2 * independent * float(np.mean(past >= recent))
    return min(1.0, (1 + as_far) / (1 + independent))


def _standardised(pair: Distances) -> tuple[Floats, float]:
    """The larger distance of each past window, -inf where there is none, and of the recent one."""
    # Independent rows vary so much, so that a past of a single value allows no smaller a change.
    least = _KOLMOGOROV_DEVIATION / math.sqrt(pair.rows)
    centre = np.nanmean(pair.past, axis=0)
    scale = np.maximum(np.nanstd(pair.past, axis=0), least)
    past = np.nan_to_num((pair.past - centre) / scale, nan=-np.inf).max(axis=1)
    return past, float(((pair.recent - centre) / scale).max())


def _edges(reference: Floats, bins: int) -> Floats:
    """Between quantiles; a value that several quantiles share is alone between two edges."""
    quantiles = np.quantile(reference, np.linspace(0, 1, bins + 1))
    shared = quantiles[1:][quantiles[1:] == quantiles[:-1]]
    return np.unique(np.concatenate([quantiles[1:-1], shared, np.nextafter(shared, -np.inf)]))


def _blocks(sample: Sample, windows: Windows) -> tuple[NDArray[np.int64], int]:
    """Number of the step in which each row lies, and how many whole steps the past has."""
    step = np.timedelta64(windows.width, "us") // _STEPS
    start, end = (
        np.datetime64(each.replace(tzinfo=None), "us") for each in (windows.start, windows.end)
    )
    return (sample.times.astype("datetime64[us]") - start) // step, int((end - start) // step)


def _past(values: Floats, blocks: NDArray[np.int64], count: int, edges: Floats) -> Floats:
    """Distance of each window of the past from the half of it that the window is not in."""
    bins = len(edges) + 1
    place = blocks * bins + np.searchsorted(edges, values)
    counts = np.bincount(place, minlength=count * bins).reshape(count, bins)
    inside, other = _windows_and_halves(counts, count)
    found = _distance(inside, other)
    found[inside.sum(axis=1) < _LEAST_COVER * _STEPS * len(values) / count] = np.nan
    return found


def _past_levels(values: Floats, blocks: NDArray[np.int64], count: int) -> Floats:
    """Distance of the mean of each window from that of the half of the past it is not in."""
    sums = [
        np.bincount(blocks, weights, minlength=count) for weights in (np.ones(len(values)), values)
    ]
    inside, other = _windows_and_halves(np.stack(sums, axis=1), count)
    rows, below = (np.maximum(each[:, 0], 1) for each in (inside, other))
    means, middle = inside[:, 1] / rows, other[:, 1] / below
    found: Floats = np.abs(means - middle) / _deviation(values)
    found[inside[:, 0] < _LEAST_COVER * _STEPS * len(values) / count] = np.nan
    return found


def _windows_and_halves(steps: NDArray[Any], count: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Sums over each window that lies in one half of the past, and over the other half.

    Args:
        steps: what each step adds, shape (count, n).
        count: of steps.
    """
    before = np.concatenate([np.zeros_like(steps[:1]), steps.cumsum(axis=0)])
    half = count // 2
    first = np.arange(count - _STEPS + 1)
    first = first[(first + _STEPS <= half) | (first >= half)]
    early = first < half
    inside = before[first + _STEPS] - before[first]
    return inside, np.where(early[:, None], before[-1] - before[half], before[half])


def _deviation(values: Floats) -> float:
    """Standard deviation, and next to nothing where all are the same."""
    return max(float(values.std()), 1e-9 * max(1.0, float(np.abs(values).max())))


def _distance(one: NDArray[np.int64], other: NDArray[np.int64]) -> Floats:
    """Largest distance between the distribution functions of counts in bins, the last axis."""
    shares = [
        np.cumsum(each, axis=-1) / np.maximum(each.sum(axis=-1, keepdims=True), 1)
        for each in (one, other)
    ]
    distance: Floats = np.abs(shares[0] - shares[1]).max(axis=-1)
    return distance
