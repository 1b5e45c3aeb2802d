"""Rows no model can be made of are refused in words, and leave nothing that could be registered."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from cryptoml_assets.errors import TrainingDataError
from cryptoml_assets.models.candidates import Trained, train_candidate
from tests import model_worlds

FRAME = model_worlds.training_set(signal=0.5, days=4)


def train(frame: pl.DataFrame, folder: Path, **change: Any) -> Trained:
    task = replace(model_worlds.task_of("linear"), **({"folds": 2} | change))
    return train_candidate(frame, task, folder / "bundle", log=lambda _: None)


def until(days: float, label: pl.Expr) -> pl.DataFrame:
    """The training set with other labels before so many days are over."""
    edge = model_worlds.START + timedelta(days=days)
    early = pl.col("event_timestamp") < edge
    return FRAME.with_columns(label=pl.when(early).then(label).otherwise("label"))


@pytest.mark.parametrize(
    ("frame", "change", "words"),
    [
        (FRAME.head(30), {}, "folds=2 with test_share=0.25 .*more rows are needed"),
        (FRAME, {"folds": 4}, "folds=4 with test_share=0.25 .*folds=2 or test_share=0.18 would do"),
        (FRAME, {"embargo": timedelta(days=3)}, "embargo of 3 days"),
        (
            until(2, pl.col("label").abs() + 1e-9),
            {},
            "100% of the .* labels .* no direction to learn",
        ),
        (until(0.1, pl.lit(None, pl.Float64)), {}, "labels of .* are not numbers"),
        (until(0.1, pl.lit(float("inf"))), {}, "labels of .* are not numbers"),
        (FRAME.drop("rsi"), {}, "lacks the columns rsi"),
    ],
    ids=["few rows", "many folds", "long embargo", "one class", "null", "infinite", "no column"],
)
def test_rows_that_cannot_be_learnt_from_leave_no_bundle(
    frame: pl.DataFrame, change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(TrainingDataError, match=words):
        train(frame, tmp_path, **change)
    assert not list(tmp_path.iterdir())


def test_values_that_are_no_numbers_count_as_missing(tmp_path: Path) -> None:
    """Infinite and NaN values, one feature all null: answers are numbers, and the feature named."""
    ninth = pl.int_range(pl.len()) % 9
    wrecked = FRAME.with_columns(
        rsi=pl.lit(None, pl.Float64),
        log_return_1=pl.when(ninth == 0).then(float("inf")).otherwise("log_return_1"),
        high_low_range=pl.when(ninth == 1).then(float("nan")).otherwise("high_low_range"),
    )
    trained = train(wrecked, tmp_path)
    assert trained.unseen == ("rsi",)
    for fold in trained.folds:
        assert np.isfinite(list(fold.answers.values())).all()
