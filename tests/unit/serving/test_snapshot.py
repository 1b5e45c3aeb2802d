from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
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
    placed, record = SimpleNamespace(role="champion"), SimpleNamespace(model_version="3")
    model: Any = ApprovedModel(placed, record, Echo())  # type: ignore[arg-type]
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
    assert made.invalid == 1
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
    row = [0.1, math.nan]
    base = prediction_id("a", "BTC/USDT", NOW, row)
    others = {
        prediction_id("b", "BTC/USDT", NOW, row),
        prediction_id("a", "ETH/USDT", NOW, row),
        prediction_id("a", "BTC/USDT", BAR, row),
        prediction_id("a", "BTC/USDT", NOW, [0.1, 0.0]),
        prediction_id("a", "BTC/USDT", NOW, [math.nan, 0.1]),
    }
    assert prediction_id("a", "BTC/USDT", NOW, row) == base
    assert len(others | {base}) == 6


def test_a_prediction_id_is_of_the_numbers_the_model_got_and_the_instant_itself() -> None:
    base = prediction_id("a", "BTC/USDT", NOW, [0.1, math.nan])
    # Of every NaN there is one, and of all that rounds to one 32-bit number too.
    other_nan = np.array([0x3DCCCCCD, 0xFFC00001], "<u4").view("<f4")
    assert np.isnan(other_nan[1])
    assert prediction_id("a", "BTC/USDT", NOW, other_nan) == base
    assert prediction_id("a", "BTC/USDT", NOW, [0.1 + 1e-12, -math.nan]) == base
    east = NOW.astimezone(timezone(timedelta(hours=9)))
    assert prediction_id("a", "BTC/USDT", east, [0.1, math.nan]) == base
    assert prediction_id("a", "BTC/USDT", NOW, [1e300]) == prediction_id(
        "a", "BTC/USDT", NOW, [math.inf]
    )
    # Ids are kept for years: another rule would orphan them all.
    assert str(base) == "2485dcc3-753b-527f-b282-5a65c8330c3e"


def test_other_inputs_of_the_same_instant_are_another_prediction() -> None:
    """A revised bar, or a block that comes late, changes what is answered for an instant."""
    one, other = (snapshot([value, 0.5], [BAR, BAR]).predictions for value in (0.25, 0.75))
    assert one["S0"].prediction_id != other["S0"].prediction_id
    assert one["S1"].prediction_id == other["S1"].prediction_id
