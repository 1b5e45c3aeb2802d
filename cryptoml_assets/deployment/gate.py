"""The gate: a model passes when every required rule says so, and in no other case.

A rule that is missing, breaks, or judges something else is a FAIL. Nothing passes by default.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from cryptoml_assets.deployment import criteria
from cryptoml_serving.contract.approval import Criterion

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cryptoml_assets.models.evaluation import Claim

    Figures = Mapping[str, float]
    Rule = Callable[[Figures], Criterion]

_T = TypeVar("_T")

#: Names of the rules a verdict needs a PASS from.
REQUIRED = (
    "minimum_rows",
    "beats_base_rate",
    "significance",
    "coverage",
    "no_suspected_leak",
    "same_answers",
)


@dataclass(frozen=True)
class Verdict:
    """What the gate decided, and on what.

    Attributes:
        criteria: one per required rule, in their order.
    """

    criteria: tuple[Criterion, ...]

    @property
    def approved(self) -> bool:
        """Whether there are criteria and every one of them passed."""
        return bool(self.criteria) and all(criterion.passed for criterion in self.criteria)

    @property
    def failures(self) -> tuple[str, ...]:
        """Each failed rule in words, with its figure."""
        return tuple(
            f"{criterion.name}: {criterion.figure:.6g} ({criterion.rule})"
            for criterion in self.criteria
            if not criterion.passed
        )


def rules(
    claim: Claim,
    *,
    least_rows: int,
    largest_p_value: float,
    coverage_tolerance: float,
    leak_accuracy: float,
) -> dict[str, Rule]:
    """The rules for one claim, by name, as functions of the measured figures."""
    return {
        "minimum_rows": lambda figures: criteria.minimum_rows(figures["test_rows"], least_rows),
        "beats_base_rate": lambda figures: criteria.beats_base_rate(
            claim, figures[criteria.SKILL[claim]]
        ),
        "significance": lambda figures: criteria.significance(
            claim, figures[criteria.P_VALUE[claim]], largest_p_value
        ),
        "coverage": lambda figures: criteria.coverage(
            figures["coverage"], figures["coverage_error"], coverage_tolerance
        ),
        "no_suspected_leak": lambda figures: criteria.no_suspected_leak(
            figures["accuracy"], leak_accuracy
        ),
        "same_answers": lambda figures: criteria.same_answers(figures["answer_difference"]),
    }


def judge(
    measure: Callable[[], Figures],
    available: Mapping[str, Rule],
    required: Sequence[str] = REQUIRED,
) -> Verdict:
    """Hold measured figures against every required rule.

    Args:
        measure: takes the measurements; failing is a FAIL of every rule.
        available: rules by name.
        required: names of the rules that must pass, of which there must be one.
    """
    figures = _attempt(measure)
    if isinstance(figures, str):
        return Verdict(tuple(_no_verdict(name, figures) for name in required))
    return Verdict(tuple(_apply(name, available.get(name), figures) for name in required))


def _apply(name: str, rule: Rule | None, figures: Figures) -> Criterion:
    if rule is None:
        return _no_verdict(name, "there is no such rule")
    criterion = _attempt(partial(rule, figures))
    if isinstance(criterion, str):
        return _no_verdict(name, criterion)
    if criterion.name != name:
        return _no_verdict(name, f"the rule judged {criterion.name} instead")
    return criterion


def _attempt(call: Callable[[], _T]) -> _T | str:
    """The result, or what went wrong in words."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - whatever breaks a measurement must fail the model
        return f"{type(error).__name__}: {error}"


def _no_verdict(name: str, why: str) -> Criterion:
    return Criterion(
        name=name, passed=False, figure=0.0, threshold=0.0, rule=f"no verdict, so FAIL: {why}"
    )
