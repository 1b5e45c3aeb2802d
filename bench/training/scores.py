"""What each side's answers are worth, by one scorer, on the same out-of-sample rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.training.world import World
from cryptoml_assets.models import student

_NORMALISER = float(-np.log(student.density(np.zeros(1))[0]))


@dataclass(frozen=True)
class Scores:
    """Means over members, each member weighing its fold's test rows equally.

    All three are gains over predicting one distribution, that of the fold's fit part, for every
    row: 0 is chance, more is better.

    Attributes:
        likelihood: nats a row, of the Student-t log likelihood.
        r_squared: of the mean, in percent.
        direction: nats a row, of the log likelihood of the label's sign.
    """

    likelihood: float
    r_squared: float
    direction: float

    def __str__(self) -> str:
        return (
            f"log likelihood {1e3 * self.likelihood:+.2f} millinats a row, R2 of the mean "
            f"{self.r_squared:+.3f} %, of direction {1e3 * self.direction:+.3f} millinats"
        )


def scored(world: World, answers: Path, members: Sequence[tuple[int, int]]) -> Scores:
    """Score a worker's answers: location and log-scale of each member's test rows."""
    with np.load(answers) as file:
        each = [
            _gains(world, fold, file[f"{fold}-{seed}"].astype(np.float64)) for fold, seed in members
        ]
    return Scores(*np.mean(each, axis=0).tolist())


def _gains(world: World, number: int, answer: NDArray[np.float64]) -> tuple[float, float, float]:
    fold = world.folds[number]
    past = world.labels[slice(*fold.fit)].astype(np.float64)
    labels = world.labels[slice(*fold.test)].astype(np.float64)
    location, scale = answer[0], np.exp(answer[1])
    chance = _constant(past)
    up = student.cdf(location / scale)
    base_rate = np.full(len(labels), (past > 0).mean())
    return (
        _loss(labels, *chance) - _loss(labels, location, scale),
        100 * (1 - np.square(labels - location).mean() / np.square(labels - past.mean()).mean()),
        _log_loss(labels > 0, base_rate) - _log_loss(labels > 0, up),
    )


def _loss(
    labels: NDArray[np.float64],
    location: NDArray[np.float64] | float,
    scale: NDArray[np.float64] | float,
) -> float:
    """Mean negative log likelihood of Student's t."""
    z = (labels - location) / scale
    tail = (student.DEGREES + 1) / 2 * np.log1p(z * z / student.DEGREES)
    return float((np.log(scale) + tail).mean()) + _NORMALISER


def _log_loss(happened: NDArray[np.bool_], probability: NDArray[np.float64]) -> float:
    right = np.where(happened, probability, 1 - probability)
    return float(-np.log(np.clip(right, 1e-12, 1)).mean())


def _constant(past: NDArray[np.float64]) -> tuple[float, float]:
    """Location and scale of greatest likelihood, by expectation maximisation.

    Lange, Little and Taylor, *Robust Statistical Modeling Using the t Distribution* (1989).
    """
    location, scale = float(np.median(past)), float(past.std())
    for _ in range(50):
        square = np.square((past - location) / scale)
        weight = (student.DEGREES + 1) / (student.DEGREES + square)
        location = float((weight * past).sum() / weight.sum())
        scale = float(np.sqrt((weight * np.square(past - location)).mean()))
    return location, scale


def by_name(scores: Mapping[str, Scores]) -> str:
    """The scores of several sides, a line each."""
    width = max(map(len, scores))
    return "\n".join(f"  {name:{width}}  {score}" for name, score in scores.items())
