"""Measurements for the gate, taken on the bundle itself and never read from a training log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cryptoml_assets.errors import ApprovalError
from cryptoml_assets.models.evaluation import Answered, Baseline, baseline, evaluate
from cryptoml_assets.models.rows import Rows, answers_frame, rows_from_frame
from cryptoml_assets.models.splits import purged_before
from cryptoml_serving.contract.bundle import load_bundle

if TYPE_CHECKING:
    from datetime import datetime, timedelta
    from pathlib import Path

    import polars as pl
    from numpy.typing import NDArray

    from cryptoml_assets.models.strategy import Costs
    from cryptoml_serving.contract.bundle import Manifest

_KEY = ("symbol", "event_timestamp")


@dataclass(frozen=True)
class Evidence:
    """What was measured on a bundle out of sample.

    Attributes:
        manifest: of the bundle.
        test: the out-of-sample rows.
        answers: the loaded bundle's outputs for them.
        base: what was known before them.
        figures: every measurement by name, ``answer_difference`` among them.
    """

    manifest: Manifest
    test: Rows
    answers: dict[str, NDArray[np.float32]]
    base: Baseline
    figures: dict[str, float]


def gather(
    folder: Path,
    digest: str,
    training_set: pl.DataFrame,
    logged: pl.DataFrame,
    *,
    embargo: timedelta,
    costs: Costs,
    seed: int,
) -> Evidence:
    """Load a bundle as the serving code does, and measure it.

    Args:
        folder: the bundle.
        digest: what it was registered with.
        training_set: the rows it was trained and tested on.
        logged: the trainer's own answers, with symbol and event_timestamp.
        embargo: gap between the training and the test rows.
        costs: what a trade costs in the figures of the strategy.
        seed: of the bootstrap.

    Raises:
        BundleError: the bundle is not the registered one, or does not work.
        ApprovalError: the training set no longer holds the rows the trainer answered.
        TrainingDataError: no training rows are left for a base rate.
    """
    bundle = load_bundle(folder, expected_digest=digest)
    manifest = bundle.manifest
    rows = rows_from_frame(training_set, [feature.name for feature in manifest.features])
    start, end = _instant(manifest.test_start), _instant(manifest.test_end)
    test = rows.take((rows.events >= start) & (rows.events <= end))
    purged = purged_before(rows.label_times, start, np.timedelta64(embargo))
    before = rows.take(purged & (rows.events >= _instant(manifest.training_start)))
    base = baseline(before.labels)
    answers = bundle.predict(test.features)
    horizon = np.timedelta64(manifest.horizon_seconds, "s")
    part = Answered(test, answers, base)
    figures = evaluate((part,), horizon=horizon, seed=seed, costs=costs)
    figures["answer_difference"] = largest_difference(test, answers, logged)
    return Evidence(manifest, test, answers, base, figures)


def largest_difference(
    test: Rows, answers: dict[str, NDArray[np.float32]], logged: pl.DataFrame
) -> float:
    """Largest absolute difference of any output on any row; NaN where one is no number.

    Raises:
        ApprovalError: the two do not hold the same rows.
    """
    measured = answers_frame(test, answers)
    both = measured.join(logged, on=_KEY, suffix="_logged", validate="1:1")
    if not len(both) == len(measured) == len(logged):
        message = (
            f"the trainer answered {len(logged)} rows out of sample; the training set holds "
            f"{len(measured)} now, {len(both)} of them the same"
        )
        raise ApprovalError(message)
    differences = [both[name].to_numpy() - both[f"{name}_logged"].to_numpy() for name in answers]
    return float(np.abs(differences).max())


def _instant(moment: datetime) -> np.datetime64:
    return np.datetime64(moment.replace(tzinfo=None), "us")
