"""Measurements for the gate, taken on the bundle itself and never read from a training log."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cryptoml_assets.deployment.latency import median_latency
from cryptoml_assets.errors import ApprovalError
from cryptoml_assets.models.evaluation import Answered, Baseline, baseline, evaluate
from cryptoml_assets.models.rows import Rows, answers_frame, rows_from_frame
from cryptoml_assets.models.significance import DRAWS
from cryptoml_assets.models.splits import purged_before
from cryptoml_assets.models.strategy import trade
from cryptoml_serving.contract.bundle import load_bundle

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime, timedelta
    from pathlib import Path

    import polars as pl
    from numpy.typing import NDArray

    from cryptoml_assets.models.strategy import Costs
    from cryptoml_serving.contract.manifest import Manifest

_KEY = ("symbol", "event_timestamp")
_BASIS_POINT = 1e-4
_FEWEST = 2
#: Most redrawn samples: more take seconds.
_MOST_DRAWS = 50_000
#: By how much the smallest p-value of the bootstrap is to be below the largest that passes.
_RESOLUTION = 10


@dataclass(frozen=True)
class Evidence:
    """What was measured on a bundle out of sample.

    Attributes:
        manifest: of the bundle.
        test: the out-of-sample rows.
        answers: the loaded bundle's outputs for them.
        base: what was known before them.
        figures: every measurement by name: those of `evaluation.evaluate` and `net_result`,
            ``answer_difference``, ``latency_seconds`` and ``served_symbols``.
    """

    manifest: Manifest
    test: Rows
    answers: dict[str, NDArray[np.float32]]
    base: Baseline
    figures: dict[str, float]

    @property
    def answered(self) -> Answered:
        """The rows with their answers, as one fold."""
        return Answered(self.test, self.answers, self.base)


@dataclass(frozen=True)
class Measuring:
    """How to measure.

    Attributes:
        embargo: gap between the training and the test rows.
        costs: what a trade costs in the figures of the strategy.
        seed: of the bootstrap.
        symbols: how many are served: rows of a batch that is timed.
        draws: of the bootstrap; see `draws_for`.
        clock: seconds that only grow.
    """

    embargo: timedelta
    costs: Costs
    seed: int
    symbols: int
    draws: int = DRAWS
    clock: Callable[[], float] = time.perf_counter


def draws_for(trials: int, largest: float) -> int:
    """Draws of a bootstrap whose smallest p-value can pass after it was deflated by ``trials``.

    A bootstrap of n draws tells nothing below 1 / (n + 1), which many trials would deflate to more
    than passes, however good a model is.

    Args:
        trials: 1 or more.
        largest: deflated p-value that passes.
    """
    return min(_MOST_DRAWS, max(DRAWS, math.ceil(_RESOLUTION * trials / largest)))


def gather(
    folder: Path, digest: str, training_set: pl.DataFrame, logged: pl.DataFrame, how: Measuring
) -> Evidence:
    """Load a bundle as the serving code does, and measure it.

    Args:
        folder: the bundle.
        digest: what it was registered with.
        training_set: the rows it was trained and tested on.
        logged: the trainer's own answers, with symbol and event_timestamp.
        how: to measure.

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
    purged = purged_before(rows.label_times, start, np.timedelta64(how.embargo))
    before = rows.take(purged & (rows.events >= _instant(manifest.training_start)))
    part = Answered(test, bundle.predict(test.features), baseline(before.labels))
    horizon = np.timedelta64(manifest.horizon_seconds, "s")
    figures = {
        **evaluate((part,), horizon=horizon, seed=how.seed, costs=how.costs, draws=how.draws),
        **net_result((part,), horizon=horizon, costs=how.costs),
        "answer_difference": largest_difference(test, part.answers, logged),
        "latency_seconds": median_latency(bundle, test.features, how.symbols, clock=how.clock),
        "served_symbols": float(how.symbols),
    }
    return Evidence(manifest, test, dict(part.answers), part.base, figures)


def net_result(
    parts: Sequence[Answered], *, horizon: np.timedelta64, costs: Costs
) -> dict[str, float]:
    """What the threshold strategy brought, per amount traded.

    Args:
        parts: out-of-sample rows with the answers to them, oldest fold first.
        horizon: how long a tranche is held.
        costs: of trading.

    Returns:
        ``net_bps``, all that was earned after costs over all that was traded, basis points, and
        ``net_error_bps``, its standard error from the spread of the days. Both are 0 where nothing
        was traded.
    """
    track = trade(parts, horizon=horizon, costs=costs)
    traded = float(track.turnover.sum()) * _BASIS_POINT
    if traded == 0.0:
        return {"net_bps": 0.0, "net_error_bps": 0.0}
    days = len(track.net)
    # The sum of n days varies as one of them does, times the root of n; one day tells nothing.
    spread = float(track.net.std(ddof=1)) if days >= _FEWEST else math.inf
    return {
        "net_bps": float(track.net.sum()) / traded,
        "net_error_bps": spread * math.sqrt(days) / traded,
    }


def largest_difference(
    test: Rows, answers: Mapping[str, NDArray[np.float32]], logged: pl.DataFrame
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
