"""How often luck may pass, and how surely more than that is noticed.

Without a signal each world passes a family with chance ``LEVEL`` at most: the gate's p-value. Of n
worlds more than ``most_passes(n)`` pass by luck once in a thousand times, and fail the test. With
200 worlds that is more than 21 of them: a family that truly passes one world in ten is noticed 35
times in 100, one in eight 77, three in twenty 95, one in six 99 times. With 3 worlds only a family
that passes nearly always is noticed, which is what a leak brings about.

Worlds are drawn from fixed seeds: on one machine and library version the counts never change.
"""

from __future__ import annotations

from scipy.stats import binom, binomtest

#: Largest p-value that passes, as by default in the settings.
LEVEL = 0.05
#: Chance that luck alone fails the test of one family.
_FALSE_ALARM = 0.001


def most_passes(worlds: int, level: float = LEVEL) -> int:
    """Passes that luck alone exceeds once in a thousand times."""
    return int(binom.ppf(1 - _FALSE_ALARM, worlds, level))


def chance_to_notice(worlds: int, rate: float) -> float:
    """Chance that a family which truly passes at ``rate`` exceeds `most_passes`."""
    return float(binom.sf(most_passes(worlds), worlds, rate))


def exact_interval(count: int, worlds: int) -> tuple[float, float]:
    """The 95 % interval of a rate (Clopper and Pearson, 1934)."""
    interval = binomtest(count, worlds).proportion_ci(0.95, "exact")
    return float(interval.low), float(interval.high)
