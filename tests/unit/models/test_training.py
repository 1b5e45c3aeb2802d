from __future__ import annotations

import dataclasses
import subprocess
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from cryptoml_assets.errors import TrainingDataError
from cryptoml_assets.models import training
from cryptoml_assets.models.candidates import Trained, folds_of, train_candidate
from cryptoml_assets.models.checkpoints import Checkpoints
from cryptoml_assets.models.layout import Runner
from cryptoml_assets.models.options import FAMILIES, Family
from cryptoml_assets.models.rows import Rows, rows_from_frame
from cryptoml_assets.models.task import Task
from cryptoml_assets.models.training import TrainedFolds, train_folds
from cryptoml_serving.contract.bundle import load_bundle
from tests import model_worlds

pytestmark = pytest.mark.long

CONFIG, TASK = model_worlds.CONFIG, model_worlds.TASK
SIGNAL = 0.5


def train(folder: Path, frame: pl.DataFrame | None = None, task: Task = TASK) -> Trained:
    rows = model_worlds.training_set(signal=SIGNAL, days=8) if frame is None else frame
    return train_candidate(rows, task, folder, log=lambda _: None)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(tmp_path_factory.mktemp("trained"))


def test_a_planted_signal_and_clustered_volatility_are_found(trained: Trained) -> None:
    figures = trained.manifest.metrics
    assert figures["information_coefficient"] > 0.1
    assert figures["log_loss_skill"] > 0.0
    assert figures["crps_skill"] > 0.0
    assert figures["coverage"] == pytest.approx(0.9, abs=0.12)
    assert figures["accuracy"] < 0.75


def test_the_learning_curve_falls(trained: Trained) -> None:
    for member in range(CONFIG.ensemble_size):
        losses = [e.validation_loss for e in trained.history if (e.fold, e.member) == (1, member)]
        assert min(losses) < losses[0] or len(losses) == 1
    assert {(epoch.fold, epoch.member) for epoch in trained.history} == {
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
    }


def test_the_manifest_tells_the_window_and_stays_clear_of_the_test(trained: Trained) -> None:
    manifest = trained.manifest
    gap = manifest.test_start - manifest.training_end
    assert gap >= TASK.horizon + TASK.embargo
    assert manifest.training_start < manifest.training_end < manifest.test_start
    assert manifest.created_at == manifest.test_end + TASK.horizon
    assert manifest.source == "simulated"
    assert trained.predictions.height == manifest.metrics["test_rows"]


def test_no_test_row_changes_the_model(trained: Trained, tmp_path: Path) -> None:
    """Wrecking every test row leaves the trained program the same to the byte."""
    rows = model_worlds.training_set(signal=SIGNAL, days=8)
    start = trained.manifest.test_start
    wrecked = rows.with_columns(
        pl.when(pl.col("event_timestamp") >= start)
        .then(-9 * pl.col(name))
        .otherwise(name)
        .alias(name)
        for name in ("label", *(feature.name for feature in TASK.features))
    )
    again = train(tmp_path, wrecked)
    assert again.manifest.metrics != trained.manifest.metrics
    for name in ("model.stablehlo", "weights.safetensors"):
        assert (again.folder / name).read_bytes() == (trained.folder / name).read_bytes()


def short(**changes: Any) -> Task:
    training = dataclasses.replace(CONFIG, epochs=2, ensemble_size=1, **changes)
    return dataclasses.replace(TASK, training=training)


def test_another_seed_gives_another_model(tmp_path: Path) -> None:
    one = train(tmp_path / "one", task=short(seed=7))
    other = train(tmp_path / "other", task=short(seed=8))
    assert one.digest != other.digest


@pytest.fixture(scope="module")
def rows() -> Rows:
    frame = model_worlds.training_set(signal=SIGNAL, days=8)
    return rows_from_frame(frame, [feature.name for feature in TASK.features])


def test_nothing_from_a_folds_test_on_reaches_its_model_or_the_search(rows: Rows) -> None:
    """Scaling, networks and units of a fold, with the rows wrecked or not; so is the search's."""
    task, folds = short(search_trials=3), folds_of(rows, TASK)
    quiet = partial(train_folds, folds=folds, task=task, log=lambda _: None)
    honest = quiet(rows)
    for number, split in enumerate(folds):
        later = rows.events >= split.test_start
        wrecked = dataclasses.replace(
            rows,
            features=np.where(later[:, None], -9 * rows.features, rows.features),
            labels=np.where(later, -9 * rows.labels, rows.labels),
        )
        found = quiet(wrecked)
        assert (found.learning_rate, found.weight_decay) == (
            honest.learning_rate,
            honest.weight_decay,
        )
        expected = honest.ensembles[number].arrays()
        for name, values in found.ensembles[number].arrays().items():
            assert np.array_equal(values, expected[name]), (number, name)


def test_a_training_killed_between_two_slices_goes_on_to_the_same_numbers(
    rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_SLICE", 2)
    task = dataclasses.replace(
        TASK, training=dataclasses.replace(CONFIG, epochs=6, ensemble_size=1)
    )
    lines: list[str] = []

    def run(*, checkpoints: Checkpoints | None = None) -> TrainedFolds:
        return train_folds(
            rows, folds_of(rows, TASK), task, checkpoints=checkpoints, log=lines.append
        )

    whole = run()
    advance, calls = Runner.advance, []

    def dies(self: Runner, *arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return advance(self, *arguments)

    with monkeypatch.context() as killing:
        killing.setattr(Runner, "advance", dies)
        with pytest.raises(KeyboardInterrupt):
            run(checkpoints=Checkpoints(tmp_path / "kept", timedelta(0), lines.append))
    resumed = run(checkpoints=Checkpoints(tmp_path / "kept", timedelta(0), lines.append))
    assert any("going on from a checkpoint" in line for line in lines)
    assert resumed.history == whole.history
    for one, other in zip(resumed.ensembles, whole.ensembles, strict=True):
        pairs = zip(one.arrays().values(), other.arrays().values(), strict=True)
        assert all(np.array_equal(left, right) for left, right in pairs)


def test_a_broken_checkpoint_costs_time_and_nothing_else(rows: Rows, tmp_path: Path) -> None:
    lines: list[str] = []
    kept = Checkpoints(tmp_path / "kept", timedelta(0), lines.append)
    folds = folds_of(rows, TASK)
    whole = train_folds(rows, folds, short(), checkpoints=kept, log=lines.append)
    for file in (file for file in (tmp_path / "kept").rglob("*") if file.is_file()):
        file.write_bytes(b"cut short")
    again = Checkpoints(tmp_path / "kept", timedelta(0), lines.append)
    assert train_folds(rows, folds, short(), checkpoints=again, log=lines.append).history == (
        whole.history
    )


def test_another_process_builds_the_same_bundle(trained: Trained, tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; sys.path[:0] = sys.argv[2:];"
        "from test_training import train; print(train(pathlib.Path(sys.argv[1])).digest)"
    )
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[3])]
    answer = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "bundle"), *folders],
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.strip() == trained.digest


def test_a_feature_without_values_is_named_and_survived(tmp_path: Path) -> None:
    rows = model_worlds.training_set(signal=SIGNAL, days=8)
    empty = rows.with_columns(mvrv_ratio=pl.lit(None, pl.Float64))
    one = dataclasses.replace(CONFIG, epochs=1, ensemble_size=1)
    trained = train(tmp_path, empty, dataclasses.replace(TASK, training=one))
    assert trained.unseen == ("mvrv_ratio",)
    assert np.isfinite(trained.folds[-1].answers["expected_return"]).all()


def test_labels_that_never_vary_in_the_fit_part_are_refused(tmp_path: Path) -> None:
    rows = model_worlds.training_set(signal=SIGNAL, days=8)
    first = rows["event_timestamp"].min() + timedelta(days=5)
    flat = rows.with_columns(
        label=pl.when(pl.col("event_timestamp") < first).then(0.01).otherwise("label")
    )
    with pytest.raises(TrainingDataError, match="nothing to learn"):
        train(tmp_path, flat)


def test_a_loss_that_explodes_is_reported_with_the_setting_to_change(tmp_path: Path) -> None:
    wild = dataclasses.replace(TASK, training=dataclasses.replace(CONFIG, learning_rate=1e38))
    with pytest.raises(TrainingDataError, match="CRYPTOML_LEARNING_RATE"):
        train(tmp_path, task=wild)


@pytest.mark.parametrize("widths", [(), (16, 0), (-1,)])
def test_impossible_layers_are_refused_before_any_work(widths: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="hidden_units"):
        dataclasses.replace(CONFIG, hidden_units=widths)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_becomes_a_bundle_that_answers_as_its_trainer(
    family: Family, tmp_path: Path
) -> None:
    quick = dataclasses.replace(CONFIG, epochs=1, ensemble_size=1)
    task = dataclasses.replace(model_worlds.task_of(family), training=quick, folds=1)
    trained = train(tmp_path, task=task)
    bundle = load_bundle(tmp_path, expected_digest=trained.digest)
    newest = trained.folds[-1]
    for name, answers in bundle.predict(newest.rows.features).items():
        assert answers == pytest.approx(newest.answers[name], abs=1e-6)
    assert set(trained.manifest.metrics) >= {"trials", "sharpe_net", "crps_skill"}
