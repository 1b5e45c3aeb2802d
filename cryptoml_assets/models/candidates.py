"""From a training set to a bundle with its out-of-sample figures, in one call."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING

import numpy as np

from cryptoml_assets.models.calibration import Calibration, calibrate
from cryptoml_assets.models.evaluation import baseline, evaluate
from cryptoml_assets.models.export import PLATFORMS, export_bundle
from cryptoml_assets.models.predictor import distribution, predict_rows, predictor
from cryptoml_assets.models.provenance import library_versions
from cryptoml_assets.models.rows import Rows, answers_frame, rows_from_frame
from cryptoml_assets.models.splits import split
from cryptoml_assets.models.training import Epoch, train_ensemble
from cryptoml_serving.contract.bundle import Manifest

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    import polars as pl
    from numpy.typing import NDArray

    from cryptoml_assets.models.predictor import Ensemble
    from cryptoml_assets.models.splits import Split
    from cryptoml_assets.models.task import Task


@dataclass(frozen=True)
class Trained:
    """A candidate, written as a bundle.

    Attributes:
        folder: the bundle.
        digest: of the bundle.
        manifest: of the bundle; holds the out-of-sample figures.
        history: the learning curve.
        test: the out-of-sample rows.
        answers: the trainer's own answers to them, by output.
        unseen: features with too few values to fit on, which the model does not use.
    """

    folder: Path
    digest: str
    manifest: Manifest
    history: tuple[Epoch, ...]
    test: Rows
    answers: dict[str, NDArray[np.float32]]
    unseen: tuple[str, ...]

    @property
    def predictions(self) -> pl.DataFrame:
        """One row per out-of-sample row: symbol, event_timestamp and each output."""
        return answers_frame(self.test, self.answers)


def train_candidate(
    frame: pl.DataFrame, task: Task, folder: Path, *, log: Callable[[str], None]
) -> Trained:
    """Train, calibrate, evaluate and export one candidate.

    The same rows and task give the same bundle digest on the same machine and library versions.

    Args:
        frame: a training set, with a column ``source`` beside those of the task.
        task: what to learn.
        folder: where the bundle goes; new or empty.
        log: receives progress, a line at a time.

    Raises:
        TrainingDataError: rows that cannot be learnt from.
    """
    names = tuple(feature.name for feature in task.features)
    rows = rows_from_frame(frame, names)
    parts = split(rows.events, rows.label_times, test_share=task.test_share, embargo=task.embargo)
    log(
        f"{len(rows)} rows x {len(names)} features: {parts.fit.sum()} to fit, "
        f"{parts.validation.sum()} to stop, {parts.calibration.sum()} to calibrate, "
        f"{parts.test.sum()} out of sample from {parts.test_start}"
    )
    ensemble, history = train_ensemble(rows, parts, task.training, log=log)
    training, test = rows.take(parts.training), rows.take(parts.test)
    calibration = _calibrated(ensemble, training, parts.calibration[parts.training])
    answers = predict_rows(predictor(ensemble, calibration), test.features)
    metrics = evaluate(
        test,
        answers,
        baseline(training.labels),
        horizon=np.timedelta64(task.horizon),
        seed=task.training.seed,
    )
    manifest = _manifest(task, rows, parts, metrics, "+".join(sorted(set(frame["source"]))))
    digest = export_bundle(folder, ensemble, calibration, manifest)
    return Trained(folder, digest, manifest, history, test, answers, _unseen(ensemble, names))


def _calibrated(ensemble: Ensemble, training: Rows, held_out: NDArray[np.bool_]) -> Calibration:
    raw = predict_rows(lambda features: distribution(ensemble, features), training.features)
    location, scale = (values.astype(np.float64) for values in raw)
    return calibrate(location, scale, training.labels, held_out)


def _manifest(
    task: Task, rows: Rows, parts: Split, metrics: dict[str, float], source: str
) -> Manifest:
    training, test = rows.events[parts.training], rows.events[parts.test]
    return Manifest(
        model_name=task.model_name,
        family=task.family,
        created_at=_utc(rows.label_times.max()),
        horizon_seconds=int(task.horizon.total_seconds()),
        bar_seconds=int(task.bar.total_seconds()),
        features=task.features,
        feature_service=task.feature_service,
        training_start=_utc(training.min()),
        training_end=_utc(training.max()),
        test_start=_utc(test.min()),
        test_end=_utc(test.max()),
        lake_versions=dict(task.lake_versions),
        git_commit=task.git_commit,
        source=source,
        metrics=metrics,
        libraries=library_versions(),
        platforms=PLATFORMS,
    )


def _unseen(ensemble: Ensemble, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(
        name for name, absent in zip(names, ensemble.scaling.unseen, strict=True) if absent
    )


def _utc(instant: np.datetime64) -> datetime:
    moment: datetime = instant.astype("datetime64[us]").item()
    return moment.replace(tzinfo=UTC)
