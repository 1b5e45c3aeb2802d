from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import polars as pl
import pytest

from cryptoml_assets.models import task as tasks
from cryptoml_assets.models.task import input_digest
from cryptoml_serving.contract.manifest import FeatureSpec
from tests import model_worlds

FRAME = model_worlds.training_set(signal=0.1, days=1)
CONFIG, INPUTS, TASK = model_worlds.CONFIG, model_worlds.INPUTS, model_worlds.TASK
DIGEST = input_digest(FRAME, TASK)


def test_names_of_the_same_rows_and_code_do_not_count() -> None:
    renamed = dataclasses.replace(TASK, lake_versions={"training_set": 9}, git_commit="abc")
    shuffled = FRAME.sample(fraction=1.0, shuffle=True, seed=1).select(reversed(FRAME.columns))
    assert input_digest(shuffled, renamed) == DIGEST


@pytest.mark.parametrize(
    "change",
    [
        {"model_name": "other"},
        {"family": "linear"},
        {"horizon": timedelta(hours=2)},
        {"bar": timedelta(minutes=1)},
        {"features": INPUTS[:-1]},
        {"features": (*INPUTS[:-1], FeatureSpec(name=INPUTS[-1].name, view="price_features"))},
        {"feature_service": "other"},
        {"test_share": 0.3},
        {"embargo": timedelta(0)},
        {"training": dataclasses.replace(CONFIG, seed=8)},
        {"training": dataclasses.replace(CONFIG, hidden_units=(16, 16))},
    ],
)
def test_every_part_of_the_task_counts(change: dict[str, Any]) -> None:
    assert input_digest(FRAME, dataclasses.replace(TASK, **change)) != DIGEST


@pytest.mark.parametrize(
    "column",
    [
        pl.col("label") + 1e-12,
        pl.col("label_timestamp") + pl.duration(minutes=5),
        pl.col("volatility") * 2,
        pl.col("symbol").str.replace("S0", "S9"),
        pl.lit("live").alias("source"),
    ],
)
def test_every_value_counts(column: pl.Expr) -> None:
    first = pl.int_range(pl.len()) == 0
    name = column.meta.output_name()
    moved = FRAME.with_columns(pl.when(first).then(column).otherwise(pl.col(name)).alias(name))
    assert input_digest(moved, TASK) != DIGEST


@pytest.mark.parametrize("part", ["code_digest", "library_versions"])
def test_code_and_libraries_count(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, part, lambda: "other")
    assert input_digest(FRAME, TASK) != DIGEST


@pytest.mark.parametrize("hidden_units", [(), (8, 0)])
def test_a_network_without_units_is_refused(hidden_units: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at least one layer"):
        dataclasses.replace(CONFIG, hidden_units=hidden_units)
