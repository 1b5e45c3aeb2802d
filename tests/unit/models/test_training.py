from __future__ import annotations

import dataclasses
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cryptoml_assets.errors import TrainingDataError
from cryptoml_assets.models.candidates import Trained, train_candidate
from cryptoml_assets.models.task import Task
from tests import model_worlds

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
        losses = [e.validation_loss for e in trained.history if e.member == member]
        assert min(losses) < losses[0] or len(losses) == 1
    assert {epoch.member for epoch in trained.history} == {0, 1}


def test_the_manifest_tells_the_window_and_stays_clear_of_the_test(trained: Trained) -> None:
    manifest = trained.manifest
    gap = manifest.test_start - manifest.training_end
    assert gap >= TASK.horizon + TASK.embargo
    assert manifest.training_start < manifest.training_end < manifest.test_start
    assert manifest.created_at == manifest.test_end + TASK.horizon
    assert manifest.source == "simulated"
    assert trained.predictions.height == manifest.metrics["test_rows"]


def test_no_test_row_changes_the_model(trained: Trained, tmp_path: Path) -> None:
    """Wrecking every test label leaves the trained program the same to the byte."""
    rows = model_worlds.training_set(signal=SIGNAL, days=8)
    start = trained.manifest.test_start
    wrecked = rows.with_columns(
        label=pl.when(pl.col("event_timestamp") >= start)
        .then(-9 * pl.col("label"))
        .otherwise("label")
    )
    again = train(tmp_path, wrecked)
    assert again.manifest.metrics != trained.manifest.metrics
    for name in ("model.stablehlo", "weights.safetensors"):
        assert (again.folder / name).read_bytes() == (trained.folder / name).read_bytes()


def test_another_seed_gives_another_model(trained: Trained, tmp_path: Path) -> None:
    other = dataclasses.replace(TASK, training=dataclasses.replace(CONFIG, seed=8, epochs=1))
    assert train(tmp_path, task=other).digest != trained.digest


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
    assert np.isfinite(trained.answers["expected_return"]).all()


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
