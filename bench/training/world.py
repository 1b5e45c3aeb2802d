"""The rows that both sides learn from, and the walk-forward folds they are cut into.

A weak signal is planted, partly linear and partly not, under noise with the tails of Student's t
with four degrees of freedom whose scale is foretold too. What there is to be found is known, and
is more than chance: a side that learns nothing shows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryptoml_assets.models.splits import Split
from cryptoml_assets.models.walkforward import walk_forward

BAR = timedelta(minutes=5)
HORIZON = timedelta(hours=1)
TEST_SHARE = 0.05
_SEED = 11
#: Strength of the linear signal, and of the one that no linear model finds, in noise scales.
_LINEAR, _CROSSED = 0.1, 0.08


@dataclass(frozen=True)
class Config:
    """One network and how it is trained, the same on every side.

    Attributes:
        hidden_units: widths of the hidden layers.
        epochs: most passes over the rows, over which the learning rate runs its course.
        batch: rows of a step.
        learning_rate: peak of AdamW: a linear rise over a tenth of the steps, then a cosine.
        weight_decay: decoupled.
        gradient_norm: gradients are clipped to it.
        patience: epochs without a better validation loss after which a member stops.
        degrees: of freedom of the likelihood.
    """

    epochs: int
    hidden_units: tuple[int, ...] = (64, 32)
    batch: int = 1024
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    gradient_norm: float = 1.0
    patience: int = 5
    degrees: float = 4.0


@dataclass(frozen=True)
class Fold:
    """First row and the row after the last one of each part."""

    fit: tuple[int, int]
    validation: tuple[int, int]
    test: tuple[int, int]

    def steps(self, batch: int) -> int:
        """Optimiser steps of an epoch."""
        return max((self.fit[1] - self.fit[0]) // batch, 1)


@dataclass(frozen=True)
class World:
    """Rows in order of time, their folds, and where they lie for other processes to read.

    Attributes:
        inputs: standardised, shape (n, k), float32.
        labels: shape (n,), float32, of unit spread.
        folds: oldest first.
        folder: holds ``inputs.npy`` and ``labels.npy``.
    """

    inputs: NDArray[np.float32]
    labels: NDArray[np.float32]
    folds: tuple[Fold, ...]
    folder: Path

    def plan(self, name: str, config: Config, members: Sequence[tuple[int, int]]) -> Path:
        """Write what a worker is to train: a fold and a seed for each of ``members``."""
        path = self.folder / f"{name}.json"
        plan = {
            **asdict(config),
            "folds": [asdict(fold) for fold in self.folds],
            "members": members,
            "answers": str(self.folder / f"{name}.npz"),
        }
        path.write_text(json.dumps(plan))
        return path

    def steps(self, config: Config, members: Sequence[tuple[int, int]]) -> int:
        """Optimiser steps of all members over all epochs."""
        each = (self.folds[fold].steps(config.batch) for fold, _ in members)
        return sum(each) * config.epochs


def make_world(rows: int, columns: int, folds: int, folder: Path) -> World:
    """Draw the rows, cut them as the product does, and write them to ``folder``."""
    rng = np.random.default_rng(_SEED)
    inputs = rng.standard_normal((rows, columns), dtype=np.float32)
    weights = rng.standard_normal(columns) / np.sqrt(columns)
    signal = _LINEAR * (inputs @ weights) + _CROSSED * np.tanh(inputs[:, 0] * inputs[:, 1])
    log_scale = 0.25 * inputs[:, 2] + 0.15 * np.abs(inputs[:, 3])
    raw = np.exp(log_scale) * (signal + rng.standard_t(4.0, rows))
    labels = ((raw - raw.mean()) / raw.std()).astype(np.float32)
    events = np.datetime64("2022-01-01", "us") + np.timedelta64(BAR) * np.arange(rows)
    splits = walk_forward(
        events, events + np.timedelta64(HORIZON), folds=folds, test_share=TEST_SHARE
    )
    np.save(folder / "inputs.npy", inputs)
    np.save(folder / "labels.npy", labels)
    return World(inputs, labels, tuple(map(_bounds, splits)), folder)


def _bounds(split: Split) -> Fold:
    """The parts as ranges: every bar has one row, so each part is one stretch."""

    def reach(mask: NDArray[np.bool_]) -> tuple[int, int]:
        first, last = np.flatnonzero(mask)[[0, -1]]
        assert mask[first : last + 1].all()
        return int(first), int(last) + 1

    return Fold(reach(split.fit), reach(split.validation), reach(split.test))
