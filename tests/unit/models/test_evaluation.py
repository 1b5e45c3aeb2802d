from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from cryptoml_assets.errors import TrainingDataError
from cryptoml_assets.models.evaluation import (
    CLAIM_LOSS,
    Answered,
    Baseline,
    area_under_curve,
    baseline,
    claim_skill,
    correlation,
    evaluate,
    row_scores,
)
from cryptoml_assets.models.rows import Rows
from cryptoml_assets.models.strategy import Costs

START = np.datetime64("2024-01-01T00:00", "us")
BAR = np.timedelta64(5, "m")
HOUR = np.timedelta64(1, "h")
INSTANTS, SYMBOLS = 3000, 2
COSTS = Costs(fee_bps=10.0, slippage_bps=2.0)


def rows(labels: np.ndarray) -> Rows:
    events = np.repeat(START + np.arange(INSTANTS) * BAR, SYMBOLS)
    names = np.tile(np.array([f"S{i}" for i in range(SYMBOLS)]), INSTANTS)
    return Rows(names, events, events + HOUR, np.zeros((len(events), 1), np.float32), labels)


def answers(expected: np.ndarray, width: np.ndarray, up: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "expected_return": expected.astype(np.float32),
        "lower": (expected - width / 2).astype(np.float32),
        "upper": (expected + width / 2).astype(np.float32),
        "probability_up": up.astype(np.float32),
    }


@pytest.fixture(scope="module")
def past() -> Baseline:
    return baseline(np.random.default_rng(9).standard_t(4, 20_000))


def test_answers_that_follow_the_truth_show_skill(past: Baseline) -> None:
    rng = np.random.default_rng(0)
    driver, scale = rng.normal(size=INSTANTS * SYMBOLS), np.exp(rng.normal(size=6000) * 0.5)
    labels = 0.3 * driver + scale * rng.standard_t(4, len(driver))
    known = answers(0.3 * driver, 2 * 2.13185 * scale, stats.t(4).cdf(0.3 * driver / scale))
    figures = evaluate([answered(labels, known, past)], horizon=HOUR, seed=1, costs=COSTS)
    for name in ("log_loss_skill", "brier_skill", "crps_skill", "information_coefficient", "r2"):
        assert figures[name] > 0.0, name
    for name in ("direction_p_value", "log_loss_p_value", "crps_p_value"):
        assert figures[name] < 0.01, name
    assert figures["coverage"] == pytest.approx(0.9, abs=0.02)
    assert figures["auc"] > 0.55


def test_the_base_rate_itself_shows_none(past: Baseline) -> None:
    labels = np.random.default_rng(2).standard_t(4, INSTANTS * SYMBOLS)
    constant = np.ones(len(labels))
    plain = answers(past.mean * constant, 4.2637 * constant, past.rate * constant)
    figures = evaluate([answered(labels, plain, past)], horizon=HOUR, seed=1, costs=COSTS)
    assert figures["log_loss_skill"] == pytest.approx(0.0, abs=1e-6)
    assert figures["direction_p_value"] == 1.0
    assert figures["information_coefficient"] == 0.0
    assert figures["auc"] == 0.5
    assert figures["crps_skill"] == pytest.approx(0.0, abs=0.01)


def test_the_same_seed_gives_the_same_figures(past: Baseline) -> None:
    rng = np.random.default_rng(4)
    labels = rng.normal(size=INSTANTS * SYMBOLS)
    noise = answers(
        rng.normal(size=len(labels)), np.full(len(labels), 3.0), rng.random(len(labels))
    )
    first, again, other = (
        evaluate([answered(labels, noise, past)], horizon=HOUR, seed=seed, costs=COSTS)
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first["direction_p_value"] != other["direction_p_value"]


def test_scores_are_gains_over_the_baseline(past: Baseline) -> None:
    labels = np.array([1.0, -1.0])
    sure = answers(labels, np.array([0.5, 0.5]), np.array([0.9, 0.1]))
    scores = row_scores(labels, sure, past)
    base = [-np.log(past.rate), -np.log(1 - past.rate)]
    assert scores.log_loss == pytest.approx(np.array(base) + np.log(0.9), abs=1e-6)
    assert (scores.crps > 0).all()


def answered(labels: np.ndarray, told: dict[str, np.ndarray], base: Baseline) -> Answered:
    return Answered(rows(labels), told, base)


def test_each_fold_is_held_against_its_own_past() -> None:
    """Knowing each fold's base rate is no skill, though the folds' rates differ."""
    rng, parts = np.random.default_rng(6), []
    for fold, drift in enumerate((-0.8, 0.8)):
        labels = rng.standard_t(4, (2, INSTANTS * SYMBOLS)) + drift
        base, constant = baseline(labels[0]), np.ones(INSTANTS * SYMBOLS)
        plain = answers(base.mean * constant, 5.0 * constant, base.rate * constant)
        own, later = rows(labels[1]), 2 * INSTANTS * fold * BAR
        moved = replace(own, events=own.events + later, label_times=own.label_times + later)
        parts.append(Answered(moved, plain, base))
    figures = evaluate(parts, horizon=HOUR, seed=1, costs=COSTS)
    for name in ("log_loss_skill", "brier_skill", "r2"):
        assert figures[name] == pytest.approx(0.0, abs=1e-6), name
    assert figures["direction_p_value"] == 1.0
    assert figures["accuracy"] > 0.6
    assert figures["base_rate"] == pytest.approx((parts[0].base.rate + parts[1].base.rate) / 2)


def test_pooled_figures_are_those_of_all_rows(past: Baseline) -> None:
    rng, parts = np.random.default_rng(7), []
    for count in (600, 1800):
        labels = rng.standard_t(4, count)
        told = answers(rng.normal(size=count), rng.uniform(2, 6, count), rng.random(count))
        own = rows(np.zeros(INSTANTS * SYMBOLS)).take(np.arange(INSTANTS * SYMBOLS) < count)
        shift = 600 * BAR if parts else 0 * BAR
        own = replace(
            own, labels=labels, events=own.events + shift, label_times=own.label_times + shift
        )
        parts.append(Answered(own, told, past))
    one, two, both = (
        evaluate(chosen, horizon=HOUR, seed=1, costs=COSTS)
        for chosen in (parts[:1], parts[1:], parts)
    )
    assert both["test_rows"] == 2400
    for name in ("accuracy", "log_loss", "brier", "crps", "mse", "coverage", "interval_width"):
        assert both[name] == pytest.approx(0.25 * one[name] + 0.75 * two[name]), name
    for claim, loss in CLAIM_LOSS.items():
        assert claim_skill(parts, claim) == both[f"{loss}_skill"]


def test_accuracy_lies_within_its_interval(past: Baseline) -> None:
    rng = np.random.default_rng(8)
    labels = np.repeat(rng.normal(size=INSTANTS // 12), 12 * SYMBOLS)
    told = answers(labels, np.full(len(labels), 5.0), rng.random(len(labels)))
    figures = evaluate([answered(labels, told, past)], horizon=HOUR, seed=1, costs=COSTS)
    assert 0.45 < figures["accuracy_lower"] < figures["accuracy"] < figures["accuracy_upper"] < 0.55


def test_a_few_rows_give_figures_that_claim_nothing(past: Baseline) -> None:
    few = rows(np.ones(INSTANTS * SYMBOLS)).take(np.arange(INSTANTS * SYMBOLS) < 6)
    told = answers(np.ones(6), np.ones(6), np.full(6, 0.9))
    figures = evaluate([Answered(few, told, past)], horizon=HOUR, seed=1, costs=COSTS)
    assert all(np.isfinite(value) for value in figures.values())
    assert (figures["accuracy_lower"], figures["accuracy_upper"]) == (0.0, 1.0)
    assert figures["direction_p_value"] == figures["crps_p_value"] == 1.0


def test_every_row_has_an_answer(past: Baseline) -> None:
    labels = np.ones(INSTANTS * SYMBOLS)
    told = answers(labels, labels, labels)
    with pytest.raises(ValueError, match=r"lower has shape \(5,\): .* each of 6000 rows"):
        answered(labels, told | {"lower": told["lower"][:5]}, past)
    with pytest.raises(ValueError, match="regimes has shape"):
        Answered(rows(labels), told, past, np.zeros(5, np.int8))
    with pytest.raises(ValueError, match="at least one fold"):
        evaluate([], horizon=HOUR, seed=1, costs=COSTS)


def test_area_under_curve_counts_ties_half() -> None:
    scores, up = np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, True, False, True])
    assert area_under_curve(scores, up) == pytest.approx(3.5 / 4)
    assert area_under_curve(scores, np.ones(4, bool)) == 0.5


def test_correlation_of_a_constant_is_zero() -> None:
    assert correlation(np.ones(5), np.arange(5.0)) == 0.0
    assert correlation(np.arange(5.0), 2 * np.arange(5.0)) == pytest.approx(1.0)


@pytest.mark.parametrize("labels", [[], [0.1, 0.2], [-0.1]])
def test_one_sided_pasts_have_no_base_rate(labels: list[float]) -> None:
    with pytest.raises(TrainingDataError):
        baseline(np.array(labels))
