"""The gate: a model passes when every required rule says so, and in no other case.

A rule that is missing, breaks, or judges something else is a FAIL. Nothing passes by default.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from cryptoml_assets.deployment import criteria
from cryptoml_assets.deployment.options import CRITERIA
from cryptoml_assets.errors import ApprovalError
from cryptoml_serving.contract.approval import Criterion

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import timedelta

    from cryptoml_assets.models.evaluation import Claim

    Figures = Mapping[str, float]
    Rule = Callable[[Figures], Criterion]

_T = TypeVar("_T")

#: Names of the rules a verdict needs a PASS from, unless settings name fewer.
REQUIRED = CRITERIA
#: Most of a failure's own words that a verdict repeats.
_TOLD = 600


class Limits(Protocol):
    """What the rules ask for: the settings of these names, which explain each."""

    @property
    def gate_minimum_rows(self) -> int: ...  # noqa: D102
    @property
    def gate_significance(self) -> float: ...  # noqa: D102
    @property
    def gate_direction_significance(self) -> float: ...  # noqa: D102
    @property
    def gate_coverage_tolerance(self) -> float: ...  # noqa: D102
    @property
    def gate_net_floor_bps(self) -> float: ...  # noqa: D102
    @property
    def gate_suspected_leak(self) -> float: ...  # noqa: D102
    @property
    def gate_latency_budget(self) -> timedelta: ...  # noqa: D102


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


def level_of(claim: Claim, limits: Limits) -> float:
    """Largest deflated p-value that passes: each claim has a setting of its own."""
    if claim == "direction":
        return limits.gate_direction_significance
    return limits.gate_significance


def rules(claim: Claim, limits: Limits, *, trials: int) -> dict[str, Rule]:
    """The rules that figures alone decide, by name; the others are the caller's to add.

    Args:
        claim: what a model is to be better at than the base rate.
        limits: what they ask for.
        trials: what the significance is deflated by.
    """
    return {
        "minimum_rows": lambda figures: criteria.minimum_rows(
            figures["test_rows"], limits.gate_minimum_rows
        ),
        "beats_base_rate": lambda figures: criteria.beats_base_rate(
            claim, figures[criteria.SKILL[claim]]
        ),
        "significance": lambda figures: criteria.significance(
            claim, figures[criteria.P_VALUE[claim]], trials, level_of(claim, limits)
        ),
        "coverage": lambda figures: criteria.coverage(
            figures["coverage"], figures["coverage_error"], limits.gate_coverage_tolerance
        ),
        "net_result": lambda figures: criteria.net_result(
            claim, figures["net_bps"], figures["net_error_bps"], limits.gate_net_floor_bps
        ),
        "no_suspected_leak": lambda figures: criteria.no_suspected_leak(
            figures["accuracy"], limits.gate_suspected_leak
        ),
        "same_answers": lambda figures: criteria.same_answers(figures["answer_difference"]),
        "latency": lambda figures: criteria.latency(
            figures["latency_seconds"],
            int(figures["served_symbols"]),
            limits.gate_latency_budget.total_seconds(),
        ),
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
    criterion = _attempt(partial(_judged, rule, name, figures))
    return _no_verdict(name, criterion) if isinstance(criterion, str) else criterion


def _judged(rule: Rule, name: str, figures: Figures) -> Criterion:
    criterion = rule(figures)
    if criterion.name != name:
        message = f"the rule judged {criterion.name} instead"
        raise ApprovalError(message)
    return criterion


def _attempt(call: Callable[[], _T]) -> _T | str:
    """The result, or what went wrong in words."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - whatever breaks a measurement must fail the model
        return f"{type(error).__name__}: {error}"[:_TOLD]


def _no_verdict(name: str, why: str) -> Criterion:
    return Criterion(
        name=name, passed=False, figure=0.0, threshold=0.0, rule=f"no verdict, so FAIL: {why}"
    )
