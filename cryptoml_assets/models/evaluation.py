"""Out-of-sample figures of a bundle's four outputs against base rates known before the test.

Labels overlap in time and symbols move together, so no figure's significance may count rows. Every
p-value comes from a moving-block bootstrap that draws blocks of consecutive instants with all their
symbols, blocks at least twice as long as the horizon.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cryptoml_assets.errors import TrainingDataError
from cryptoml_assets.models import student

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from cryptoml_assets.models.rows import Rows

_DRAWS = 2000
_CLIP = 1e-6
_DAY = np.timedelta64(1, "D")


@dataclass(frozen=True)
class Baseline:
    """What is known before the test part without any feature.

    Attributes:
        labels: every training label, log return.
        rate: share of them above zero.
        mean: their mean.
    """

    labels: NDArray[np.float64]
    rate: float
    mean: float


@dataclass(frozen=True)
class RowScores:
    """Gain of each row over the baseline, shape (n,); above zero is better than the baseline.

    Attributes:
        log_loss: of the probability of an up move, nats.
        brier: of the same.
        crps: of the predicted distribution, log return.
    """

    log_loss: NDArray[np.float64]
    brier: NDArray[np.float64]
    crps: NDArray[np.float64]


def baseline(labels: NDArray[np.float64]) -> Baseline:
    """The base rates of training labels.

    Raises:
        TrainingDataError: no labels, or all of one sign.
    """
    rate = float((labels > 0).mean()) if len(labels) else 0.0
    if rate in (0.0, 1.0):
        message = f"{len(labels)} training labels, {rate:.0%} of them up: no base rate to beat"
        raise TrainingDataError(message)
    return Baseline(labels, rate, float(labels.mean()))


def row_scores(
    labels: NDArray[np.float64], answers: Mapping[str, NDArray[np.float32]], base: Baseline
) -> RowScores:
    """Score each row's answer and the baseline's, and take the difference."""
    up = labels > 0
    probability = _probability(answers)
    location, scale = _distribution(answers)
    model_crps = student.crps(labels, location, scale)
    return RowScores(
        log_loss=_log_loss(np.full(len(up), base.rate), up) - _log_loss(probability, up),
        brier=(base.rate - up) ** 2 - (probability - up) ** 2,
        crps=student.empirical_crps(labels, base.labels) - model_crps,
    )


def evaluate(
    rows: Rows,
    answers: Mapping[str, NDArray[np.float32]],
    base: Baseline,
    *,
    horizon: np.timedelta64,
    seed: int,
) -> dict[str, float]:
    """Every figure of an out-of-sample part.

    Args:
        rows: the part, in order of time.
        answers: the bundle's outputs for its rows, each of shape (n,).
        base: what was known before.
        horizon: reach of a label.
        seed: of the bootstrap.

    Returns:
        Figures by name. ``*_skill`` is the share of the baseline's loss that the model saves;
        ``*_p_value`` is one-sided, small where the gain is unlikely to be luck.
    """
    scores = row_scores(rows.labels, answers, base)
    return {
        "test_rows": float(len(rows)),
        **_direction_figures(rows.labels > 0, _probability(answers), scores, base),
        **_return_figures(rows.labels, answers, scores, base),
        **_p_values(rows, _probability(answers), scores, horizon, seed),
        "coverage_error": _coverage_error(rows, answers, horizon, seed),
    }


def _direction_figures(
    up: NDArray[np.bool_], probability: NDArray[np.float64], scores: RowScores, base: Baseline
) -> dict[str, float]:
    log_loss, brier = _log_loss(probability, up), (probability - up) ** 2
    return {
        "base_rate": base.rate,
        "up_share": float(up.mean()),
        "accuracy": float(((probability > 0.5) == up).mean()),  # noqa: PLR2004 - even odds
        "auc": area_under_curve(probability, up),
        "log_loss": float(log_loss.mean()),
        "log_loss_skill": _skill(scores.log_loss, log_loss),
        "brier": float(brier.mean()),
        "brier_skill": _skill(scores.brier, brier),
    }


def _return_figures(
    labels: NDArray[np.float64],
    answers: Mapping[str, NDArray[np.float32]],
    scores: RowScores,
    base: Baseline,
) -> dict[str, float]:
    expected, lower, upper = (
        np.asarray(answers[name], np.float64) for name in ("expected_return", "lower", "upper")
    )
    errors, base_errors = (labels - expected) ** 2, (labels - base.mean) ** 2
    crps = student.crps(labels, *_distribution(answers))
    return {
        "information_coefficient": correlation(expected, labels),
        "mse": float(errors.mean()),
        "r2": 1.0 - float(errors.sum() / base_errors.sum()),
        "crps": float(crps.mean()),
        "crps_skill": _skill(scores.crps, crps),
        "coverage": float(_covered(labels, answers).mean()),
        "interval_width": float((upper - lower).mean()),
    }


def _p_values(
    rows: Rows,
    probability: NDArray[np.float64],
    scores: RowScores,
    horizon: np.timedelta64,
    seed: int,
) -> dict[str, float]:
    # A demeaned product gains nothing from a market that drifts the way the model leans.
    lean = _deviation(probability) * _deviation((rows.labels > 0).astype(np.float64))
    overlap, regime = 2 * horizon, _regime(horizon)
    return {
        "direction_p_value": bootstrap_p_value(rows.events, lean, overlap, seed),
        "log_loss_p_value": bootstrap_p_value(rows.events, scores.log_loss, overlap, seed),
        "crps_p_value": bootstrap_p_value(rows.events, scores.crps, regime, seed),
    }


def _coverage_error(
    rows: Rows, answers: Mapping[str, NDArray[np.float32]], horizon: np.timedelta64, seed: int
) -> float:
    """Standard error of the coverage; 0, which allows nothing, where the sample cannot tell."""
    means = bootstrap_means(rows.events, _covered(rows.labels, answers), _regime(horizon), seed)
    return 0.0 if means is None else float(means.std())


def _covered(
    labels: NDArray[np.float64], answers: Mapping[str, NDArray[np.float32]]
) -> NDArray[np.float64]:
    """1 for each row whose label lies in its interval, else 0."""
    return ((labels >= answers["lower"]) & (labels <= answers["upper"])).astype(np.float64)


def _regime(horizon: np.timedelta64) -> np.timedelta64:
    """Block length that spans calm and wild days, which alternate slower than labels overlap."""
    return max(2 * horizon, _DAY)


def bootstrap_p_value(
    events: NDArray[np.datetime64],
    gains: NDArray[np.float64],
    block: np.timedelta64,
    seed: int,
    draws: int = _DRAWS,
) -> float:
    """One-sided p-value of "the mean gain is not above zero".

    Args:
        events: shape (n,), the instant of each row.
        gains: shape (n,).
        block: time a block spans.
        seed: of the draws.
        draws: how many.

    Returns:
        Between ``1 / (draws + 1)`` and 1; 1 where no row gains or loses anything, and where the
        sample is shorter than two blocks, which is too short to tell.
    """
    drawn = bootstrap_means(events, gains, block, seed, draws)
    if drawn is None or not gains.any():
        return 1.0
    # Centred on the draws' own mean: blocks underweight the sample's ends.
    at_least = int((drawn - drawn.mean() >= gains.mean()).sum())
    return (at_least + 1) / (draws + 1)


def bootstrap_means(
    events: NDArray[np.datetime64],
    values: NDArray[np.float64],
    block: np.timedelta64,
    seed: int,
    draws: int = _DRAWS,
) -> NDArray[np.float64] | None:
    """Means of redrawn samples, shape (draws,), or none where there are fewer than two blocks.

    Moving-block bootstrap of Künsch (1989) over instants: each draw strings together blocks of
    consecutive instants, all symbols with them, until it is as long as the sample.
    """
    instants, position = np.unique(events, return_inverse=True)
    sums = np.asarray(np.bincount(position, values), np.float64)
    counts = np.asarray(np.bincount(position), np.float64)
    step = np.median(np.diff(instants)) if len(instants) > 1 else block
    length = max(1, int(np.ceil(block / step)))
    blocks = -(-len(instants) // length)
    if blocks < 2:  # noqa: PLR2004 - fewer than two blocks
        return None
    block_sums, block_counts = (_window_sums(part, length) for part in (sums, counts))
    starts = np.random.default_rng(seed).integers(0, len(block_sums), (draws, blocks))
    means: NDArray[np.float64] = block_sums[starts].sum(axis=1) / block_counts[starts].sum(axis=1)
    return means


def area_under_curve(scores: NDArray[np.float64], up: NDArray[np.bool_]) -> float:
    """Probability that a row that went up scores above one that did not; ties count half."""
    positives = int(up.sum())
    negatives = len(up) - positives
    if positives == 0 or negatives == 0:
        return 0.5
    _, position, counts = np.unique(scores, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2
    rank_sum = float(mean_rank[position][up].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def correlation(left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    """Pearson correlation; 0 where either side does not vary."""
    if np.ptp(left) == 0.0 or np.ptp(right) == 0.0:
        return 0.0
    return float(np.corrcoef(left, right)[0, 1])


def _deviation(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance from the mean; exactly 0 where nothing varies, which a mean's rounding is not."""
    return values - values.mean() if np.ptp(values) > 0.0 else np.zeros_like(values)


def _probability(answers: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float64]:
    return np.asarray(answers["probability_up"], np.float64)


def _distribution(
    answers: Mapping[str, NDArray[np.float32]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The distribution an answer stands for: a Student t whose central 90 % is the interval."""
    lower, upper = (np.asarray(answers[name], np.float64) for name in ("lower", "upper"))
    location = np.asarray(answers["expected_return"], np.float64)
    return location, (upper - lower) / (2 * student.QUANTILE_95)


def _log_loss(probability: NDArray[np.float64], up: NDArray[np.bool_]) -> NDArray[np.float64]:
    clipped = np.clip(probability, _CLIP, 1 - _CLIP)
    loss: NDArray[np.float64] = -np.log(np.where(up, clipped, 1 - clipped))
    return loss


def _skill(gains: NDArray[np.float64], losses: NDArray[np.float64]) -> float:
    """Share of the baseline's loss saved: baseline loss = model loss + gain."""
    return float(gains.sum() / (losses.sum() + gains.sum()))


def _window_sums(values: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """Sum of every run of ``length`` consecutive values, shape (n - length + 1,)."""
    totals = np.concatenate(([0.0], np.cumsum(values)))
    sums: NDArray[np.float64] = totals[length:] - totals[:-length]
    return sums
