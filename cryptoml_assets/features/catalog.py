"""Every feature, once.

The computation, the Feast views, the columns the UI shows, the inputs of a model and the page in
the docs all come from :data:`FEATURES`: a new feature is one entry there and nothing else.

A feature is a term (:mod:`~cryptoml_assets.features.terms`) over a regular grid, a row that did not
happen being missing. Price features see the bars of a symbol: ``open``, ``high``, ``low``,
``close`` and ``volume``, and the phase of day and week. On-chain features see one row for each UTC
day: the network metrics of the symbol's base asset beside the aggregates of the Ethereum blocks of
that day. A window is therefore a span of time. A value is null unless every row its formula names
is there, and where the formula has none.
"""

from __future__ import annotations

import hashlib

from cryptoml_assets.features import formulas as f
from cryptoml_assets.features.entries import (
    changes,
    checked,
    daily,
    lags,
    macd,
    price,
    prices,
    rank,
    waves,
)
from cryptoml_assets.features.feature import BLOCKS, METRICS, Feature, Table
from cryptoml_assets.features.terms import column, log
from cryptoml_assets.features.windows import window_mean, window_sum
from cryptoml_serving.contract.feature_store import TIME_TO_LIVE

#: Age past which a feature row is no longer used, in training joins and online alike.
TTL = TIME_TO_LIVE

#: The symbol that stands for the market in beta and correlation.
MARKET = "BTC/USDT"

#: Bars before the newest one that a window holds.
LAGS = 15

_ADDRESSES, _TRANSACTIONS, _HASH_RATE, _NVT, _MVRV = map(column, METRICS)
_GAS_USED, _GAS_LIMIT, _BASE_FEE, _BLOCK_TRANSACTIONS, _BLOCK_ADDRESSES, _ABOVE_TARGET = (
    column(name, shared=True) for name in BLOCKS
)
_GWEI = 1e-9


FEATURES: tuple[Feature, ...] = checked(
    # Level and trend. The names price, volume, sma_5, sma_20, rsi, volatility and momentum, and
    # the first five of the on-chain features, are fixed: others build on them.
    price("price", f.CLOSE, "quote", "Close of the bar."),
    price("volume", f.VOLUME, "base", "Traded volume of the bar."),
    *prices(
        (5, 20), "sma_{n}", lambda n: window_mean(f.CLOSE, n), "quote", "Mean close of {n} bars."
    ),
    price(
        "rsi",
        f.rsi(14),
        "0-100",
        "Relative strength index: smoothed gains over smoothed moves of the close, with Wilder's "
        f"smoothing of span 14 (Wilder, New Concepts in Technical Trading Systems, 1978) over "
        f"{f.rsi(14).reach} changes; older weights, a millionth of all, are cut off. Null where "
        "the close never moved.",
        window=15,
        model=True,
    ),
    price(
        "volatility",
        f.volatility(20),
        "log return per bar",
        "Sample standard deviation of 20 one-bar log returns; per bar, not annualised.",
        model=True,
    ),
    price("momentum", f.momentum(12), "ratio", "Close over the close 12 bars before, less 1."),
    price(
        "log_return_1",
        f.log_return(),
        "log return",
        "Log of the close over the close before.",
        model=True,
    ),
    *prices(
        (3, 12, 48, 288),
        "log_return_{n}",
        f.log_return,
        "log return",
        "Log of the close over the close {n} bars before.",
        model=(3, 12),
    ),
    *prices(
        (48, 288),
        "momentum_{n}",
        f.momentum,
        "ratio",
        "Close over the close {n} bars before, less 1.",
    ),
    *prices(
        (5, 20),
        "sma_gap_{n}",
        f.mean_gap,
        "ratio",
        "Close over its {n}-bar mean, less 1.",
        model=(5, 20),
    ),
    *prices(
        (7,), "rsi_{n}", f.rsi, "0-100", "As rsi, of span {n} over {kept} changes.", smoothed=True
    ),
    *macd(
        "macd",
        (12, 26, 9),
        "Appel, The Moving Average Convergence-Divergence Trading Method, 1979",
    ),
    *macd("macd_fast", (6, 13, 5), "macd with about half its spans"),
    # Volatility and ranges.
    *prices(
        (48, 288),
        "volatility_{n}",
        f.volatility,
        "log return per bar",
        "Sample standard deviation of {n} one-bar log returns; per bar, not annualised.",
        model=(288,),
    ),
    *prices(
        (48, 288),
        "realised_volatility_{n}",
        f.realised_volatility,
        "log return",
        "Realised volatility: root of the sum of {n} squared one-bar log returns, of the whole "
        "window (Andersen, Bollerslev, Diebold and Labys, Modeling and Forecasting Realized "
        "Volatility, 2003).",
    ),
    price(
        "high_low_range",
        log(f.HIGH / f.LOW),
        "log ratio",
        "Log of the bar's high over its low.",
        model=True,
    ),
    *prices(
        (48, 288),
        "parkinson_{n}",
        f.parkinson,
        "log return per bar",
        "Volatility from the ranges of {n} bars (Parkinson, The Extreme Value Method for "
        "Estimating the Variance of the Rate of Return, 1980).",
    ),
    *prices(
        (48, 288),
        "garman_klass_{n}",
        f.garman_klass,
        "log return per bar",
        "Volatility from open, high, low and close of {n} bars (Garman and Klass, On the "
        "Estimation of Security Price Volatilities from Historical Data, 1980). Null where the "
        "estimated variance is negative.",
    ),
    *prices(
        (14, 7),
        "atr_{n}",
        f.average_true_range,
        "quote",
        "Average true range: Wilder's smoothing of span {n} over {kept} true ranges (Wilder, "
        "1978).",
        smoothed=True,
    ),
    *prices(
        (14, 7),
        "atr_ratio_{n}",
        lambda n: f.average_true_range(n) / f.CLOSE,
        "ratio",
        "atr_{n} over the close.",
        smoothed=True,
    ),
    *prices(
        (20, 48),
        "bollinger_position_{n}",
        f.bollinger_position,
        "ratio",
        "Close between the bands of {n} bars and two standard deviations: 0 at the lower, 1 at "
        "the upper (Bollinger, Bollinger on Bollinger Bands, 2001; there %b). Null where the "
        "close never moved.",
    ),
    *prices(
        (20, 48),
        "bollinger_width_{n}",
        f.bollinger_width,
        "ratio",
        "Distance of those bands over their mean (there BandWidth).",
    ),
    # Shape of returns.
    *prices(
        (48, 288),
        "skewness_{n}",
        f.skewness,
        "1",
        "Sample skewness of {n} one-bar log returns (G1 of Joanes and Gill, Comparing Measures of "
        "Sample Skewness and Kurtosis, 1998). Null where their mean is over 50 times their spread.",
    ),
    *prices(
        (48, 288),
        "kurtosis_{n}",
        f.kurtosis,
        "1",
        "Sample excess kurtosis of {n} one-bar log returns (G2 of Joanes and Gill, 1998). Null "
        "where their mean is over 50 times their spread.",
    ),
    # Volume and liquidity.
    price(
        "volume_zscore",
        f.volume_zscore(288),
        "standard deviations",
        "Log of 1 + volume against its mean and sample standard deviation over 288 bars. Null "
        "where the volume never varied.",
        model=True,
    ),
    *prices(
        (48,),
        "volume_zscore_{n}",
        f.volume_zscore,
        "standard deviations",
        "As volume_zscore, over {n} bars.",
    ),
    *prices(
        (48, 288),
        "illiquidity_{n}",
        f.illiquidity,
        "log return per million quote",
        "Mean of the absolute one-bar log return over the quote volume, of {n} bars (Amihud, "
        "Illiquidity and Stock Returns, 2002). Null where a bar traded nothing.",
    ),
    # Against the market and the other symbols.
    *prices(
        (48, 288),
        "beta_btc_{n}",
        lambda n: f.beta(MARKET, n),
        "ratio",
        f"Slope of {{n}} one-bar log returns on those of {MARKET} (Sharpe, A Simplified Model for "
        "Portfolio Analysis, 1963).",
    ),
    *prices(
        (48, 288),
        "correlation_btc_{n}",
        lambda n: f.correlation(MARKET, n),
        "-1..1",
        f"Pearson correlation of {{n}} one-bar log returns with those of {MARKET}.",
    ),
    rank("log_return_12", f.log_return(12)),
    rank("log_return_288", f.log_return(288)),
    rank("volatility_48", f.volatility(48)),
    rank("volume_zscore", f.volume_zscore(288)),
    # Calendar.
    *waves("hour", f.DAY_PHASE, "UTC time of day at close", model=True),
    *waves("weekday", f.WEEK_PHASE, "UTC time of the week at close, 0 on Monday"),
    # The bars before, as channels that models of windows read: a row holds a whole window.
    *lags("log_return_1", f.log_return(), LAGS, "log return"),
    *lags("high_low_range", log(f.HIGH / f.LOW), LAGS, "log ratio"),
    # The network of the symbol's base asset.
    daily("active_addresses", _ADDRESSES, "addresses", "Distinct addresses active in the day."),
    daily("transaction_count", _TRANSACTIONS, "transactions", "Transactions of the day."),
    daily("network_hash_rate", _HASH_RATE, "hashes/s", "Mean hash rate of the day."),
    daily(
        "nvt_ratio",
        _NVT,
        "ratio",
        "Network value over the value transferred in the day (Woo, 2017; adjusted).",
        model=True,
    ),
    daily(
        "mvrv_ratio",
        _MVRV,
        "ratio",
        "Market value over realised value (Mahmudov and Puell, 2018).",
        model=True,
    ),
    *changes("active_address_growth", _ADDRESSES, "the day's active addresses"),
    *changes("transaction_growth", _TRANSACTIONS, "the day's transactions"),
    *changes("hash_rate_change", _HASH_RATE, "the day's hash rate"),
    *changes("nvt_change", _NVT, "the day's nvt_ratio"),
    *changes("mvrv_change", _MVRV, "the day's mvrv_ratio"),
    # Finalised Ethereum blocks of the day, the same for every symbol.
    daily(
        "eth_gas_used_ratio",
        _GAS_USED / _GAS_LIMIT,
        "0-1",
        "Gas used over gas limit of the day's finalised Ethereum blocks.",
        model=True,
    ),
    daily(
        "eth_gas_used_ratio_7",
        window_sum(_GAS_USED, 7) / window_sum(_GAS_LIMIT, 7),
        "0-1",
        "Gas used over gas limit of the finalised Ethereum blocks of 7 days.",
    ),
    daily(
        "eth_base_fee_gwei",
        _BASE_FEE * _GWEI,
        "gwei",
        "Mean base fee of the day's finalised Ethereum blocks.",
        model=True,
    ),
    *changes(
        "eth_base_fee_change",
        _BASE_FEE,
        "the mean base fee of the day's finalised Ethereum blocks",
    ),
    *changes(
        "eth_transaction_growth",
        _BLOCK_TRANSACTIONS,
        "the mean transactions of the day's finalised Ethereum blocks",
    ),
    *changes(
        "eth_active_address_growth",
        _BLOCK_ADDRESSES,
        "the mean active addresses of the day's finalised Ethereum blocks",
    ),
    daily(
        "eth_fee_pressure",
        _ABOVE_TARGET,
        "0-1",
        "Share of the day's finalised Ethereum blocks above the gas target, half the limit, past "
        "which the base fee rises (EIP-1559).",
    ),
    daily(
        "eth_fee_pressure_7",
        window_mean(_ABOVE_TARGET, 7),
        "0-1",
        "Mean of eth_fee_pressure over 7 days.",
    ),
)


def version_of(table: Table) -> str:
    """A text that changes with the features of a table: their names, order and formulas."""
    formulas = [f"{feature.name}={feature.term.digest}" for feature in features_of(table)]
    return hashlib.sha256("\n".join(formulas).encode()).hexdigest()[:12]


def features_of(table: Table) -> tuple[Feature, ...]:
    """The features of one table, in column order."""
    return tuple(feature for feature in FEATURES if feature.table == table)


def model_features() -> tuple[str, ...]:
    """Names of the inputs of any model, in the order a bundle holds them."""
    return tuple(feature.name for feature in window_inputs())


def row_inputs() -> tuple[Feature, ...]:
    """The inputs of a model that reads one bar: no lags."""
    return tuple(feature for feature in window_inputs() if feature.lag_of is None)


def window_inputs() -> tuple[Feature, ...]:
    """The inputs of a model that reads a window of bars: those of a row, and their lags."""
    return tuple(feature for feature in FEATURES if feature.model_input)


def input_sets() -> tuple[tuple[Feature, ...], ...]:
    """Every set of inputs that some model reads, each once; there is a feature service of each."""
    return tuple(dict.fromkeys((row_inputs(), window_inputs())))


def window_channels() -> tuple[tuple[str, ...], ...]:
    """Of each channel of a window the features that hold it, from its oldest bar to the newest.

    All have the same length; the last is the feature that the others are lags of.
    """
    lags = [feature.lag_of for feature in FEATURES if feature.lag_of is not None]
    of = {feature.lag_of: feature.name for feature in FEATURES}
    longest = max((steps for _, steps in lags), default=0)
    return tuple(
        (*(of[name, steps] for steps in range(longest, 0, -1)), name)
        for name in dict.fromkeys(name for name, _ in lags)
    )


def warmup_of(table: Table) -> int:
    """Rows (bars or days) before a day's first one that the computation of that day reads."""
    return max(feature.warmup for feature in features_of(table))


def price_warmup() -> int:
    """Bars before a day's first one that the computation of that day reads."""
    return warmup_of("price_features")
