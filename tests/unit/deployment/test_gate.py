from __future__ import annotations

import math

import pytest

from cryptoml_assets.deployment import criteria
from cryptoml_assets.deployment.gate import REQUIRED, Verdict, judge, rules
from cryptoml_serving.contract.approval import Criterion

GOOD = {
    "test_rows": 5000.0,
    "log_loss_skill": 0.01,
    "direction_p_value": 0.01,
    "crps_skill": 0.05,
    "crps_p_value": 0.01,
    "coverage": 0.91,
    "coverage_error": 0.0,
    "accuracy": 0.55,
    "answer_difference": 1e-7,
}
LIMITS = {
    "least_rows": 1000,
    "largest_p_value": 0.05,
    "coverage_tolerance": 0.05,
    "leak_accuracy": 0.65,
}
RULES = rules("direction", **LIMITS)


def failed(verdict: Verdict) -> set[str]:
    return {criterion.name for criterion in verdict.criteria if not criterion.passed}


@pytest.mark.parametrize("claim", ["direction", "distribution"])
def test_a_model_that_meets_every_rule_is_approved(claim: criteria.Claim) -> None:
    verdict = judge(lambda: GOOD, rules(claim, **LIMITS))
    assert verdict.approved
    assert tuple(criterion.name for criterion in verdict.criteria) == REQUIRED
    assert verdict.failures == ()


@pytest.mark.parametrize(
    ("figure", "value", "rule"),
    [
        ("test_rows", 999.0, "minimum_rows"),
        ("log_loss_skill", 0.0, "beats_base_rate"),
        ("log_loss_skill", -0.1, "beats_base_rate"),
        ("direction_p_value", 0.051, "significance"),
        ("coverage", 0.84, "coverage"),
        ("coverage", 0.96, "coverage"),
        ("accuracy", 0.66, "no_suspected_leak"),
        ("answer_difference", 2e-6, "same_answers"),
    ],
)
def test_one_bad_figure_rejects_by_the_rule_it_breaks(figure: str, value: float, rule: str) -> None:
    verdict = judge(lambda: {**GOOD, figure: value}, RULES)
    assert not verdict.approved
    assert failed(verdict) == {rule}
    assert verdict.failures[0].startswith(f"{rule}: ")


@pytest.mark.parametrize(
    ("share", "error", "passed"),
    [
        (0.96, 0.006, True),  # a short sample of calm days
        (0.96, 0.004, False),
        (0.84, 0.006, True),
        (0.99, 0.03, True),
        (0.79, 1.0, False),  # what is allowed for is bounded
    ],
)
def test_coverage_allows_for_its_sampling_error(share: float, error: float, passed: bool) -> None:
    verdict = judge(lambda: {**GOOD, "coverage": share, "coverage_error": error}, RULES)
    assert verdict.approved is passed


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
def test_a_figure_that_is_missing_or_no_number_never_passes(name: str, value: float | None) -> None:
    """An infinity may satisfy a comparison; it is still no measurement."""
    figures = {key: number for key, number in GOOD.items() if key != name}
    if value is not None:
        figures[name] = value
    used = {"crps_skill", "crps_p_value"}
    assert judge(lambda: figures, RULES).approved is (name in used)


@pytest.mark.parametrize("missing", REQUIRED)
def test_a_missing_rule_rejects(missing: str) -> None:
    present = {name: rule for name, rule in RULES.items() if name != missing}
    verdict = judge(lambda: GOOD, present)
    assert failed(verdict) == {missing}


def test_measurements_that_fail_reject_by_every_rule_and_say_why() -> None:
    def broken() -> dict[str, float]:
        message = "no such file"
        raise OSError(message)

    verdict = judge(broken, RULES)
    assert failed(verdict) == set(REQUIRED)
    assert all("OSError: no such file" in reason for reason in verdict.failures)


def test_a_rule_that_breaks_or_judges_something_else_rejects() -> None:
    other = Criterion(name="other", passed=True, figure=1.0, threshold=0.0, rule="always")
    verdict = judge(lambda: GOOD, {**RULES, "coverage": lambda _: other})
    assert failed(verdict) == {"coverage"}
    verdict = judge(lambda: GOOD, {**RULES, "coverage": lambda figures: figures["absent"]})
    assert failed(verdict) == {"coverage"}


def test_nothing_required_approves_nothing() -> None:
    assert not judge(lambda: GOOD, RULES, required=()).approved


def test_each_claim_is_judged_by_its_own_skill() -> None:
    direction_only = {**GOOD, "crps_skill": -1.0, "crps_p_value": 1.0}
    assert judge(lambda: direction_only, RULES).approved
    verdict = judge(lambda: direction_only, rules("distribution", **LIMITS))
    assert failed(verdict) == {"beats_base_rate", "significance"}
