from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryptoml_assets.deployment import criteria
from cryptoml_assets.deployment.gate import REQUIRED, Verdict, judge, rules
from cryptoml_assets.deployment.options import CRITERIA
from cryptoml_serving.contract.approval import Criterion

GOOD = {
    "test_rows": 5000.0,
    "log_loss_skill": 0.01,
    "direction_p_value": 0.002,
    "crps_skill": 0.05,
    "crps_p_value": 0.002,
    "coverage": 0.91,
    "coverage_error": 0.0,
    "net_bps": 3.0,
    "net_error_bps": 1.0,
    "accuracy": 0.55,
    "answer_difference": 1e-7,
    "latency_seconds": 0.001,
    "served_symbols": 5.0,
}
#: Figures that a model of direction is not judged by.
UNUSED = {"crps_skill", "crps_p_value"}


@dataclass(frozen=True)
class Limits:
    gate_minimum_rows: int = 1000
    gate_significance: float = 0.05
    gate_direction_significance: float = 0.025
    gate_coverage_tolerance: float = 0.05
    gate_net_floor_bps: float = 0.0
    gate_suspected_leak: float = 0.65
    gate_latency_budget: timedelta = timedelta(milliseconds=50)


def passing(name: str) -> Criterion:
    return Criterion(name=name, passed=True, figure=1.0, threshold=0.0, rule="always")


def rules_of(claim: criteria.Claim, trials: int = 4) -> dict:
    """Every rule; those of more than figures pass."""
    others = ("no_worse_than_champion", "parity", "no_look_ahead", "not_withdrawn")
    return rules(claim, Limits(), trials=trials) | {
        name: lambda _, name=name: passing(name) for name in others
    }


RULES = rules_of("direction")


def failed(verdict: Verdict) -> set[str]:
    return {criterion.name for criterion in verdict.criteria if not criterion.passed}


@pytest.mark.parametrize("claim", ["direction", "distribution"])
def test_a_model_that_meets_every_rule_is_approved(claim: criteria.Claim) -> None:
    verdict = judge(lambda: GOOD, rules_of(claim))
    assert verdict.approved
    assert tuple(criterion.name for criterion in verdict.criteria) == REQUIRED == CRITERIA
    assert verdict.failures == ()


@pytest.mark.parametrize(
    ("figure", "value", "rule"),
    [
        ("test_rows", 999.0, "minimum_rows"),
        ("log_loss_skill", 0.0, "beats_base_rate"),
        ("log_loss_skill", -0.1, "beats_base_rate"),
        # Enough alone, too much among four.
        ("direction_p_value", 0.0064, "significance"),
        ("direction_p_value", 0.0, "significance"),
        ("direction_p_value", -0.1, "significance"),
        ("coverage", 0.84, "coverage"),
        ("coverage", 0.96, "coverage"),
        ("net_bps", -1.29, "net_result"),
        ("accuracy", 0.66, "no_suspected_leak"),
        ("accuracy", -0.1, "no_suspected_leak"),
        ("answer_difference", 2e-6, "same_answers"),
        ("answer_difference", -1.0, "same_answers"),
        ("latency_seconds", 0.051, "latency"),
        ("latency_seconds", 0.0, "latency"),
        ("served_symbols", 0.0, "latency"),
    ],
)
def test_one_bad_figure_rejects_by_the_rule_it_breaks(figure: str, value: float, rule: str) -> None:
    verdict = judge(lambda: {**GOOD, figure: value}, RULES)
    assert not verdict.approved
    assert failed(verdict) == {rule}
    assert verdict.failures[0].startswith(f"{rule}: ")


@pytest.mark.parametrize(
    ("claim", "figure", "largest"),
    [("direction", "direction_p_value", 0.025), ("distribution", "crps_p_value", 0.05)],
)
def test_each_claim_has_a_level_of_its_own_and_the_rule_tells_it(
    claim: criteria.Claim, figure: str, largest: float
) -> None:
    for p_value, passes in ((largest, True), (largest * 1.01, False)):
        judged = rules(claim, Limits(), trials=1)["significance"]({**GOOD, figure: p_value})
        assert (judged.passed, judged.threshold) == (passes, largest)
        assert f"p-value of the {claim} skill at most {largest:g}," in judged.rule


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


@pytest.mark.parametrize(
    "rule",
    [
        lambda _: passing("other"),
        lambda figures: figures["absent"],
        lambda _: None,
        lambda _: "a reason",
        lambda _: passing("coverage").model_copy(update={"passed": False}),
    ],
    ids=["another rule", "an error", "nothing", "words", "a failure"],
)
def test_a_rule_that_does_not_answer_with_its_own_pass_rejects(rule: object) -> None:
    assert failed(judge(lambda: GOOD, {**RULES, "coverage": rule})) == {"coverage"}


def test_nothing_required_approves_nothing() -> None:
    assert not judge(lambda: GOOD, RULES, required=()).approved


def test_each_claim_is_judged_by_its_own_skill() -> None:
    direction_only = {**GOOD, "crps_skill": -1.0, "crps_p_value": 1.0}
    assert judge(lambda: direction_only, RULES).approved
    verdict = judge(lambda: direction_only, rules_of("distribution"))
    assert failed(verdict) == {"beats_base_rate", "significance"}


#: What may become of a figure: it is not there, is no number, or is none that passes.
RUINS = (None, math.nan, math.inf, -math.inf)
NAMES = tuple(name for name in GOOD if name not in UNUSED)


@given(
    figures=st.dictionaries(st.sampled_from(NAMES), st.sampled_from(RUINS)),
    gone=st.sets(st.sampled_from(REQUIRED)),
    broken=st.sets(st.sampled_from(REQUIRED)),
    failing=st.sets(st.sampled_from(REQUIRED)),
)
def test_nothing_missing_broken_or_failed_is_ever_approved(
    figures: dict[str, float | None], gone: set[str], broken: set[str], failing: set[str]
) -> None:
    def breaks(_: object) -> Criterion:
        raise RuntimeError

    def fails(name: str) -> Criterion:
        return passing(name).model_copy(update={"passed": False})

    measured = {name: figures.get(name, value) for name, value in GOOD.items()}
    measured = {name: value for name, value in measured.items() if value is not None}
    available = dict(RULES)
    available |= {name: lambda _, name=name: fails(name) for name in failing}
    available |= dict.fromkeys(broken, breaks)
    available = {name: rule for name, rule in available.items() if name not in gone}
    verdict = judge(lambda: measured, available)
    assert verdict.approved == (not (figures or gone or broken or failing))
    assert (gone | broken | failing) <= failed(verdict)
    assert [criterion.name for criterion in verdict.criteria] == list(REQUIRED)
