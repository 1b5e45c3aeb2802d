"""The rules a model is held against, each a small function from figures to PASS or FAIL.

A figure that is no number, or that no measurement gives, raises instead: the gate makes that a
FAIL. So does whatever else keeps a rule from its figure.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cryptoml_assets.deployment.options import NOT_WITHDRAWN
from cryptoml_assets.models.evaluation import CLAIM_LOSS, Claim
from cryptoml_serving.contract.approval import Criterion

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

#: Largest difference between two computations of the same answer.
ANSWER_TOLERANCE = 1e-6
#: Nominal coverage of the interval.
NOMINAL_COVERAGE = 0.9

#: Claim → the figure that says how much better than the base rate, and its p-value.
SKILL: dict[Claim, str] = {claim: f"{loss}_skill" for claim, loss in CLAIM_LOSS.items()}
P_VALUE: dict[Claim, str] = {"direction": "direction_p_value", "distribution": "crps_p_value"}
_BASE: dict[Claim, str] = {
    "direction": "log loss of the chance of an up move, against the training base rate",
    "distribution": "CRPS of the predicted distribution, against that of all training labels",
}
#: Standard errors that the coverage may be off by luck.
_ERRORS = 2.0
#: Claim → standard errors by which the result of trading may fall short of its floor: luck alone
#: brings that about once in ten times for a model that earns exactly the floor, and once in forty.
_SHORTFALL: dict[Claim, float] = {"direction": 1.28, "distribution": 2.0}
#: Differences that a rule names.
_SHOWN = 3


def minimum_rows(rows: float, least: int) -> Criterion:
    """Enough out-of-sample rows for a verdict."""
    return Criterion(
        name="minimum_rows",
        passed=rows >= least,
        figure=rows,
        threshold=least,
        rule=f"at least {least} rows out of sample",
    )


def beats_base_rate(claim: Claim, skill: float) -> Criterion:
    """Better out of sample than knowing only the past's frequencies."""
    return Criterion(
        name="beats_base_rate",
        passed=skill > 0.0,
        figure=skill,
        threshold=0.0,
        rule=f"share of loss saved above 0: {_BASE[claim]}",
    )


def deflated(p_value: float, trials: int) -> float:
    """Chance that the best of so many independent worthless trials looks as good by luck.

    Šidák, *Rectangular confidence regions for the means of multivariate normal distributions*
    (1967): 1 - (1 - p)^trials. Trials that resemble each other, as families that learn from the
    same rows do, make the true chance smaller: the deflated p-value errs on the safe side.

    Args:
        p_value: of one trial, above 0 and at most 1: a bootstrap never gives 0.
        trials: 1 or more.

    Raises:
        ValueError: either is not what it must be.
    """
    if not 0.0 < p_value <= 1.0:
        message = f"p_value={p_value}: above 0 and at most 1"
        raise ValueError(message)
    if trials < 1:
        message = f"trials={trials}: a model that was tried makes at least 1"
        raise ValueError(message)
    return 1.0 if p_value == 1.0 else -math.expm1(trials * math.log1p(-p_value))


def significance(claim: Claim, p_value: float, trials: int, largest: float) -> Criterion:
    """Not explained by luck, whatever else was tried.

    The comparison chooses by earlier folds, so that one candidate's p-value in the newest needs no
    correction for having been chosen. It is deflated all the same: a gate that is asked after every
    training sees the rows of one test window again and again, each time with other candidates, and
    one of many worthless ones passes it sooner or later.

    Args:
        claim: what the model claims.
        p_value: of that claim, block bootstrap.
        trials: see `trials.trials_of`.
        largest: deflated p-value that passes.
    """
    rule = (
        f"one-sided block-bootstrap p-value of the {claim} skill at most {largest:g}, deflated by "
        f"{trials} trials: {p_value:.4g} alone"
    )
    return _at_most("significance", deflated(p_value, trials), largest, rule)


def no_worse_than_champion(
    version: str, excess: float, p_value: float, *, rows: int, margin: float, note: str = ""
) -> Criterion:
    """Not worse than what serves, on the same rows.

    Args:
        version: of the champion.
        excess: mean loss of the claim above the champion's, as a share of the base rate's.
        p_value: chance of so much smaller a loss than the champion's by luck.
        rows: on which both were measured.
        margin: excess that passes.
        note: what else to know of those rows.
    """
    if not 0.0 < p_value <= 1.0:
        message = f"p_value={p_value}: above 0 and at most 1"
        raise ValueError(message)
    if rows < 1:
        message = f"rows={rows}: a comparison needs rows"
        raise ValueError(message)
    rule = (
        f"mean loss above that of champion {version} at most {margin:g} of the base rate's loss, "
        f"on the same {rows} rows{note}; one-sided p-value of being better {p_value:.4g}"
    )
    return _at_most("no_worse_than_champion", excess, margin, rule)


def no_comparable_champion(why: str, margin: float) -> Criterion:
    """Nothing serves that the model could be compared with; ``why`` says what that means."""
    return Criterion(
        name="no_worse_than_champion", passed=True, figure=0.0, threshold=margin, rule=why
    )


def coverage(share: float, error: float, tolerance: float) -> Criterion:
    """The 90 % interval holds about 90 % of what happened.

    Two standard ``error`` of the share are allowed for beside the tolerance, but no more than the
    tolerance again: a short sample of calm days covers more, and says less, than a long one.
    """
    if not error >= 0.0:
        message = f"error={error}: a standard error is a number, 0 or more"
        raise ValueError(message)
    allowed = tolerance + min(_ERRORS * error, tolerance)
    return Criterion(
        name="coverage",
        passed=math.isfinite(error) and abs(share - NOMINAL_COVERAGE) <= allowed,
        figure=share,
        threshold=allowed,
        rule=(
            f"coverage of the 90 % interval within {tolerance:g} of {NOMINAL_COVERAGE}, allowing "
            f"for its sampling error"
        ),
    )


def net_result(claim: Claim, net_bps: float, error_bps: float, floor_bps: float) -> Criterion:
    """Who would trade on the expected returns does not lose by it, costs paid.

    What is measured is the mean of few trades, so its sampling error is allowed for: one trade that
    lost says next to nothing. How much depends on the claim. A model that claims to tell the
    direction fails by a loss that luck explains once in ten times. One that claims the distribution
    alone promises no gain, and fails by a loss that luck explains once in forty times: its expected
    returns are served too. A model that never expects more than a round trip costs does not trade,
    and a result of 0 is what it has.

    Args:
        claim: what the model claims.
        net_bps: result after costs, basis points of the amount traded; 0 without a trade.
        error_bps: standard error of that.
        floor_bps: what it is to bring, sampling error apart.
    """
    if not (math.isfinite(error_bps) and error_bps >= 0.0):
        message = f"error_bps={error_bps}: a standard error is a number, 0 or more"
        raise ValueError(message)
    errors = _SHORTFALL[claim]
    least = floor_bps - errors * error_bps
    return Criterion(
        name="net_result",
        passed=net_bps >= least,
        figure=net_bps,
        threshold=least,
        rule=(
            f"threshold strategy brings at least {floor_bps:g} basis points of the amount traded "
            f"after costs, less {errors:g} of its standard errors; 0 without a trade"
        ),
    )


def parity(compared: int, different: Sequence[str], proofs: str) -> Criterion:
    """Training, recomputation and serving see the same features, to the bit.

    Args:
        compared: values that were compared, one at least.
        different: the places of those that differ.
        proofs: what was compared with what, and of which versions.
    """
    return _exact("parity", compared, different, proofs)


def no_look_ahead(compared: int, different: Sequence[str], proofs: str) -> Criterion:
    """Nothing that the model learnt from was unknown at its instant; arguments as of `parity`."""
    return _exact("no_look_ahead", compared, different, proofs)


def no_suspected_leak(accuracy: float, limit: float) -> Criterion:
    """Not too good to be true."""
    if not 0.0 <= accuracy <= 1.0:
        message = f"accuracy={accuracy}: a share is 0 to 1"
        raise ValueError(message)
    rule = f"directional accuracy at most {limit:g}; above, future data has leaked in"
    return _at_most("no_suspected_leak", accuracy, limit, rule)


def same_answers(difference: float) -> Criterion:
    """The loaded bundle answers as the trainer did."""
    if difference < 0.0:
        message = f"difference={difference}: a largest difference is 0 or more"
        raise ValueError(message)
    rule = f"loaded bundle and trainer differ by at most {ANSWER_TOLERANCE:g} on every row"
    return _at_most("same_answers", difference, ANSWER_TOLERANCE, rule)


def latency(seconds: float, symbols: int, budget_seconds: float) -> Criterion:
    """The loaded bundle answers all served symbols in time.

    Args:
        seconds: median of several batches, compiled before.
        symbols: rows of a batch, one for each symbol that is served.
        budget_seconds: longest that passes.
    """
    if seconds <= 0.0:
        message = f"seconds={seconds}: an answer takes time"
        raise ValueError(message)
    if symbols < 1:
        message = f"symbols={symbols}: at least one is served"
        raise ValueError(message)
    rule = f"median time to answer {symbols} symbols at most {budget_seconds:g} s, once compiled"
    return _at_most("latency", seconds, budget_seconds, rule)


def not_withdrawn(version: str, withdrawn: Collection[str]) -> Criterion:
    """A version that was taken out of service does not come back by itself."""
    taken_out = version in withdrawn
    return Criterion(
        name=NOT_WITHDRAWN,
        passed=not taken_out,
        figure=float(taken_out),
        threshold=0.0,
        rule=(
            f"version {version} was not rolled back or withdrawn; a person can put it back: "
            f"cryptoml rollback --to {version}"
        ),
    )


def _exact(name: str, compared: int, different: Sequence[str], proofs: str) -> Criterion:
    if compared < 1:
        message = f"nothing was compared: {proofs}"
        raise ValueError(message)
    shown = "; ".join(different[:_SHOWN])
    return Criterion(
        name=name,
        passed=not different,
        figure=float(len(different)),
        threshold=0.0,
        rule=f"no difference among {compared} values: {proofs}" + (f"; {shown}" if shown else ""),
    )


def _at_most(name: str, figure: float, limit: float, rule: str) -> Criterion:
    return Criterion(name=name, passed=figure <= limit, figure=figure, threshold=limit, rule=rule)
