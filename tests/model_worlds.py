"""Small invented training sets with known truth, for the models and deployment rooms."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
from scipy.signal import lfilter

from cryptoml_assets.features.catalog import FEATURES, model_features
from cryptoml_assets.models.task import Task, TrainingConfig
from cryptoml_serving.contract.bundle import FeatureSpec

START = datetime(2024, 1, 1, tzinfo=UTC)
BAR = timedelta(minutes=5)
HORIZON_BARS = 12
INPUTS = tuple(FeatureSpec(name=f.name, view=f.table) for f in FEATURES if f.model_input)
CONFIG = TrainingConfig(
    hidden_units=(16,),
    epochs=8,
    batch_size=128,
    learning_rate=1e-2,
    weight_decay=1e-2,
    ensemble_size=2,
    seed=7,
)
TASK = Task(
    model_name="test",
    family="mlp",
    horizon=timedelta(hours=1),
    bar=timedelta(minutes=5),
    features=INPUTS,
    feature_service="service",
    test_share=0.25,
    embargo=timedelta(hours=1),
    training=CONFIG,
    lake_versions={"training_set": 3},
    git_commit="unknown",
)


def training_set(
    *, signal: float, days: int = 16, symbols: int = 2, seed: int = 0, nulls: float = 0.02
) -> pl.DataFrame:
    """A training set whose volatility clusters and whose return follows a visible driver.

    Args:
        signal: how much of an hour's spread the driver moves; 0 plants nothing.
        days: length of the history.
        symbols: how many, sharing most of their shocks.
        seed: of everything.
        nulls: share of feature values that is missing.
    """
    rng = np.random.default_rng(seed)
    bars = days * 288
    common = rng.standard_t(5, bars + HORIZON_BARS)
    calm = _persistent(rng, bars + HORIZON_BARS, 0.999) * 0.5
    frames = [
        _symbol(rng, f"S{index}/USDT", (common, calm), signal=signal, nulls=nulls)
        for index in range(symbols)
    ]
    return pl.concat(frames).sort("event_timestamp", "symbol")


def _symbol(
    rng: np.random.Generator,
    name: str,
    market: tuple[np.ndarray, np.ndarray],
    *,
    signal: float,
    nulls: float,
) -> pl.DataFrame:
    common, calm = market
    count = len(common) - HORIZON_BARS
    volatility = 0.001 * np.exp(calm + 0.2 * _persistent(rng, len(common), 0.99))
    driver = _persistent(rng, len(common), 0.9)
    shocks = 0.7 * common + 0.7 * rng.standard_t(5, len(common))
    drift = np.concatenate(([0.0], driver[:-1])) * signal / np.sqrt(HORIZON_BARS)
    path = np.concatenate(([0.0], np.cumsum(volatility * (shocks + drift))))
    labels = path[1 + HORIZON_BARS :] - path[1:-HORIZON_BARS]
    features = {feature: rng.normal(size=count) for feature in model_features()}
    features["log_return_12"] = driver[:count]
    features["volatility"] = volatility[:count]
    events = [START + BAR * (index + 1) for index in range(count)]
    frame = pl.DataFrame(
        {
            "symbol": [name] * count,
            "event_timestamp": pl.Series(events, dtype=pl.Datetime("us", "UTC")),
            "label": labels,
            **{
                feature: np.where(rng.random(count) < nulls, np.nan, values)
                for feature, values in features.items()
            },
            "source": ["simulated"] * count,
        }
    )
    return frame.with_columns(
        pl.col(model_features()).fill_nan(None),
        label_timestamp=pl.col("event_timestamp") + BAR * HORIZON_BARS,
    )


def _persistent(rng: np.random.Generator, count: int, memory: float) -> np.ndarray:
    """A stationary AR(1) of unit variance."""
    noise = rng.normal(size=count) * np.sqrt(1 - memory**2)
    noise[0] /= np.sqrt(1 - memory**2)
    return lfilter([1.0], [1.0, -memory], noise)
