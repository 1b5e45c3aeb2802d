from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from cryptoml_assets.errors import TrainingDataError
from cryptoml_assets.models.evaluation import (
    Baseline,
    area_under_curve,
    baseline,
    bootstrap_p_value,
    correlation,
    evaluate,
    row_scores,
)
from cryptoml_assets.models.rows import Rows

START = np.datetime64("2024-01-01T00:00", "us")
BAR = np.timedelta64(5, "m")
HOUR = np.timedelta64(1, "h")
INSTANTS, SYMBOLS = 3000, 2


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
    figures = evaluate(rows(labels), known, past, horizon=HOUR, seed=1)
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
    figures = evaluate(rows(labels), plain, past, horizon=HOUR, seed=1)
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
        evaluate(rows(labels), noise, past, horizon=HOUR, seed=seed) for seed in (1, 1, 2)
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


def test_overlapping_gains_are_not_counted_as_independent() -> None:
    """The bootstrap's false alarms stay near its level where a naive test's do not."""
    events = START + np.arange(2000) * BAR
    alarms, naive = 0, 0
    for seed in range(60):
        noise = np.random.default_rng(seed).normal(size=2011)
        gains = np.convolve(noise, np.ones(12) / 12, mode="valid")
        alarms += bootstrap_p_value(events, gains, 2 * HOUR, seed, draws=300) <= 0.05
        naive += gains.mean() / gains.std() * np.sqrt(len(gains)) > 1.645
    assert alarms <= 9
    assert naive >= 15


def test_symbols_that_move_together_are_drawn_together() -> None:
    events = START + np.arange(1000) * BAR
    gains = np.random.default_rng(5).normal(0.02, 1.0, 1000)
    alone = bootstrap_p_value(events, gains, 2 * HOUR, 1)
    copies = bootstrap_p_value(np.repeat(events, 10), np.repeat(gains, 10), 2 * HOUR, 1)
    assert copies == alone


@pytest.mark.parametrize(("count", "gain"), [(10, 1.0), (1, 1.0), (500, 0.0)])
def test_too_short_or_empty_samples_prove_nothing(count: int, gain: float) -> None:
    events = START + np.arange(count) * BAR
    assert bootstrap_p_value(events, np.full(count, gain), 2 * HOUR, 1) == 1.0


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
