"""Each rule at its boundary, and with what is no figure."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from cryptoml_assets.deployment import criteria
from cryptoml_assets.deployment.trials import overlapping_verdicts, searched, trials_of
from cryptoml_assets.errors import ApprovalError
from cryptoml_serving.contract.approval import Criterion

DAY = timedelta(days=1)
START = datetime(2024, 3, 1, tzinfo=UTC)
CHAMPION = {"rows": 900, "margin": 0.002}
ABOVE, BELOW = math.inf, -math.inf


def next_to(value: float, towards: float) -> float:
    return math.nextafter(value, towards)


@pytest.mark.parametrize(
    ("criterion", "passed"),
    [
        (criteria.minimum_rows(1000, 1000), True),
        (criteria.minimum_rows(999, 1000), False),
        (criteria.beats_base_rate("direction", 0.0), False),
        (criteria.beats_base_rate("direction", next_to(0.0, ABOVE)), True),
        (criteria.significance("direction", 0.05, 1, 0.05), True),
        (criteria.significance("direction", 0.0127, 4, 0.05), True),
        (criteria.significance("direction", 0.0128, 4, 0.05), False),
        (criteria.significance("direction", 1.0, 1, 0.999), False),
        (criteria.no_worse_than_champion("3", 0.002, 0.5, **CHAMPION), True),
        (criteria.no_worse_than_champion("3", next_to(0.002, ABOVE), 0.5, **CHAMPION), False),
        (criteria.no_worse_than_champion("3", -0.5, 0.01, **CHAMPION), True),
        (criteria.no_comparable_champion("there is none", 0.002), True),
        (criteria.net_result("direction", 0.0, 0.0, 0.0), True),
        (criteria.net_result("direction", next_to(0.0, BELOW), 0.0, 0.0), False),
        (criteria.net_result("direction", -1.28, 1.0, 0.0), True),
        (criteria.net_result("direction", next_to(-1.28, BELOW), 1.0, 0.0), False),
        (criteria.net_result("direction", 0.71, 1.0, 2.0), False),
        (criteria.net_result("distribution", -2.0, 1.0, 0.0), True),
        (criteria.net_result("distribution", next_to(-2.0, BELOW), 1.0, 0.0), False),
        (criteria.net_result("distribution", -0.1, 0.0, 0.0), False),
        (criteria.parity(1, [], "proofs"), True),
        (criteria.parity(10**9, ["rsi of X"], "proofs"), False),
        (criteria.no_look_ahead(1, [], "proofs"), True),
        (criteria.no_look_ahead(5, ["rsi of X"], "proofs"), False),
        (criteria.no_suspected_leak(0.65, 0.65), True),
        (criteria.no_suspected_leak(next_to(0.65, ABOVE), 0.65), False),
        (criteria.same_answers(1e-6), True),
        (criteria.same_answers(next_to(1e-6, ABOVE)), False),
        (criteria.latency(0.05, 5, 0.05), True),
        (criteria.latency(next_to(0.05, ABOVE), 5, 0.05), False),
        (criteria.not_withdrawn("7", frozenset({"1", "17"})), True),
        (criteria.not_withdrawn("7", frozenset({"1", "7"})), False),
    ],
    ids=lambda value: value.name if isinstance(value, Criterion) else None,
)
def test_a_rule_passes_up_to_its_boundary_and_says_so_in_words(
    criterion: Criterion, passed: bool
) -> None:
    assert criterion.passed is passed
    assert len(criterion.rule) > 10 or criterion.rule == "there is none"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "judge",
    [
        lambda bad: criteria.minimum_rows(bad, 10),
        lambda bad: criteria.beats_base_rate("direction", bad),
        lambda bad: criteria.significance("direction", bad, 4, 0.05),
        lambda bad: criteria.no_worse_than_champion("1", bad, 0.5, **CHAMPION),
        lambda bad: criteria.no_worse_than_champion("1", 0.0, bad, **CHAMPION),
        lambda bad: criteria.coverage(bad, 0.0, 0.05),
        lambda bad: criteria.net_result("direction", bad, 1.0, 0.0),
        lambda bad: criteria.net_result("distribution", 1.0, bad, 0.0),
        lambda bad: criteria.no_suspected_leak(bad, 0.65),
        criteria.same_answers,
        lambda bad: criteria.latency(bad, 5, 0.05),
    ],
)
def test_what_is_no_number_is_no_figure(judge: object, bad: float) -> None:
    with pytest.raises((ValueError, ValidationError)):
        judge(bad)


@pytest.mark.parametrize(
    "judge",
    [
        lambda: criteria.deflated(0.0, 4),
        lambda: criteria.deflated(1.1, 4),
        lambda: criteria.deflated(0.01, 0),
        lambda: criteria.no_worse_than_champion("1", 0.0, 0.5, rows=0, margin=0.1),
        lambda: criteria.coverage(0.9, math.nan, 0.05),
        lambda: criteria.coverage(0.9, -0.1, 0.05),
        lambda: criteria.net_result("distribution", 1.0, -1.0, 0.0),
        lambda: criteria.parity(0, [], "nothing"),
        lambda: criteria.no_look_ahead(0, [], "nothing"),
        lambda: criteria.no_suspected_leak(1.1, 0.65),
        lambda: criteria.same_answers(-1e-9),
        lambda: criteria.latency(0.0, 5, 0.05),
        lambda: criteria.latency(0.1, 0, 0.05),
    ],
)
def test_what_no_measurement_gives_is_refused(judge: object) -> None:
    with pytest.raises(ValueError, match=r"=|nothing was compared"):
        judge()


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
    assert criteria.coverage(share, error, 0.05).passed is passed


def test_deflation_is_the_chance_of_the_best_of_so_many() -> None:
    assert criteria.deflated(0.05, 1) == pytest.approx(0.05)
    assert criteria.deflated(0.05, 4) == pytest.approx(1 - 0.95**4)
    assert criteria.deflated(1e-9, 3) == pytest.approx(3e-9)
    assert criteria.deflated(1.0, 9) == 1.0


def test_differences_are_named_and_not_all_of_them() -> None:
    rule = criteria.parity(10, [f"place {number}" for number in range(9)], "by Feast").rule
    assert "by Feast" in rule
    assert "place 0; place 1; place 2" in rule
    assert "place 3" not in rule


def test_trials_are_the_searched_configurations_of_what_can_be_served_and_earlier_verdicts() -> (
    None
):
    assert trials_of({"linear": 1, "mlp": 1}) == 2
    assert trials_of({"linear": 3, "mlp": 8}, earlier=7) == 18
    for wrong in ({}, {"linear": 1, "mlp": 0}):
        with pytest.raises(ValueError, match="at least"):
            trials_of(wrong)
    with pytest.raises(ValueError, match="at least"):
        trials_of({"linear": 1}, earlier=-1)


COMPARISON = pl.DataFrame(
    {
        "family": ["linear", "mlp", "lightgbm"],
        "served": [True, True, False],
        "run_id": ["one", "other", None],
    }
)


def runs(**searched: dict[str, str]) -> Any:
    """The tracker, as far as it tells the parameters of runs."""
    return SimpleNamespace(
        get_run=lambda run: SimpleNamespace(data=SimpleNamespace(params=searched[run]))
    )


def test_what_was_searched_is_what_each_run_says() -> None:
    client = runs(one={"search_trials": "8"}, other={"search_trials": "3"})
    assert searched(client, COMPARISON) == {"linear": 8, "mlp": 3}


@pytest.mark.parametrize("said", [{}, {"search_trials": "0"}, {"search_trials": "many"}])
def test_a_search_that_is_not_known_is_no_search_of_one(said: dict[str, str]) -> None:
    client = runs(one={"search_trials": "8"}, other=said)
    with pytest.raises(ApprovalError, match=r"run of mlp does not say .* candidate_models again"):
        searched(client, COMPARISON)
    gone = COMPARISON.with_columns(run_id=pl.lit(None, pl.String))
    with pytest.raises(ApprovalError, match="run of linear does not say"):
        searched(client, gone)


def test_only_other_versions_on_rows_of_the_same_window_count_and_each_once() -> None:
    def windows(*given: tuple[str, int | None, int | None]) -> pl.DataFrame:
        at = [None if day is None else START + day * DAY for _, *both in given for day in both]
        return pl.DataFrame(
            {
                "model_version": [version for version, *_ in given],
                "test_start": pl.Series(at[::2], dtype=pl.Datetime("us", "UTC")),
                "test_end": pl.Series(at[1::2], dtype=pl.Datetime("us", "UTC")),
            }
        )

    def counted(*given: tuple[str, int | None, int | None]) -> int:
        return overlapping_verdicts(
            windows(*given), model_version="9", start=START, end=START + 10 * DAY
        )

    assert counted() == 0
    assert counted(("9", 0, 10)) == 0  # itself, judged again
    assert counted(("1", -9, -1), ("2", 11, 20)) == 0
    assert counted(("1", -9, 0), ("2", 10, 20), ("3", 3, 4), ("4", -9, 30)) == 4
    assert counted(("1", 1, 2), ("1", 2, 3)) == 1
    assert counted(("1", None, None), ("2", 1, 2)) == 1
