"""Every feature, once.

The computation, the Feast views, the columns the UI shows, the inputs of a model and the page in
the docs all come from :data:`FEATURES`.

A feature is a term (:mod:`~cryptoml_assets.features.terms`) over a regular grid, a row that did not
happen being missing. Price features see the bars of a symbol: ``open``, ``high``, ``low``,
``close`` and ``volume``, and the phase of day and week. On-chain features see one row for each UTC
day: the network metrics of the symbol's base asset beside the aggregates of the Ethereum blocks of
that day. A window is therefore a span of time. A value is null unless every row its formula names
is there, and where the formula has none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import timedelta

import numpy as np

from cryptoml_assets.features import formulas as f
from cryptoml_assets.features.feature import BLOCKS, METRICS, Feature, Table
from cryptoml_assets.features.terms import Term, apply, column, cross_rank, log
from cryptoml_assets.features.windows import window_mean

#: Age past which a feature row is no longer used, in training joins and online alike.
TTL = timedelta(days=7)

#: The symbol that stands for the market in beta and correlation.
MARKET = "BTC/USDT"

_WEI_PER_GWEI = 1e9


def _price(
    name: str,
    term: Term,
    unit: str,
    description: str,
    *,
    window: int | None = None,
    model: bool = False,
) -> Feature:
    rows = term.reach + 1 if window is None else window
    return Feature(name, "price_features", term, rows, unit, description, model)


def _onchain(name: str, term: Term, unit: str, description: str, *, model: bool = False) -> Feature:
    return Feature(name, "onchain_features", term, term.reach + 1, unit, description, model)


def _momentum(name: str, bars: int) -> Feature:
    about = f"Close over the close {bars} bars before, less 1."
    return _price(name, f.momentum(bars), "ratio", about)


def _rsi(name: str, span: int, *, model: bool = False) -> Feature:
    term = f.rsi(span)
    about = (
        f"Relative strength index with Wilder's smoothing of span {span} (New Concepts in "
        f"Technical Trading Systems, 1978) over {term.reach} changes; older weights, a millionth "
        "of all, are cut off. Null where the close never moved."
    )
    return _price(name, term, "0-100", about, window=span + 1, model=model)


def _deviation(name: str, bars: int, *, model: bool = False) -> Feature:
    about = f"Sample standard deviation of {bars} one-bar log returns; per bar, not annualised."
    return _price(name, f.volatility(bars), "log return per bar", about, model=model)


def _required() -> Iterable[Feature]:
    yield _price("price", f.CLOSE, "quote", "Close of the bar.")
    yield _price("volume", f.VOLUME, "base", "Traded volume of the bar.")
    for bars in (5, 20):
        mean = window_mean(f.CLOSE, bars)
        yield _price(f"sma_{bars}", mean, "quote", f"Mean close of {bars} bars.")
    yield _rsi("rsi", 14, model=True)
    yield _deviation("volatility", 20, model=True)
    yield _momentum("momentum", 12)


def _trend() -> Iterable[Feature]:
    for bars in (1, 3, 12, 48, 288):
        yield _price(
            f"log_return_{bars}",
            f.log_return(bars),
            "log return",
            f"Log return of {bars} bars." if bars > 1 else "Log return of one bar.",
            model=bars in (1, 3, 12),
        )
    for bars in (48, 288):
        yield _momentum(f"momentum_{bars}", bars)
    for bars in (5, 20):
        yield _price(
            f"sma_gap_{bars}",
            f.mean_gap(bars),
            "ratio",
            f"Close over its {bars}-bar mean, less 1.",
            model=True,
        )
    yield _rsi("rsi_7", 7)
    line, signal = f.macd_line(), f.macd_signal()
    for name, term, window, meaning in (
        ("macd", line, 26, "Exponential mean of the close over 12 bars less that over 26"),
        ("macd_signal", signal, 34, "Exponential mean of the MACD line over 9 bars"),
        ("macd_histogram", line - signal, 34, "MACD line less its signal"),
    ):
        yield _price(
            name,
            term / f.CLOSE,
            "ratio",
            f"{meaning}, over the close (Appel, The Moving Average Convergence-Divergence Trading "
            "Method, 1979); weights are cut off after a millionth.",
            window=window,
        )


def _volatility() -> Iterable[Feature]:
    yield _deviation("volatility_48", 48)
    yield _deviation("volatility_288", 288, model=True)
    yield _price(
        "high_low_range",
        log(f.HIGH / f.LOW),
        "log ratio",
        "Log of the bar's high over its low.",
        model=True,
    )
    for bars in (48, 288):
        yield _price(
            f"parkinson_{bars}",
            f.parkinson(bars),
            "log return per bar",
            f"Volatility from the ranges of {bars} bars (Parkinson, 1980).",
        )
        yield _price(
            f"garman_klass_{bars}",
            f.garman_klass(bars),
            "log return per bar",
            f"Volatility from open, high, low and close of {bars} bars (Garman and Klass, 1980).",
        )
    true_range = f.average_true_range(14)
    smoothed = f"Wilder's smoothing of span 14 over {true_range.reach} true ranges (Wilder, 1978)"
    for name, term, unit, meaning in (
        ("atr_14", true_range, "quote", f"Average true range: {smoothed}."),
        ("atr_ratio_14", true_range / f.CLOSE, "ratio", "Average true range over close."),
    ):
        yield _price(name, term, unit, meaning, window=15)
    yield _price(
        "bollinger_position_20",
        f.bollinger_position(20),
        "ratio",
        "Close between the bands of 20 bars and two standard deviations: 0 at the lower, 1 at the "
        "upper (Bollinger, Bollinger on Bollinger Bands, 2001). Null where the close never moved.",
    )
    yield _price(
        "bollinger_width_20",
        f.bollinger_width(20),
        "ratio",
        "Distance of those bands over their mean.",
    )


def _shape() -> Iterable[Feature]:
    for bars in (48, 288):
        yield _price(
            f"skewness_{bars}",
            f.skewness(bars),
            "1",
            f"Sample skewness of {bars} one-bar log returns (G1 of Joanes and Gill, 1998).",
        )
        yield _price(
            f"kurtosis_{bars}",
            f.kurtosis(bars),
            "1",
            f"Sample excess kurtosis of {bars} one-bar log returns (G2 of Joanes and Gill, 1998).",
        )


def _volume() -> Iterable[Feature]:
    for bars, name in ((288, "volume_zscore"), (48, "volume_zscore_48")):
        yield _price(
            name,
            f.volume_zscore(bars),
            "standard deviations",
            f"Log volume against its mean and standard deviation over {bars} bars.",
            model=bars == 288,  # noqa: PLR2004
        )
    for bars in (48, 288):
        yield _price(
            f"illiquidity_{bars}",
            f.illiquidity(bars),
            "log return per million quote",
            f"Mean absolute log return per quote volume of {bars} bars (Amihud, Illiquidity and "
            "Stock Returns, 2002). Null where a bar traded nothing.",
        )


def _market() -> Iterable[Feature]:
    for bars in (48, 288):
        yield _price(
            f"beta_btc_{bars}",
            f.beta(MARKET, bars),
            "ratio",
            f"Slope of {bars} one-bar log returns on those of {MARKET} (Sharpe, A Simplified Model "
            "for Portfolio Analysis, 1963).",
        )
        yield _price(
            f"correlation_btc_{bars}",
            f.correlation(MARKET, bars),
            "-1..1",
            f"Pearson correlation of {bars} one-bar log returns with those of {MARKET}.",
        )
    for name, term, meaning in (
        ("rank_log_return_12", f.log_return(12), "the log return of 12 bars"),
        ("rank_log_return_288", f.log_return(288), "the log return of 288 bars"),
        ("rank_volatility_48", f.volatility(48), "the volatility of 48 bars"),
        ("rank_volume_zscore", f.volume_zscore(288), "the volume z-score of 288 bars"),
    ):
        yield _price(
            name,
            cross_rank(term),
            "0-1",
            f"Rank of {meaning} among the symbols that have one at that instant, over their "
            "number. Null where only one has.",
        )


def _calendar() -> Iterable[Feature]:
    for name, phase, meaning, model in (
        ("hour", f.DAY_PHASE, "time of day", True),
        ("weekday", f.WEEK_PHASE, "time of the week, from Monday,", False),
    ):
        for wave, function, label in (("sin", np.sin, "Sine"), ("cos", np.cos, "Cosine")):
            yield _price(
                f"{name}_{wave}",
                apply(function, phase),
                "-1..1",
                f"{label} of the UTC {meaning} at close.",
                model=model,
            )


def _network() -> Iterable[Feature]:
    addresses, transactions, hash_rate, nvt, mvrv = map(column, METRICS)
    yield _onchain("active_addresses", addresses, "addresses", "Distinct active.")
    yield _onchain("transaction_count", transactions, "transactions", "Of the day.")
    yield _onchain("network_hash_rate", hash_rate, "hashes/s", "Mean hash rate of the day.")
    yield _onchain(
        "nvt_ratio",
        nvt,
        "ratio",
        "Network value over the value transferred in the day (Woo, 2017; adjusted).",
        model=True,
    )
    yield _onchain(
        "mvrv_ratio",
        mvrv,
        "ratio",
        "Market value over realised value (Mahmudov and Puell, 2018).",
        model=True,
    )
    for name, term, meaning in (
        ("active_address_growth_7", addresses, "active addresses"),
        ("transaction_growth_7", transactions, "transactions"),
        ("hash_rate_change_7", hash_rate, "hash rate"),
        ("nvt_change_7", nvt, "network value over value transferred"),
        ("mvrv_change_7", mvrv, "market value over realised value"),
    ):
        yield _onchain(
            name, f.growth(term, 7), "log ratio", f"Log of the day's {meaning} over 7 days before."
        )


def _blocks() -> Iterable[Feature]:
    used, limit, fee, transactions, addresses, above = (
        column(name, shared=True) for name in BLOCKS
    )
    every = "all finalised Ethereum blocks of the day; same for every symbol"
    mean = "Log of the mean {} a finalised Ethereum block over {} before; same for every symbol."
    yield _onchain(
        "eth_gas_used_ratio", used / limit, "0-1", f"Gas used over gas limit, {every}.", model=True
    )
    yield _onchain(
        "eth_base_fee_gwei",
        fee * (1.0 / _WEI_PER_GWEI),
        "gwei",
        "Mean base fee of the finalised Ethereum blocks of the day; same for every symbol.",
        model=True,
    )
    for days in (1, 7):
        before = "that of the day" if days == 1 else f"that of {days} days"
        yield _onchain(
            f"eth_base_fee_change_{days}",
            f.growth(fee, days),
            "log ratio",
            f"Log of the day's mean base fee over {before} before; same for every symbol.",
        )
    yield _onchain(
        "eth_transaction_growth_7",
        f.growth(transactions, 7),
        "log ratio",
        mean.format("transactions of", "that of 7 days"),
    )
    yield _onchain(
        "eth_active_address_growth_7",
        f.growth(addresses, 7),
        "log ratio",
        mean.format("active addresses of", "that of 7 days"),
    )
    yield _onchain(
        "eth_fee_pressure",
        above,
        "0-1",
        f"Share of blocks above the gas target, half the limit, past which the base fee rises "
        f"(EIP-1559): {every}.",
    )


FEATURES: tuple[Feature, ...] = (
    *_required(),
    *_trend(),
    *_volatility(),
    *_shape(),
    *_volume(),
    *_market(),
    *_calendar(),
    *_network(),
    *_blocks(),
)


def version_of(table: Table) -> str:
    """A text that changes with the features of a table: their names, order and formulas."""
    formulas = [f"{feature.name}={feature.term.digest}" for feature in features_of(table)]
    return hashlib.sha256("\n".join(formulas).encode()).hexdigest()[:12]


def features_of(table: Table) -> tuple[Feature, ...]:
    """The features of one table, in column order."""
    return tuple(feature for feature in FEATURES if feature.table == table)


def model_features() -> tuple[str, ...]:
    """Names of the model inputs, in the order a bundle holds them."""
    return tuple(feature.name for feature in FEATURES if feature.model_input)


def warmup_of(table: Table) -> int:
    """Rows (bars or days) before a day's first one that the computation of that day reads."""
    return max(feature.warmup for feature in features_of(table))


def price_warmup() -> int:
    """Bars before a day's first one that the computation of that day reads."""
    return warmup_of("price_features")
