"""Small invented training sets with known truth, for the models and deployment rooms."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Literal

import numpy as np
import polars as pl
from scipy.signal import lfilter

from cryptoml_assets.features.catalog import (
    model_features,
    row_inputs,
    window_channels,
    window_inputs,
)
from cryptoml_assets.models.options import WINDOWED, Family
from cryptoml_assets.models.task import Task, TrainingConfig
from cryptoml_serving.contract.manifest import FeatureSpec

START = datetime(2024, 1, 1, tzinfo=UTC)
BAR = timedelta(minutes=5)
HORIZON_BARS = 12
INPUTS = tuple(FeatureSpec(name=f.name, view=f.table) for f in row_inputs())
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
    folds=2,
)


def task_of(family: Family) -> Task:
    """The task of any family, over the inputs it reads."""
    if family not in WINDOWED:
        return replace(TASK, family=family)
    inputs = tuple(FeatureSpec(name=f.name, view=f.table) for f in window_inputs())
    return replace(TASK, family=family, features=inputs, channels=window_channels())


#: What the planted driver is: a feature, how far a feature is from its mean on either side, or what
#: only older bars of the window tell.
Shape = Literal["linear", "folded", "windowed"]


def training_set(
    *,
    signal: float,
    days: int = 16,
    symbols: int = 2,
    seed: int = 0,
    nulls: float = 0.02,
    shape: Shape = "linear",
    clusters: float = 1.0,
) -> pl.DataFrame:
    """A training set whose volatility clusters and whose return follows a visible driver.

    Args:
        signal: how much of an hour's spread the driver moves; 0 plants nothing.
        days: length of the history.
        symbols: how many, sharing most of their shocks.
        seed: of everything.
        nulls: share of feature values that is missing.
        shape: how the driver follows from the features.
        clusters: how much the log of the volatility varies; with 0 it is always the same, and
            nothing but the driver tells anything of a return.
    """
    rng = np.random.default_rng(seed)
    bars = days * 288
    common = rng.standard_t(5, bars + HORIZON_BARS)
    calm = _persistent(rng, bars + HORIZON_BARS, 0.999) * 0.5
    market = (common, calm, clusters)
    frames = [
        _symbol(rng, f"S{index}/USDT", market, signal=signal, nulls=nulls, shape=shape)
        for index in range(symbols)
    ]
    return pl.concat(frames).sort("event_timestamp", "symbol")


def _symbol(
    rng: np.random.Generator,
    name: str,
    market: tuple[np.ndarray, np.ndarray, float],
    *,
    signal: float,
    nulls: float,
    shape: Shape,
) -> pl.DataFrame:
    common, calm, clusters = market
    count = len(common) - HORIZON_BARS
    wild = clusters * (calm + 0.2 * _persistent(rng, len(common), 0.99))
    volatility = 0.001 * np.exp(wild)
    driver, visible = _driver(rng, len(common), shape)
    shocks = 0.7 * common + 0.7 * rng.standard_t(5, len(common))
    drift = np.concatenate(([0.0], driver[:-1])) * signal / np.sqrt(HORIZON_BARS)
    path = np.concatenate(([0.0], np.cumsum(volatility * (shocks + drift))))
    labels = path[1 + HORIZON_BARS :] - path[1:-HORIZON_BARS]
    features = {feature: rng.normal(size=count) for feature in model_features()}
    features |= {feature: values[:count] for feature, values in visible.items()}
    features["volatility"] = volatility[:count]
    for *lags, newest in window_channels():
        for steps, lag in enumerate(reversed(lags), 1):
            features[lag] = np.concatenate([np.full(steps, np.nan), features[newest][:-steps]])
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


def _driver(
    rng: np.random.Generator, count: int, shape: Shape
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """What moves returns, of unit variance, and the features that tell it."""
    if shape == "windowed":
        moves = rng.normal(size=count)
        # The mean of the bars 12 to 15 before, so the newest bar tells nothing of the next hour.
        return lfilter([0.0] * 12 + [0.5] * 4, [1.0], moves), {"log_return_1": moves}
    if shape == "folded":
        level = _persistent(rng, count, 0.95)
        distance = np.abs(level) - np.sqrt(2 / np.pi)
        return distance / np.sqrt(1 - 2 / np.pi), {"log_return_12": level}
    driver = _persistent(rng, count, 0.9)
    return driver, {"log_return_12": driver}


def _persistent(rng: np.random.Generator, count: int, memory: float) -> np.ndarray:
    """A stationary AR(1) of unit variance."""
    noise = rng.normal(size=count) * np.sqrt(1 - memory**2)
    noise[0] /= np.sqrt(1 - memory**2)
    return lfilter([1.0], [1.0, -memory], noise)
