"""The steps back from a prediction, each by what the one before says."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl

from cryptoml_assets.deployment.lineage import (
    Input,
    bar_window,
    changed_values,
    day_window,
    decision_of,
    input_row,
    inputs_of,
)
from cryptoml_assets.features.catalog import TTL, features_of
from cryptoml_assets.resources.lake import Lake
from cryptoml_serving.contract.manifest import FeatureSpec
from tests.deployment_world import BEGAN, MODEL, decided, decision, subject
from tests.serving_world import _manifest

BAR = timedelta(minutes=5)
DAY = timedelta(days=1)


def made_by(version: int, sequence: int) -> dict[str, Any]:
    about = subject(version)
    return {
        "model_name": MODEL,
        "model_version": about.model_version,
        "bundle_digest": about.bundle_digest,
        "sequence": sequence,
    }


def test_the_decision_is_the_one_in_force_when_the_prediction_was_made(tmp_path: Path) -> None:
    entries = decided(
        Lake(str(tmp_path)),
        decision(1),
        decision(2, "approve", "shadow"),
        decision(2, "promote"),
        decision(1, "rollback"),
    )

    def sequence(version: int, at: int) -> int | None:
        found = decision_of(entries, made_by(version, at))
        return found.record.sequence if found else None

    assert [sequence(1, at) for at in range(4)] == [0, 0, None, 3]
    assert [sequence(2, at) for at in range(4)] == [None, 1, 2, None]
    other = made_by(1, 0) | {"bundle_digest": "f" * 64}
    assert decision_of(entries, other) is None


def test_an_input_is_the_newest_row_that_was_known(tmp_path: Path) -> None:
    manifest = _manifest(
        features=(
            FeatureSpec(name="mvrv_ratio", view="onchain_features"),
            FeatureSpec(name="rsi", view="price_features"),
        )
    )
    rows = pl.LazyFrame(
        {
            "symbol": ["A", "A", "B"],
            "event_timestamp": [BEGAN, BEGAN + DAY, BEGAN + 2 * DAY],
            "mvrv_ratio": [1.0, None, 3.0],
            "nvt_ratio": [1.0, 2.0, 3.0],
            "null_reason": [None, "missing_day", None],
        }
    )

    def row(at: Any, computed: Any) -> Input:
        asked = {"symbol": "A", "feature_timestamp": at, "computed_at": computed}
        return input_row(rows, manifest, "onchain_features", asked, ttl=TTL)

    second = BEGAN + DAY
    assert row(second - BAR, second) == Input(
        "onchain_features", BEGAN, known_in_time=True, values={"mvrv_ratio": 1.0}
    )
    found = row(BEGAN + 3 * DAY, second - BAR)
    assert (found.event_timestamp, found.known_in_time) == (second, False)
    assert (found.values, found.null_reason) == ({"mvrv_ratio": None}, "missing_day")
    assert row(second + TTL, second + TTL).event_timestamp == second
    gone = row(second + TTL + BAR, second + TTL)
    assert (gone.event_timestamp, gone.known_in_time) == (None, False)
    assert [feature.name for feature in inputs_of(manifest, "price_features")] == ["rsi"]


def test_changed_values_are_those_that_differ() -> None:
    def of(**values: float | None) -> Input:
        return Input("price_features", BEGAN, known_in_time=True, values=values)

    nan = float("nan")
    old = of(same=1.0, moved=1.0, lost=1.0, found=None, absent=None, odd=nan)
    new = of(same=1.0, moved=2.0, lost=None, found=3.0, absent=None, odd=nan)
    assert changed_values(old, new) == {"moved": 2.0, "lost": None, "found": 3.0}


def test_windows_reach_back_as_far_as_the_longest_feature() -> None:
    own = {feature.name: feature for feature in features_of("price_features")}
    both = (own["log_return_1"], own["momentum"])
    assert bar_window(both, BEGAN, BAR) == (BEGAN - 13 * BAR, BEGAN)
    daily = tuple(f for f in features_of("onchain_features") if f.name == "mvrv_ratio")
    assert day_window(daily, BEGAN) == (BEGAN, BEGAN + DAY)
