"""From a training set to a bundle with its out-of-sample figures, in one call."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from cryptoml_assets.models.calibration import Calibration, calibrate
from cryptoml_assets.models.coverage import REGIME_FEATURE, regimes
from cryptoml_assets.models.evaluation import CLAIM_LOSS, Answered, baseline, claim_skill, evaluate
from cryptoml_assets.models.export import PLATFORMS, export_bundle
from cryptoml_assets.models.layout import is_vectorised
from cryptoml_assets.models.predictor import distribution_of_rows, predict_rows
from cryptoml_assets.models.provenance import library_versions
from cryptoml_assets.models.rows import Rows, answers_frame, rows_from_frame
from cryptoml_assets.models.training import Epoch, train_folds
from cryptoml_assets.models.walkforward import walk_forward
from cryptoml_serving.contract.manifest import Manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from pathlib import Path

    import polars as pl
    from numpy.typing import NDArray

    from cryptoml_assets.models.checkpoints import Checkpoints
    from cryptoml_assets.models.evaluation import Claim
    from cryptoml_assets.models.predictor import Ensemble
    from cryptoml_assets.models.splits import Split
    from cryptoml_assets.models.task import Task
    from cryptoml_assets.models.training import TrainedFolds


@dataclass(frozen=True)
class Trained:
    """A candidate, written as a bundle.

    Attributes:
        folder: the bundle.
        digest: of the bundle.
        manifest: of the bundle; holds the out-of-sample figures of the newest fold.
        history: the learning curves; none where nothing was descended.
        folds: the trainer's own answers out of sample, of each fold, oldest first; the newest
            fold's are those of the bundle.
        fold_figures: every figure of each fold.
        pooled: every figure over all folds.
        validation_skill: by claim, the skill in the newest fold's validation part, which chooses
            where there is no earlier fold.
        hyper: what the search chose.
        vectorised: whether all networks were trained as one program; their last bits depend on it.
        unseen: features with too few values to fit on, which the model does not use.
    """

    folder: Path
    digest: str
    manifest: Manifest
    history: tuple[Epoch, ...]
    folds: tuple[Answered, ...]
    fold_figures: tuple[dict[str, float], ...]
    pooled: dict[str, float]
    validation_skill: dict[Claim, float]
    hyper: dict[str, float]
    vectorised: bool
    unseen: tuple[str, ...]

    @property
    def predictions(self) -> pl.DataFrame:
        """One row per row of the newest test part: symbol, event_timestamp and each output."""
        newest = self.folds[-1]
        return answers_frame(newest.rows, newest.answers)


def train_candidate(
    frame: pl.DataFrame,
    task: Task,
    folder: Path,
    *,
    log: Callable[[str], None],
    vectorised: bool | None = None,
    checkpoints: Checkpoints | None = None,
) -> Trained:
    """Train, calibrate and evaluate one candidate on every fold, and export the newest.

    The same rows, task and layout give the same bundle digest on the same machine and library
    versions.

    Args:
        frame: a training set, with a column ``source`` beside those of the task.
        task: what to learn.
        folder: where the bundle goes; new or empty.
        log: receives progress, a line at a time.
        vectorised: whether all networks train as one program; as the task says when absent.
        checkpoints: where to go on from, if anywhere.

    Raises:
        TrainingDataError: rows that cannot be learnt from.
        TrainingResourcesError: a network does not fit into the device's memory.
    """
    names = tuple(feature.name for feature in task.features)
    rows = rows_from_frame(frame, names)
    folds = folds_of(rows, task)
    log(_outline(folds, len(names)))
    if vectorised is None:
        vectorised = is_vectorised(task.training.layout, None, log)
    trained = train_folds(
        rows, folds, task, vectorised=vectorised, checkpoints=checkpoints, log=log
    )
    calibrations = tuple(
        _calibrated(ensemble, rows.take(split.training), split.calibration[split.training])
        for ensemble, split in zip(trained.ensembles, folds, strict=True)
    )
    measured = _measured(rows, folds, trained, calibrations, task)
    source = "+".join(sorted(set(frame["source"])))
    metrics = measured.fold_figures[-1] | {"trials": float(trained.trials)}
    manifest = _manifest(task, rows, folds[-1], metrics, source)
    digest = export_bundle(folder, trained.ensembles[-1], calibrations[-1], manifest)
    return Trained(
        folder=folder,
        digest=digest,
        manifest=manifest,
        history=trained.history,
        folds=measured.folds,
        fold_figures=measured.fold_figures,
        pooled=measured.pooled,
        validation_skill=measured.validation_skill,
        hyper={
            "learning_rate": trained.learning_rate,
            "weight_decay": trained.weight_decay,
            "trials": float(trained.trials),
        },
        vectorised=trained.vectorised,
        unseen=_unseen(trained.ensembles[-1], names),
    )


def folds_of(rows: Rows, task: Task) -> tuple[Split, ...]:
    """The task's walk-forward folds of these rows, oldest first.

    Raises:
        TrainingDataError: too few rows for them.
    """
    return walk_forward(
        rows.events,
        rows.label_times,
        folds=task.folds,
        test_share=task.test_share,
        window=task.fold_window,
        embargo=task.embargo,
    )


def _outline(folds: Sequence[Split], features: int) -> str:
    """What is cut from the rows, in a line."""
    fitted = [int(split.fit.sum()) for split in folds]
    tested = [int(split.test.sum()) for split in folds]
    return (
        f"{len(folds)} folds x {features} features: {min(fitted)} to {max(fitted)} rows to fit, "
        f"{min(tested)} to {max(tested)} out of sample from {folds[0].test_start}, the newest from "
        f"{folds[-1].test_start}"
    )


def regimes_of(training: Rows, test: Rows, task: Task) -> NDArray[np.int8] | None:
    """The regime of each test row, where the task's features tell it."""
    names = [feature.name for feature in task.features]
    if REGIME_FEATURE not in names:
        return None
    return regimes(training, test, names.index(REGIME_FEATURE))


@dataclass(frozen=True)
class _Measured:
    folds: tuple[Answered, ...]
    fold_figures: tuple[dict[str, float], ...]
    pooled: dict[str, float]
    validation_skill: dict[Claim, float]


def _measured(
    rows: Rows,
    folds: Sequence[Split],
    trained: TrainedFolds,
    calibrations: Sequence[Calibration],
    task: Task,
) -> _Measured:
    """Answers out of sample and their figures, of each fold and of all."""

    def answered(number: int, part: NDArray[np.bool_]) -> Answered:
        chosen = rows.take(part)
        answers = predict_rows(trained.ensembles[number], calibrations[number], chosen.features)
        training = rows.take(folds[number].training)
        base = baseline(training.labels)
        return Answered(chosen, answers, base, regimes_of(training, chosen, task))

    figures = partial(
        evaluate,
        horizon=np.timedelta64(task.horizon),
        seed=task.training.seed,
        costs=task.costs,
    )
    parts = tuple(answered(number, split.test) for number, split in enumerate(folds))
    each = tuple(figures([part]) for part in parts)
    validation = answered(len(folds) - 1, folds[-1].validation)
    return _Measured(
        folds=parts,
        fold_figures=each,
        pooled=figures(parts) if len(parts) > 1 else each[0],
        validation_skill={claim: claim_skill([validation], claim) for claim in CLAIM_LOSS},
    )


def _calibrated(ensemble: Ensemble, training: Rows, held_out: NDArray[np.bool_]) -> Calibration:
    raw = distribution_of_rows(ensemble, training.features)
    location, scale, lean = (values.astype(np.float64) for values in raw)
    return calibrate(location, scale, training.labels, held_out, lean=lean)


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
