"""Out-of-sample figures of a bundle's four outputs against base rates known before the test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from cryptoml_assets.errors import TrainingDataError
from cryptoml_assets.models import student
from cryptoml_assets.models.significance import (
    DRAWS,
    bootstrap_interval,
    bootstrap_means,
    bootstrap_p_value,
    overlap_block,
    regime_block,
)
from cryptoml_assets.models.strategy import trade

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from cryptoml_assets.models.rows import Rows
    from cryptoml_assets.models.strategy import Costs

#: What a model can claim to tell better than the past's frequencies do.
Claim = Literal["direction", "distribution"]
#: Claim → the loss that measures it, an attribute of `RowScores`; its figure ends in ``_skill``.
CLAIM_LOSS: dict[Claim, str] = {"direction": "log_loss", "distribution": "crps"}
_CLIP = 1e-6


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
class Answered:
    """One fold's out-of-sample rows and a model's answers to them.

    Attributes:
        rows: in order of time.
        answers: the bundle's outputs for them, each of shape (n,).
        base: what was known before the fold.
        regimes: shape (n,), int8, how calm the market was at each row, as `coverage.regimes` gives
            it; none where nobody asked.
    """

    rows: Rows
    answers: Mapping[str, NDArray[np.float32]]
    base: Baseline
    regimes: NDArray[np.int8] | None = None

    def __post_init__(self) -> None:
        given = dict(self.answers) | ({} if self.regimes is None else {"regimes": self.regimes})
        for name, values in given.items():
            if values.shape != (len(self.rows),):
                message = f"{name} has shape {values.shape}: one value for each of {len(self.rows)}"
                raise ValueError(f"{message} rows")


@dataclass(frozen=True)
class RowScores:
    """Losses of each row, or what they gain over the baseline's, shape (n,).

    A gain above zero is better than the baseline.

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


def row_losses(
    labels: NDArray[np.float64], answers: Mapping[str, NDArray[np.float32]]
) -> RowScores:
    """Loss of each row's answer."""
    up, probability = labels > 0, _output(answers, "probability_up")
    return RowScores(
        log_loss=_log_loss(probability, up),
        brier=(probability - up) ** 2,
        crps=student.crps(labels, _output(answers, "expected_return"), predicted_scale(answers)),
    )


def row_scores(
    labels: NDArray[np.float64], answers: Mapping[str, NDArray[np.float32]], base: Baseline
) -> RowScores:
    """Gain of each row's answer over the baseline's."""
    up, losses = labels > 0, row_losses(labels, answers)
    return RowScores(
        log_loss=_log_loss(np.full(len(up), base.rate), up) - losses.log_loss,
        brier=(base.rate - up) ** 2 - losses.brier,
        crps=student.empirical_crps(labels, base.labels) - losses.crps,
    )


def pooled_scores(parts: Sequence[Answered]) -> RowScores:
    """Gains of every fold's rows, each over its own fold's baseline, one after another."""
    return _pooled([row_scores(part.rows.labels, part.answers, part.base) for part in parts])


def pooled_losses(parts: Sequence[Answered]) -> RowScores:
    """Losses of every fold's rows, one after another."""
    return _pooled([row_losses(part.rows.labels, part.answers) for part in parts])


def claim_skill(parts: Sequence[Answered], claim: Claim) -> float:
    """Share of the baseline's loss that a model saves over all rows of some folds, by its claim."""
    gains: NDArray[np.float64] = getattr(pooled_scores(parts), CLAIM_LOSS[claim])
    return _skill(gains, claim_losses(parts, claim))


def claim_losses(parts: Sequence[Answered], claim: Claim) -> NDArray[np.float64]:
    """Loss of every fold's rows, one after another, by what the model claims."""
    losses: NDArray[np.float64] = getattr(pooled_losses(parts), CLAIM_LOSS[claim])
    return losses


def evaluate(
    parts: Sequence[Answered],
    *,
    horizon: np.timedelta64,
    seed: int,
    costs: Costs,
    draws: int = DRAWS,
) -> dict[str, float]:
    """Every figure of one fold, or of several folds pooled.

    Args:
        parts: the folds, oldest first; each row is scored against its own fold's baseline.
        horizon: reach of a label.
        seed: of the bootstrap.
        costs: of the strategy's trades.
        draws: of the bootstrap behind each p-value, of which none is smaller than one over them.

    Returns:
        Figures by name. ``*_skill`` is the share of the baseline's loss that the model saves;
        ``*_p_value`` is one-sided, small where the gain is unlikely to be luck; ``accuracy_lower``
        and ``accuracy_upper`` hold the accuracy with 95 % confidence, and are 0 and 1 where there
        are too few rows to say; the strategy's are those of `strategy.Track.figures`.
    """
    if not parts:
        message = "parts=(): figures need the rows of at least one fold"
        raise ValueError(message)
    pool, losses, gains = _Pool.of(parts), pooled_losses(parts), pooled_scores(parts)
    return {
        "test_rows": float(len(pool.labels)),
        **_direction_figures(pool, losses, gains),
        **_return_figures(pool, losses, gains),
        **_sampling_figures(pool, gains, horizon, seed, draws),
        **trade(parts, horizon=horizon, costs=costs).figures(),
    }


@dataclass(frozen=True)
class _Pool:
    """Rows of all folds one after another, each of shape (n,), with what is scored of them."""

    events: NDArray[np.datetime64]
    labels: NDArray[np.float64]
    probability: NDArray[np.float64]
    expected: NDArray[np.float64]
    width: NDArray[np.float64]
    covered: NDArray[np.float64]
    lean: NDArray[np.float64]
    base_rate: NDArray[np.float64]
    base_mean: NDArray[np.float64]

    @property
    def up(self) -> NDArray[np.bool_]:
        return self.labels > 0

    @classmethod
    def of(cls, parts: Sequence[Answered]) -> _Pool:
        columns = [_columns(part) for part in parts]
        return cls(**{name: np.concatenate([c[name] for c in columns]) for name in columns[0]})


def _columns(part: Answered) -> dict[str, NDArray[np.generic]]:
    """The columns of `_Pool` for one fold."""
    labels, answers = part.rows.labels, part.answers
    probability = _output(answers, "probability_up")
    return {
        "events": part.rows.events,
        "labels": labels,
        "probability": probability,
        "expected": _output(answers, "expected_return"),
        "width": _output(answers, "upper") - _output(answers, "lower"),
        "covered": covered(labels, answers),
        # A product demeaned in each fold gains nothing from a market that drifts the way the
        # model leans.
        "lean": _deviation(probability) * _deviation((labels > 0).astype(np.float64)),
        "base_rate": np.full(len(labels), part.base.rate),
        "base_mean": np.full(len(labels), part.base.mean),
    }


def _direction_figures(pool: _Pool, losses: RowScores, gains: RowScores) -> dict[str, float]:
    return {
        "base_rate": float(pool.base_rate.mean()),
        "up_share": float(pool.up.mean()),
        "accuracy": float(_right(pool).mean()),
        "auc": area_under_curve(pool.probability, pool.up),
        "log_loss": float(losses.log_loss.mean()),
        "log_loss_skill": _skill(gains.log_loss, losses.log_loss),
        "brier": float(losses.brier.mean()),
        "brier_skill": _skill(gains.brier, losses.brier),
    }


def _return_figures(pool: _Pool, losses: RowScores, gains: RowScores) -> dict[str, float]:
    errors = (pool.labels - pool.expected) ** 2
    base_errors = (pool.labels - pool.base_mean) ** 2
    return {
        "information_coefficient": correlation(pool.expected, pool.labels),
        "mse": float(errors.mean()),
        "r2": 1.0 - float(errors.sum() / base_errors.sum()),
        "crps": float(losses.crps.mean()),
        "crps_skill": _skill(gains.crps, losses.crps),
        "coverage": float(pool.covered.mean()),
        "interval_width": float(pool.width.mean()),
    }


def _sampling_figures(
    pool: _Pool, gains: RowScores, horizon: np.timedelta64, seed: int, draws: int
) -> dict[str, float]:
    events, overlap, regime = pool.events, overlap_block(horizon), regime_block(horizon)
    lower, upper = bootstrap_interval(events, _right(pool), overlap, seed) or (0.0, 1.0)
    # 0, which allows nothing, where the sample cannot tell how far its coverage may be off.
    coverages = bootstrap_means(events, pool.covered, regime, seed)
    return {
        "accuracy_lower": max(lower, 0.0),
        "accuracy_upper": min(upper, 1.0),
        "direction_p_value": bootstrap_p_value(events, pool.lean, overlap, seed, draws),
        "log_loss_p_value": bootstrap_p_value(events, gains.log_loss, overlap, seed, draws),
        "crps_p_value": bootstrap_p_value(events, gains.crps, regime, seed, draws),
        "coverage_error": 0.0 if coverages is None else float(coverages.std()),
    }


def _pooled(scores: Sequence[RowScores]) -> RowScores:
    return RowScores(
        log_loss=np.concatenate([score.log_loss for score in scores]),
        brier=np.concatenate([score.brier for score in scores]),
        crps=np.concatenate([score.crps for score in scores]),
    )


def _right(pool: _Pool) -> NDArray[np.float64]:
    """1 for each row whose direction was told right, else 0; even odds are told as down."""
    return _told_right(pool.probability, pool.up)


def _told_right(probability: NDArray[np.float64], up: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.asarray((probability > 0.5) == up, np.float64)  # noqa: PLR2004 - even odds


def covered(
    labels: NDArray[np.float64], answers: Mapping[str, NDArray[np.float32]]
) -> NDArray[np.float64]:
    """1 for each row whose label lies in its interval, else 0."""
    lower, upper = _output(answers, "lower"), _output(answers, "upper")
    return np.asarray((labels >= lower) & (labels <= upper), np.float64)


def told_right(
    labels: NDArray[np.float64], answers: Mapping[str, NDArray[np.float32]]
) -> NDArray[np.float64]:
    """1 for each row whose direction was told right, else 0; even odds are told as down."""
    return _told_right(_output(answers, "probability_up"), labels > 0)


def predicted_scale(answers: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float64]:
    """Scale of the Student t an answer stands for: its central 90 % is the interval."""
    return (_output(answers, "upper") - _output(answers, "lower")) / (2 * student.QUANTILE_95)


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


def _skill(gains: NDArray[np.float64], losses: NDArray[np.float64]) -> float:
    """Share of the baseline's loss saved: baseline loss = model loss + gain."""
    return float(gains.sum() / (losses.sum() + gains.sum()))


def _deviation(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance from the mean; exactly 0 where nothing varies, which a mean's rounding is not."""
    return values - values.mean() if np.ptp(values) > 0.0 else np.zeros_like(values)


def _output(answers: Mapping[str, NDArray[np.float32]], name: str) -> NDArray[np.float64]:
    return np.asarray(answers[name], np.float64)


def _log_loss(probability: NDArray[np.float64], up: NDArray[np.bool_]) -> NDArray[np.float64]:
    clipped = np.clip(probability, _CLIP, 1 - _CLIP)
    loss: NDArray[np.float64] = -np.log(np.where(up, clipped, 1 - clipped))
    return loss
