"""The rules a model is held against, each a small function from figures to PASS or FAIL."""

from __future__ import annotations

import math

from cryptoml_assets.models.evaluation import CLAIM_LOSS, Claim
from cryptoml_serving.contract.approval import Criterion

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


def significance(claim: Claim, p_value: float, largest: float) -> Criterion:
    """Not explained by luck."""
    rule = f"one-sided block-bootstrap p-value of the {claim} skill at most {largest:g}"
    return _at_most("significance", p_value, largest, rule)


def coverage(share: float, error: float, tolerance: float) -> Criterion:
    """The 90 % interval holds about 90 % of what happened.

    Two standard ``error`` of the share are allowed for beside the tolerance, but no more than the
    tolerance again: a short sample of calm days covers more, and says less, than a long one.
    """
    allowed = tolerance + min(2.0 * error, tolerance)
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


def no_suspected_leak(accuracy: float, limit: float) -> Criterion:
    """Not too good to be true."""
    rule = f"directional accuracy at most {limit:g}; above, future data has leaked in"
    return _at_most("no_suspected_leak", accuracy, limit, rule)


def same_answers(difference: float) -> Criterion:
    """The loaded bundle answers as the trainer did."""
    rule = f"loaded bundle and trainer differ by at most {ANSWER_TOLERANCE:g} on every row"
    return _at_most("same_answers", difference, ANSWER_TOLERANCE, rule)


def _at_most(name: str, figure: float, limit: float, rule: str) -> Criterion:
    return Criterion(name=name, passed=figure <= limit, figure=figure, threshold=limit, rule=rule)
