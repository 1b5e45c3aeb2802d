from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from cryptoml_assets.errors import TrainingDataError
from cryptoml_assets.features.catalog import model_features
from cryptoml_assets.models.rows import rows_from_frame
from tests import model_worlds

FRAME = model_worlds.training_set(signal=0.1, days=2)
FEATURES = model_features()


def test_rows_come_in_order_of_time_with_missing_values_as_nan() -> None:
    rows = rows_from_frame(FRAME.sample(fraction=1.0, shuffle=True, seed=1), FEATURES)
    assert len(rows) == len(FRAME)
    assert (np.diff(rows.events) >= np.timedelta64(0, "s")).all()
    assert rows.features.shape == (len(FRAME), len(FEATURES))
    assert np.isnan(rows.features).any()
    assert (rows.label_times - rows.events == np.timedelta64(1, "h")).all()
    assert rows.events[0] == np.datetime64("2024-01-01T00:05")


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (FRAME.clear(), "empty"),
        (FRAME.drop("volatility"), "lacks the columns volatility"),
        (FRAME.with_columns(label=pl.col("label").abs() + 1e-9), "one sign"),
        (FRAME.with_columns(label=pl.lit(float("nan"))), "not numbers"),
    ],
)
def test_rows_that_cannot_be_learnt_from_are_refused(frame: pl.DataFrame, words: str) -> None:
    with pytest.raises(TrainingDataError, match=words):
        rows_from_frame(frame, FEATURES)
