from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cryptoml_serving.contract.prediction import prediction_id
from cryptoml_serving.runtime.features import FeatureRows
from cryptoml_serving.runtime.registry import ApprovedModel
from cryptoml_serving.runtime.snapshot import Snapshot, build_snapshot

NOW = datetime(2024, 3, 1, 12, tzinfo=UTC)
BAR = NOW - timedelta(minutes=5)


class Echo:
    """A bundle whose expected return is its first feature, surer than sure of a return of 7."""

    digest = "d" * 64
    manifest = SimpleNamespace(model_name="m", horizon_seconds=3600, source="simulated")

    def predict(self, features: NDArray[np.float64]) -> dict[str, NDArray[np.float32]]:
        first = features[:, 0].astype(np.float32)
        half = np.full(len(first), 0.5, np.float32)
        return {
            "expected_return": first,
            "lower": first - half,
            "upper": first + half,
            "probability_up": np.where(first == 7, np.float32(1.5), half),
        }


def snapshot(values: list[float], timestamps: list[datetime | None]) -> Snapshot:
    symbols = tuple(f"S{row}" for row in range(len(values)))
    rows = FeatureRows(symbols, np.array(values)[:, None], tuple(timestamps))
    model: Any = ApprovedModel(SimpleNamespace(model_version="3"), Echo())  # type: ignore[arg-type]
    return build_snapshot(model, rows, NOW)


def test_each_symbol_gets_its_own_row() -> None:
    made = snapshot([0.25, -0.5], [BAR, NOW])
    assert made.predictions["S0"].expected_return == 0.25
    assert made.predictions["S1"].expected_return == -0.5
    assert made.predictions["S0"].feature_age_seconds == 300
    assert made.predictions["S1"].feature_timestamp == NOW
    assert made.missing == {}


def test_one_symbol_without_features_does_not_keep_the_others() -> None:
    made = snapshot([0.25, 0.5], [None, BAR])
    assert made.missing.keys() == {"S0"}
    assert made.predictions.keys() == {"S1"}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_no_number_is_no_prediction(value: float) -> None:
    made = snapshot([value, 0.5], [BAR, BAR])
    assert made.missing.keys() == {"S0"}
    assert made.predictions.keys() == {"S1"}


def test_an_answer_that_is_no_prediction_does_not_keep_the_others() -> None:
    made = snapshot([7.0, 0.5], [BAR, BAR])
    assert made.missing.keys() == {"S0"}
    assert made.predictions.keys() == {"S1"}


def test_a_snapshot_cannot_be_changed() -> None:
    made = snapshot([0.25], [BAR])
    with pytest.raises(TypeError):
        made.predictions["S0"] = made.predictions["S0"]  # type: ignore[index]


def test_prediction_ids_name_model_symbol_and_instant() -> None:
    base = prediction_id("a", "BTC/USDT", NOW)
    others = {
        prediction_id("b", "BTC/USDT", NOW),
        prediction_id("a", "ETH/USDT", NOW),
        prediction_id("a", "BTC/USDT", BAR),
    }
    assert prediction_id("a", "BTC/USDT", NOW) == base
    assert len(others | {base}) == 4
