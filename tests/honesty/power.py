"""How often luck may pass, and how surely more than that is noticed.

Without a signal each world passes a family with chance ``LEVELS[claim]`` at most: the gate's
p-value. Of n worlds more than ``most_passes(n, LEVELS[claim])`` pass by luck once in a thousand
times, and fail the test. With 200 worlds and the claim of a direction that is more than 13: a
family that truly passes one world in twenty is noticed 13 times in 100, one in ten 94 times. With
the claim of a distribution it is more than 21: one in ten is noticed 35 times in 100, one in eight
77, three in twenty 96. With 3 worlds only a family that passes nearly always is noticed, which is
what a leak brings about.

The gate as a whole may approve ``FALSE_APPROVALS`` of the worlds without a signal, and must approve
``APPROVALS`` of those with one. Of 400 worlds without a signal luck approves more than 11 once in a
thousand times (``most_passes(400, 0.01)``); a gate that truly approves 3 in 100 is noticed 54 times
in 100, one in twenty 98 times. Of 50 with a signal it approves fewer than 37 as seldom
(``fewest_passes(50)``); a gate that truly approves 7 in 10 is noticed 67 times in 100, 6 in 10 97
times. The rates seen are printed, with their intervals.

Worlds are drawn from fixed seeds: on one machine and library version the counts never change.
"""

from __future__ import annotations

from typing import get_args

from scipy.stats import binom, binomtest

from cryptoml_assets.deployment.gate import level_of
from cryptoml_assets.deployment.options import GateSettings
from cryptoml_assets.models.evaluation import Claim

#: Claim → largest p-value that passes, as by default in the settings.
LEVELS: dict[Claim, float] = {
    claim: level_of(claim, GateSettings.model_construct()) for claim in get_args(Claim)
}
#: Largest share of worlds without a signal in which the gate may approve a model.
FALSE_APPROVALS = 0.01
#: Least share of worlds with a signal in which it is to approve one.
APPROVALS = 0.9
#: Chance that luck alone fails the test of one family.
_FALSE_ALARM = 0.001


def most_passes(worlds: int, level: float) -> int:
    """Passes that luck alone exceeds once in a thousand times."""
    return int(binom.ppf(1 - _FALSE_ALARM, worlds, level))


def fewest_passes(worlds: int, level: float = APPROVALS) -> int:
    """Passes that luck alone falls short of once in a thousand times, one at least."""
    return max(1, int(binom.ppf(_FALSE_ALARM, worlds, level)))


def chance_to_notice(worlds: int, rate: float, level: float) -> float:
    """Chance that a family which truly passes at ``rate`` exceeds `most_passes`."""
    return float(binom.sf(most_passes(worlds, level), worlds, rate))


def exact_interval(count: int, worlds: int) -> tuple[float, float]:
    """The 95 % interval of a rate (Clopper and Pearson, 1934)."""
    interval = binomtest(count, worlds).proportion_ci(0.95, "exact")
    return float(interval.low), float(interval.high)
