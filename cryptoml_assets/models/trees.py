"""Gradient-boosted trees: benchmarks the networks are compared with, never exported or served.

Each is three boosters of one library: for the label, for the log of its distance from what the
first one answers, and for its direction. They are fitted, stopped and calibrated on the very parts
of a fold the networks are, and answer with the bundle's four outputs, so one table compares all.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cryptoml_assets.errors import TrainingDataError
from cryptoml_assets.models.calibration import calibrate
from cryptoml_serving.contract.manifest import OUTPUTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from cryptoml_assets.models.calibration import Calibration
    from cryptoml_assets.models.rows import Rows
    from cryptoml_assets.models.splits import Split

    #: From features (n, k) to raw answers (n,): a value, or the log odds of an up move.
    Answer = Callable[[NDArray[np.float32]], NDArray[np.float64]]
    #: Fits one booster, from a seed.
    Library = Callable[["Target", "_Sample", int], Answer]

Target = Literal["value", "direction"]
#: Labels beyond so many spreads count as that many: squared errors would follow the tails alone.
_LARGEST_LABEL = 5.0
#: Least distance whose logarithm is learnt, in spreads of the label.
_LEAST_DISTANCE = 1e-3
_ROUNDS = 400
#: Rounds without a better validation loss after which a booster stops.
_PATIENCE = 40
# Shallow, slow and held back: what a row tells of the next hour is little.
_LEARNING_RATE = 0.03
_LEAVES = 8
_ROWS_PER_LEAF = 100
_RIDGE = 20.0
_SHARE_OF_FEATURES = 0.5
_SHARE_OF_ROWS = 0.7
#: A booster whose cores are shared with other work waits for its threads far longer than they save.
_THREADS = 1


@dataclass(frozen=True)
class _Sample:
    """What one booster learns from: features (n, k), NaN missing, and targets (n,), by part."""

    fit: tuple[NDArray[np.float32], NDArray[np.float64]]
    validation: tuple[NDArray[np.float32], NDArray[np.float64]]


#: Distributions that hold each library, any of which may be installed.
BENCHMARKS = {"lightgbm": ("lightgbm",), "xgboost": ("xgboost", "xgboost-cpu")}


def benchmark_versions() -> dict[str, str]:
    """Version of each library of boosted trees that is installed, as its distribution says."""
    found = {}
    for name in benchmarks():
        for distribution in BENCHMARKS[name]:
            with suppress(PackageNotFoundError):
                found[name] = version(distribution)
    return found


def benchmarks() -> tuple[str, ...]:
    """The libraries of boosted trees that are installed."""
    return tuple(name for name in _LIBRARIES if find_spec(name) is not None)


def tree_answers(
    name: str, rows: Rows, split: Split, *, seed: int
) -> dict[str, NDArray[np.float32]]:
    """Train on a fold and answer its test rows.

    The same rows, split and seed give the same answers on the same machine and library version.

    Args:
        name: one of ``benchmarks()``.
        rows: every row; of those from the test part on, only the test rows' features are read.
        split: the fold.
        seed: of the drawn rows and features.

    Returns:
        The bundle's outputs for the test rows, each of shape (n,).

    Raises:
        ValueError: no such benchmark, or its library is not installed.
        TrainingDataError: labels that do not vary, or are all of one sign.
    """
    if name not in benchmarks():
        message = f"benchmark {name!r}: installed is {', '.join(benchmarks()) or 'none'}"
        raise ValueError(message)
    # xgboost refuses infinite values; the networks count them as missing too.
    rows = replace(rows, features=np.where(np.isfinite(rows.features), rows.features, np.nan))
    trees = _Trees.fitted(_LIBRARIES[name], rows.take(split.fit), rows.take(split.validation), seed)
    training = rows.take(split.training)
    raw = trees.raw(training.features)
    calibration = calibrate(
        raw.location,
        raw.scale,
        training.labels,
        split.calibration[split.training],
        lean=raw.lean,
    )
    return trees.raw(rows.features[split.test]).calibrated(calibration)


@dataclass(frozen=True)
class _Raw:
    """Answers before calibration, each of shape (n,): log returns, and log odds."""

    location: NDArray[np.float64]
    scale: NDArray[np.float64]
    lean: NDArray[np.float64]

    def calibrated(self, calibration: Calibration) -> dict[str, NDArray[np.float32]]:
        deviation = self.location - calibration.centre
        expected = calibration.base_mean + calibration.slope * deviation
        half_width = calibration.interval_factor * self.scale
        lean = calibration.steepness * (self.lean - calibration.lean_centre)
        probability = 1 / (1 + np.exp(-(calibration.base_logit + lean)))
        answers = (expected, expected - half_width, expected + half_width, probability)
        return {
            name: values.astype(np.float32) for name, values in zip(OUTPUTS, answers, strict=True)
        }


@dataclass(frozen=True)
class _Trees:
    """Three boosters, and what their answers are measured in."""

    locate: Answer
    stretch: Answer
    lean: Answer
    mean: float
    spread: float

    @classmethod
    def fitted(cls, library: Library, fit: Rows, validation: Rows, seed: int) -> _Trees:
        _check(fit)
        mean, spread = float(fit.labels.mean()), float(fit.labels.std())

        def learn(target: Target, of: Callable[[Rows], NDArray[np.float64]]) -> Answer:
            sample = _Sample((fit.features, of(fit)), (validation.features, of(validation)))
            return library(target, sample, seed)

        def standardised(part: Rows) -> NDArray[np.float64]:
            return np.clip((part.labels - mean) / spread, -_LARGEST_LABEL, _LARGEST_LABEL)

        def log_distance(part: Rows) -> NDArray[np.float64]:
            distance = np.abs((part.labels - mean) / spread - locate(part.features))
            return np.log(np.maximum(distance, _LEAST_DISTANCE))

        def upwards(part: Rows) -> NDArray[np.float64]:
            return (part.labels > 0).astype(np.float64)

        locate = learn("value", standardised)
        stretch, lean = learn("value", log_distance), learn("direction", upwards)
        return cls(locate, stretch, lean, mean, spread)

    def raw(self, features: NDArray[np.float32]) -> _Raw:
        return _Raw(
            self.mean + self.spread * self.locate(features),
            self.spread * np.exp(self.stretch(features)),
            self.lean(features),
        )


def _check(fit: Rows) -> None:
    up = int((fit.labels > 0).sum())
    if up in {0, len(fit)}:
        message = (
            f"{up} of the {len(fit)} labels to fit on are above zero, from {fit.labels.min():g} to "
            f"{fit.labels.max():g}: there is no direction to learn"
        )
        raise TrainingDataError(message)


def _lightgbm(target: Target, sample: _Sample, seed: int) -> Answer:
    import lightgbm  # noqa: PLC0415 - only where installed

    settings = {
        "objective": "regression" if target == "value" else "binary",
        "learning_rate": _LEARNING_RATE,
        "num_leaves": _LEAVES,
        "min_data_in_leaf": _ROWS_PER_LEAF,
        "lambda_l2": _RIDGE,
        "feature_fraction": _SHARE_OF_FEATURES,
        "bagging_fraction": _SHARE_OF_ROWS,
        "bagging_freq": 1,
        "num_threads": _THREADS,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
    data = lightgbm.Dataset(*sample.fit, params=settings)
    booster = lightgbm.train(
        settings,
        data,
        num_boost_round=_ROUNDS,
        valid_sets=[lightgbm.Dataset(*sample.validation, reference=data)],
        callbacks=[lightgbm.early_stopping(_PATIENCE, verbose=False)],
    )

    def answer(features: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.asarray(booster.predict(features, raw_score=True), np.float64)

    return answer


def _xgboost(target: Target, sample: _Sample, seed: int) -> Answer:
    import xgboost  # noqa: PLC0415 - only where installed

    settings: dict[str, Any] = {
        "objective": "reg:squarederror" if target == "value" else "binary:logistic",
        "base_score": float(sample.fit[1].mean()),
        "learning_rate": _LEARNING_RATE,
        "tree_method": "hist",
        "grow_policy": "lossguide",
        "max_depth": 0,
        "max_leaves": _LEAVES,
        # The sum of second derivatives in a leaf: 1 a row for a value, about 1/4 for a direction.
        "min_child_weight": _ROWS_PER_LEAF * (1.0 if target == "value" else 0.25),
        "reg_lambda": _RIDGE,
        "colsample_bytree": _SHARE_OF_FEATURES,
        "subsample": _SHARE_OF_ROWS,
        "nthread": _THREADS,
        "seed": seed,
        "verbosity": 0,
    }
    booster = xgboost.train(
        settings,
        xgboost.DMatrix(*sample.fit, nthread=_THREADS),
        num_boost_round=_ROUNDS,
        evals=[(xgboost.DMatrix(*sample.validation, nthread=_THREADS), "validation")],
        early_stopping_rounds=_PATIENCE,
        verbose_eval=False,
    )
    rounds = (0, booster.best_iteration + 1)

    def answer(features: NDArray[np.float32]) -> NDArray[np.float64]:
        matrix = xgboost.DMatrix(features, nthread=_THREADS)
        return np.asarray(
            booster.predict(matrix, output_margin=True, iteration_range=rounds), np.float64
        )

    return answer


_LIBRARIES: dict[str, Library] = {
    "lightgbm": _lightgbm,
    "xgboost": _xgboost,
}
