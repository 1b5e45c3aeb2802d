"""Every feature, once.

The polars computation, the Feast views, the columns the UI shows, the inputs of a model and the
page in the docs all come from :data:`FEATURES`.

A price feature is an expression over one symbol's bars on a regular grid of ``timeframe`` steps,
a bar that did not happen being a row of nulls. A window is therefore a span of time, and a value is
null unless every bar of its window is there. Expressions see ``open_time``, ``close_time``,
``open``, ``high``, ``low``, ``close`` and ``volume``, oldest bar first. They are made of ``shift``,
of what works row by row, and of :mod:`~cryptoml_assets.features.windows`; a rolling kernel that
carries a running sum would make a value depend on where the slice began.

An on-chain feature is an expression over one row for each symbol and day: the network metrics of
the symbol's base asset beside the aggregates of the Ethereum blocks of that day.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import polars as pl

from cryptoml_assets.features.windows import moving_mean, moving_std, moving_zscore

Table = Literal["price_features", "onchain_features"]

#: Age past which a feature row is no longer used, in training joins and online alike.
TTL = timedelta(days=7)

_DAY_SECONDS = 86_400.0
_WEI_PER_GWEI = 1e9


@dataclass(frozen=True, eq=False)
class Feature:
    """One column of a feature table.

    Attributes:
        name: Column name, the same in the lake, in Feast and in the model bundle.
        table: The lake table and Feast view that hold it.
        expression: Value at each row; float64.
        warmup: Bars before the newest one that the value needs (0: the newest bar alone).
        unit: Unit of the value.
        description: Meaning, with the source of the formula where there is one.
        model_input: Whether models are trained on it. Levels (a price, a volume) are served for
            people and other consumers; models get stationary quantities.
    """

    name: str
    table: Table
    expression: pl.Expr
    warmup: int
    unit: str
    description: str
    model_input: bool = False


def _log_return(bars: int) -> pl.Expr:
    return (pl.col("close") / pl.col("close").shift(bars)).log()


def _mean_close(bars: int) -> pl.Expr:
    return moving_mean(pl.col("close"), bars)


def _volatility(bars: int) -> pl.Expr:
    return moving_std(_log_return(1), bars)


def _rsi(bars: int) -> pl.Expr:
    change = pl.col("close").diff()
    gain = moving_mean(change.clip(lower_bound=0.0), bars)
    loss = moving_mean((-change).clip(lower_bound=0.0), bars)
    return 100.0 / (1.0 + loss / gain)


def _day_phase() -> pl.Expr:
    since_midnight = pl.col("close_time") - pl.col("close_time").dt.truncate("1d")
    return since_midnight.dt.total_seconds().cast(pl.Float64) * (2.0 * math.pi / _DAY_SECONDS)


def _price(
    name: str,
    expression: pl.Expr,
    warmup: int,
    unit: str,
    description: str,
    *,
    model_input: bool = True,
) -> Feature:
    return Feature(name, "price_features", expression, warmup, unit, description, model_input)


def _onchain(
    name: str,
    expression: pl.Expr,
    unit: str,
    description: str,
    *,
    model_input: bool = False,
) -> Feature:
    return Feature(name, "onchain_features", expression, 0, unit, description, model_input)


FEATURES: tuple[Feature, ...] = (
    _price("price", pl.col("close"), 0, "quote", "Close of the bar.", model_input=False),
    _price("volume", pl.col("volume"), 0, "base", "Traded volume of the bar.", model_input=False),
    _price("sma_5", _mean_close(5), 4, "quote", "Mean close of 5 bars.", model_input=False),
    _price("sma_20", _mean_close(20), 19, "quote", "Mean close of 20 bars.", model_input=False),
    _price(
        "rsi",
        _rsi(14),
        14,
        "0-100",
        "Relative strength index of 14 bars with simple means of gains and losses (Cutler's form "
        "of Wilder, New Concepts in Technical Trading Systems, 1978): unlike Wilder's recursive "
        "smoothing it depends on its window and nothing older. Null where the close never moved.",
    ),
    _price(
        "volatility",
        _volatility(20),
        20,
        "log return per bar",
        "Sample standard deviation of 20 one-bar log returns; per bar, not annualised.",
    ),
    _price(
        "momentum",
        pl.col("close") / pl.col("close").shift(12) - 1.0,
        12,
        "ratio",
        "Close over the close 12 bars before, less 1.",
        model_input=False,
    ),
    _price("log_return_1", _log_return(1), 1, "log return", "Log return of one bar."),
    _price("log_return_3", _log_return(3), 3, "log return", "Log return of 3 bars."),
    _price("log_return_12", _log_return(12), 12, "log return", "Log return of 12 bars."),
    _price(
        "sma_gap_5",
        pl.col("close") / _mean_close(5) - 1.0,
        4,
        "ratio",
        "Close over its 5-bar mean, less 1.",
    ),
    _price(
        "sma_gap_20",
        pl.col("close") / _mean_close(20) - 1.0,
        19,
        "ratio",
        "Close over its 20-bar mean, less 1.",
    ),
    _price(
        "volatility_288",
        _volatility(288),
        288,
        "log return per bar",
        "Sample standard deviation of 288 one-bar log returns (a day of 5-minute bars).",
    ),
    _price(
        "high_low_range",
        (pl.col("high") / pl.col("low")).log(),
        0,
        "log ratio",
        "Log of the bar's high over its low.",
    ),
    _price(
        "volume_zscore",
        moving_zscore(pl.col("volume").log1p(), 288),
        287,
        "standard deviations",
        "Log volume against its mean and standard deviation over 288 bars.",
    ),
    _price("hour_sin", _day_phase().sin(), 0, "-1..1", "Sine of the UTC time of day at close."),
    _price("hour_cos", _day_phase().cos(), 0, "-1..1", "Cosine of the UTC time of day at close."),
    _onchain("active_addresses", pl.col("active_addresses"), "addresses", "Distinct active."),
    _onchain("transaction_count", pl.col("transaction_count"), "transactions", "Of the day."),
    _onchain("network_hash_rate", pl.col("hash_rate"), "hashes/s", "Mean hash rate of the day."),
    _onchain(
        "nvt_ratio",
        pl.col("nvt_ratio"),
        "ratio",
        "Network value over the value transferred in the day (Woo, 2017; adjusted).",
        model_input=True,
    ),
    _onchain(
        "mvrv_ratio",
        pl.col("mvrv_ratio"),
        "ratio",
        "Market value over realised value (Mahmudov and Puell, 2018).",
        model_input=True,
    ),
    _onchain(
        "eth_gas_used_ratio",
        pl.col("block_gas_used") / pl.col("block_gas_limit"),
        "0-1",
        "Gas used over gas limit, all finalised Ethereum blocks of the day; same for every symbol.",
        model_input=True,
    ),
    _onchain(
        "eth_base_fee_gwei",
        pl.col("block_base_fee") / _WEI_PER_GWEI,
        "gwei",
        "Mean base fee of the finalised Ethereum blocks of the day; same for every symbol.",
        model_input=True,
    ),
)


def features_of(table: Table) -> tuple[Feature, ...]:
    """The features of one table, in column order."""
    return tuple(feature for feature in FEATURES if feature.table == table)


def model_features() -> tuple[str, ...]:
    """Names of the model inputs, in the order a bundle holds them."""
    return tuple(feature.name for feature in FEATURES if feature.model_input)


def price_warmup() -> int:
    """Bars before a day's first one that the computation of that day reads."""
    return max(feature.warmup for feature in features_of("price_features"))
