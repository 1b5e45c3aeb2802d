"""When a challenger takes over, and when it is taken back.

Whoever looks again and again at a growing sample, and acts the first time that a p-value is small,
acts by luck far more often than that p-value says. So a challenger is only judged at looks that are
laid down by the data itself: look ``k`` is at the first ``minimum * 1.5 ** (k - 1)`` pairs of
outcomes and may spend ``significance / (k * (k + 1))``, which add up to no more than the whole
(alpha spending: Lan and DeMets, *Discrete sequential boundaries for clinical trials*, 1983, with
the union bound in place of their recursion, as outcomes overlap and symbols move together).
Reviews between two looks see nothing new, so it does not matter how many there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

import numpy as np
import polars as pl

from cryptoml_assets.models.evaluation import CLAIM_LOSS
from cryptoml_assets.models.significance import overlap_block, regime_block
from cryptoml_assets.monitoring.outcomes import NEWEST, longest_horizon
from cryptoml_assets.monitoring.resolved import resolved_p_value
from cryptoml_serving.contract.approval import Criterion

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cryptoml_assets.models.evaluation import Claim

Verdict = Literal["keep", "promote", "abort"]
_GROWTH = 1.5
#: Chance of so many errors, at the rate that is allowed, below which it is not that rate.
_CERTAIN = 1e-3
#: Readings of the features that a share of failures is of: among few, what passes within seconds
#: would decide. At the default interval they take half an hour.
_FEWEST_READINGS = 1000
#: Times of predictions whose 95th percentile is one: of a few, it is that of the slowest.
_FEWEST_TIMES = 100
_KEY = ("symbol", "feature_timestamp")


@dataclass(frozen=True)
class Limits:
    """What a challenger must keep to, and how sure a verdict on its quality must be.

    Attributes:
        minimum: pairs of outcomes at the first look.
        significance: largest probability, over all looks, that a challenger no better than the
            champion is promoted; and that one no worse is withdrawn for its quality.
        error_rate: largest share of its readings that may fail.
        latency: longest 95th percentile of the time a prediction may take.
    """

    minimum: int
    significance: float
    error_rate: float
    latency: timedelta


@dataclass(frozen=True)
class Service:
    """What the inference service counted of one version.

    Attributes:
        predictions: that it was asked for, those that failed among them.
        errors: those that failed.
        latency_seconds: 95th percentile of the time for all symbols; none where none was taken.
        timed: how many times it is of.
        at_once: predictions that one reading of the features makes, one a symbol and worker: what
            breaks a reading breaks them all.
    """

    predictions: int
    errors: int
    latency_seconds: float | None
    timed: int
    at_once: int = 1

    @property
    def readings(self) -> int:
        """How often it was asked, whatever the number of symbols and workers."""
        return self.predictions // self.at_once

    @property
    def failed_readings(self) -> int:
        """How many readings the errors make."""
        return self.errors // self.at_once

    @property
    def known_latency(self) -> float | None:
        """The percentile where it is one; of a few times, a slow first one would decide."""
        return self.latency_seconds if self.timed >= _FEWEST_TIMES else None


@dataclass(frozen=True)
class Judgement:
    """What becomes of a challenger, and why.

    Attributes:
        verdict: promote, abort, or keep it standing.
        criteria: what it was held against.
        reason: in words.
        gain: mean loss it saves over the champion, over all pairs; 0 without any.
        pairs: outcomes of both.
    """

    verdict: Verdict
    criteria: tuple[Criterion, ...]
    reason: str
    gain: float
    pairs: int


def paired(champion: pl.DataFrame, challenger: pl.DataFrame, claim: Claim) -> pl.DataFrame:
    """How much less the challenger lost than the champion, where both predicted the same.

    Where one answered again as features of an instant changed, its last answer counts.

    Args:
        champion: outcomes of one version, with a known return.
        challenger: outcomes of the other.
        claim: what it claims to tell, which names the loss.

    Returns:
        Columns symbol, feature_timestamp, horizon_seconds and gain, in order of time and symbol.
    """
    loss = CLAIM_LOSS[claim]
    known = pl.col(loss).is_not_null()
    both = challenger.filter(known & NEWEST).join(
        champion.filter(known & NEWEST).select(*_KEY, "horizon_seconds", champion_loss=loss),
        on=[*_KEY, "horizon_seconds"],
        validate="1:1",
    )
    gain = pl.col("champion_loss") - pl.col(loss)
    return both.select(*_KEY, "horizon_seconds", gain=gain).sort("feature_timestamp", "symbol")


def judge(
    pairs: pl.DataFrame,
    claim: Claim,
    *,
    champion: Service | None,
    challenger: Service | None,
    limits: Limits,
    seed: int,
) -> Judgement:
    """Decide about a challenger.

    It is aborted at once for errors, or for slowness that the champion does not share, and at a
    look for predicting worse. It is promoted when a look finds it better, all pairs so far agree,
    and the service says that it keeps to its limits; where the service does not say, it waits.

    Args:
        pairs: as :func:`paired` gives them.
        claim: of the challenger.
        champion: what the service counted of the champion; none where it is not known.
        challenger: what it counted of the challenger.
        limits: what to hold it against.
        seed: of the bootstrap.
    """
    mean = float(pairs["gain"].mean() or 0.0)  # type: ignore[arg-type]
    found = look(pairs, claim, limits, seed)
    criteria = [
        Criterion(
            name="challenger_outcomes",
            passed=pairs.height >= limits.minimum,
            figure=pairs.height,
            threshold=limits.minimum,
            rule=f"at least {limits.minimum} outcomes of challenger and champion together",
        ),
        _better(found, claim, mean),
    ]
    unknown = _unknown(challenger)
    if challenger is not None:
        criteria.append(_errors(challenger, limits))
    if challenger is not None and challenger.known_latency is not None:
        criteria.append(_latency(challenger.known_latency, champion, limits))
    slow_or_wrong = [each for each in criteria[2:] if not each.passed]
    failed = [each for each in criteria if not each.passed]
    verdict: Verdict = "keep"
    if slow_or_wrong:
        verdict, reason = "abort", "; ".join(_words(each) for each in slow_or_wrong)
    elif found.verdict == "abort":
        verdict, reason = "abort", f"it predicts worse than the champion: {found.words}"
    elif not failed and not unknown:
        verdict, reason = "promote", f"it predicts better than the champion: {found.words}"
    else:
        reason = "; ".join([*(_words(each) for each in failed), *unknown])
    return Judgement(verdict, tuple(criteria), reason, mean, pairs.height)


@dataclass(frozen=True)
class Look:
    """What the looks at the pairs so far found.

    Attributes:
        verdict: of the first look that is sure of anything, or keep.
        number: that look's, or the newest one's; 0 before the first.
        pairs: that look was at.
        p_value: that the challenger is no better; where it is withdrawn, that it is no worse.
        spent: what that look may spend.
    """

    verdict: Verdict = "keep"
    number: int = 0
    pairs: int = 0
    p_value: float = 1.0
    spent: float = 0.0

    @property
    def words(self) -> str:
        """The look as a person reads it."""
        return (
            f"p-value {self.p_value:.2g} at look {self.number}, {self.pairs} outcomes, which may "
            f"spend {self.spent:.2g}"
        )


def look(pairs: pl.DataFrame, claim: Claim, limits: Limits, seed: int) -> Look:
    """Every look that the pairs allow, up to the first that is sure the challenger differs."""
    found = Look()
    for number, part, spent in _looks(pairs, limits):
        events = part["feature_timestamp"].dt.replace_time_zone(None).to_numpy()
        horizon = np.timedelta64(longest_horizon(part))
        block = overlap_block(horizon) if claim == "direction" else regime_block(horizon)
        gains: NDArray[np.float64] = part["gain"].to_numpy()
        better, worse = (
            resolved_p_value(events, side, block, seed, spent) for side in (gains, -gains)
        )
        found = Look("keep", number, part.height, better, spent)
        if better <= spent:
            return Look("promote", number, part.height, better, spent)
        if worse <= spent:
            return Look("abort", number, part.height, worse, spent)
    return found


def _looks(pairs: pl.DataFrame, limits: Limits) -> Iterator[tuple[int, pl.DataFrame, float]]:
    """Each look: its number, the pairs it is at, and the significance it may spend.

    A look takes whole instants, so that it is the same whichever symbol's outcome came first.
    """
    number, size = 1, limits.minimum
    while size <= pairs.height:
        last = pairs["feature_timestamp"][size - 1]
        part = pairs.filter(pl.col("feature_timestamp") <= last)
        yield number, part, limits.significance / (number * (number + 1))
        number += 1
        size = math.ceil(limits.minimum * _GROWTH ** (number - 1))


def _better(found: Look, claim: Claim, mean: float) -> Criterion:
    return Criterion(
        name="challenger_better",
        passed=found.verdict == "promote" and mean > 0.0,
        figure=found.p_value if found.verdict != "abort" else 1.0,
        threshold=found.spent,
        rule=f"one-sided block-bootstrap p-value of the {CLAIM_LOSS[claim]} saved over the "
        f"champion at most what look {found.number} may spend, and some saved over all outcomes",
    )


def _unknown(challenger: Service | None) -> list[str]:
    """What a promotion waits for."""
    if challenger is None:
        return ["its errors and latency are not known"]
    if challenger.known_latency is None:
        return [f"its latency is not known from {challenger.timed} of {_FEWEST_TIMES} times"]
    return []


def _errors(challenger: Service, limits: Limits) -> Criterion:
    """Above the rate by more than luck explains; predictions of one reading fail together."""
    readings, failed = challenger.readings, challenger.failed_readings
    rate = failed / readings if readings else 0.0
    chance = chance_of_at_least(failed, readings, limits.error_rate)
    few = readings < _FEWEST_READINGS
    return Criterion(
        name="challenger_errors",
        passed=few or rate <= limits.error_rate or chance > _CERTAIN,
        figure=rate,
        threshold=limits.error_rate,
        rule=f"share of failed readings at most {limits.error_rate:g}, unless luck explains it "
        f"({_CERTAIN:g}) or they are fewer than {_FEWEST_READINGS}; that registry or feature store "
        "failed does not count",
    )


def _latency(taken: float, champion: Service | None, limits: Limits) -> Criterion:
    shared = (champion.known_latency or 0.0) if champion else 0.0
    allowed = max(limits.latency.total_seconds(), shared)
    return Criterion(
        name="challenger_latency",
        passed=taken <= allowed,
        figure=taken,
        threshold=allowed,
        rule=f"95th percentile of the time of a prediction at most "
        f"{limits.latency.total_seconds():g} s or the champion's",
    )


def chance_of_at_least(errors: int, predictions: int, rate: float) -> float:
    """Probability of so many errors or more in so many predictions that each fail at ``rate``."""
    if errors <= 0 or rate >= 1.0:
        return 1.0
    if rate <= 0.0:
        return 0.0
    fewer = sum(
        math.exp(
            math.lgamma(predictions + 1)
            - math.lgamma(count + 1)
            - math.lgamma(predictions - count + 1)
            + count * math.log(rate)
            + (predictions - count) * math.log1p(-rate)
        )
        for count in range(errors)
    )
    return max(0.0, 1.0 - fewer)


def _words(criterion: Criterion) -> str:
    return f"{criterion.name} is {criterion.figure:.4g}, asked for is {criterion.threshold:.4g}"
