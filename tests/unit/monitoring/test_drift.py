from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from cryptoml_assets.monitoring.drift import (
    SCHEMA,
    Share,
    drifted_share,
    feature_drift,
    least_independent_rows,
    population_stability,
)

END = datetime(2024, 3, 1, tzinfo=UTC)
WINDOW = (END - timedelta(days=7), END)


def frame(rows: int, seed: int, shift: float = 0.0, symbol: str = "BTC/USDT") -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "symbol": [symbol] * rows,
            "source": ["simulated"] * rows,
            "still": rng.standard_normal(rows),
            "moved": rng.standard_normal(rows) + shift,
        }
    )


def report(
    reference: pl.DataFrame, current: pl.DataFrame, spans: dict[str, int] | None = None
) -> pl.DataFrame:
    return feature_drift(
        reference, current, spans or {"still": 1, "moved": 1}, threshold=0.25, window=WINDOW
    )


def test_the_index_equals_its_definition_on_known_shares() -> None:
    reference = np.arange(1000.0)
    current = np.concatenate([np.full(550, 50.0), np.arange(550.0, 1000.0)])
    shares = np.array([0.55, 0, 0, 0, 0, 0.05, 0.1, 0.1, 0.1, 0.1]).clip(1e-4)
    expected = float(((shares - 0.1) * np.log(shares / 0.1)).sum())
    assert population_stability(reference, current) == pytest.approx(expected, rel=0.02)


def test_the_index_of_a_sample_against_itself_is_zero() -> None:
    values = np.random.default_rng(0).standard_normal(500)
    assert population_stability(values, values) == 0.0


def test_the_index_of_few_distinct_values_is_finite() -> None:
    reference = np.array([0.0] * 900 + [1.0] * 100)
    assert population_stability(reference, reference) == 0.0
    assert 0.25 < population_stability(reference, np.ones(100)) < 20


def test_without_drift_the_index_averages_what_theory_says() -> None:
    rng = np.random.default_rng(3)
    rows, recent = 5000, 200
    mean = np.mean(
        [
            population_stability(rng.standard_normal(rows), rng.standard_normal(recent))
            for _ in range(200)
        ]
    )
    assert mean == pytest.approx(9 * (1 / rows + 1 / recent), rel=0.15)


def test_only_the_feature_that_moved_has_drifted() -> None:
    drifted = report(frame(4000, 1), frame(1000, 2, shift=1.0))
    assert drifted.schema == SCHEMA
    by_feature = {row["feature"]: row for row in drifted.to_dicts()}
    assert by_feature["moved"]["drifted"]
    assert by_feature["moved"]["psi"] > 0.25
    assert not by_feature["still"]["drifted"]
    assert by_feature["still"] | {"psi": None} == {
        "feature": "still",
        "symbol": "BTC/USDT",
        "psi": None,
        "threshold": 0.25,
        "drifted": False,
        "window_start": WINDOW[0],
        "window_end": WINDOW[1],
        "reference_rows": 4000,
        "current_rows": 1000,
        "source": "simulated",
    }
    assert drifted_share(drifted) == Share(drifted=1, judged=2)
    assert drifted_share(drifted).share == 0.5


def test_too_few_independent_rows_are_not_judged() -> None:
    least = round(least_independent_rows(0.25))
    assert least == 36
    spans = {"still": 1, "moved": 2}
    moved = report(frame(4000, 1), frame(2 * least - 1, 2, shift=5.0), spans)
    judged = dict(zip(moved["feature"], moved["psi"].is_not_null(), strict=True))
    assert judged == {"still": True, "moved": False}
    assert not moved.filter(pl.col("feature") == "moved")["drifted"].item()


def test_nulls_are_not_counted() -> None:
    current = frame(1000, 2).with_columns(
        moved=pl.when(pl.int_range(pl.len()) % 2 == 0).then("moved")
    )
    rows = report(frame(4000, 1), current)
    assert dict(zip(rows["feature"], rows["current_rows"], strict=True)) == {
        "still": 1000,
        "moved": 500,
    }


def test_symbols_are_compared_with_their_own_past() -> None:
    ether = "ETH/USDT"
    reference = pl.concat([frame(2000, 1), frame(2000, 2, shift=3.0, symbol=ether)])
    current = pl.concat([frame(500, 3), frame(500, 4, shift=3.0, symbol=ether)])
    assert drifted_share(report(reference, current)) == Share(drifted=0, judged=4)


def test_nothing_judged_is_no_drift() -> None:
    empty = report(frame(4000, 1), frame(3, 2))
    assert drifted_share(empty).share == 0.0
