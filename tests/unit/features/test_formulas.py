"""Formulas where numbers get nasty: scales, constants, rounding, holes in bars, many symbols."""

import math
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import stats

from cryptoml_assets.features.catalog import features_of
from cryptoml_assets.features.compute import price_features
from cryptoml_assets.features.terms import rank_rows
from tests.feature_data import BAR, make_bars, some_days

DAYS = some_days(2)
NAMES = [feature.name for feature in features_of("price_features")]
QUOTED = ("price", "sma_5", "sma_20", "atr_7", "atr_14")
PRICES = ("open", "high", "low", "close")
TWO = ("BTC/USDT", "ETH/USDT")
BARS = make_bars(2, TWO)
ROWS = price_features(BARS, DAYS, BAR).select("symbol", *NAMES)

Numbers = NDArray[np.float64]


def compute(bars: pl.DataFrame) -> pl.DataFrame:
    return price_features(bars, DAYS, BAR).select("symbol", *NAMES)


def values(rows: pl.DataFrame, name: str, symbol: str = "ETH/USDT") -> Numbers:
    return rows.filter(pl.col("symbol") == symbol)[name].fill_null(math.nan).to_numpy()


def with_close(close: Numbers, volume: float | Numbers = 1.0) -> pl.DataFrame:
    """Bars of bitcoin, and of ether with the given closes."""
    bitcoin = make_bars(2, TWO[:1])
    ether = bitcoin.with_columns(
        pl.lit("ETH/USDT").alias("symbol"),
        *(pl.Series(name, close) for name in PRICES),
        pl.Series("volume", np.broadcast_to(volume, close.shape)),
    )
    return pl.concat([bitcoin, ether])


@pytest.mark.parametrize("power", [-60, -30, 30, 60])
def test_the_unit_of_a_price_changes_no_bit_of_a_ratio(power: int) -> None:
    factor = 2.0**power
    scaled = compute(BARS.with_columns(pl.col(name) * factor for name in PRICES))
    for name in NAMES:
        unit = 1 / factor if name.startswith("illiquidity") else 1.0
        unit = factor if name in QUOTED else unit
        assert np.array_equal(values(scaled, name), values(ROWS, name) * unit, equal_nan=True), name


@pytest.mark.parametrize("size", [1e9, 1e-9, 1e-300, 5e-324])
def test_whatever_the_size_of_prices_values_are_numbers_in_their_range_or_null(size: float) -> None:
    rows = compute(BARS.with_columns((pl.col(name) * size) for name in PRICES))
    numbers = rows.select(NAMES)
    assert (
        not numbers.select(pl.all().is_nan().any() | pl.all().is_infinite().any())
        .row(0)
        .count(True)
    )
    for name, low, high in (
        ("rsi", 0, 100),
        ("correlation_btc_48", -1, 1),
        ("rank_volatility_48", 0, 1),
    ):
        assert rows[name].drop_nulls().is_between(low, high).all()
    if size in {1e9, 1e-9}:
        for name in set(NAMES) - {*QUOTED, "illiquidity_48", "illiquidity_288"}:
            np.testing.assert_allclose(
                values(rows, name), values(ROWS, name), rtol=1e-9, atol=1e-11, err_msg=name
            )


def test_constant_growth_has_no_volatility_and_no_shape() -> None:
    growing = compute(with_close(100 * 1.001 ** np.arange(2 * 288)))
    for name in ("volatility", "volatility_48", "volatility_288"):
        assert set(values(growing, name)[288:]) == {0.0}
    for name in ("skewness_48", "kurtosis_288", "correlation_btc_48", "volume_zscore"):
        assert np.isnan(values(growing, name)).all()
    assert np.abs(values(growing, "beta_btc_288")[288:]).max() < 1e-12
    wanted = math.sqrt(48) * math.log(1.001)
    assert values(growing, "realised_volatility_48")[-1] == pytest.approx(wanted, rel=1e-12)


def test_a_symbol_that_trades_nothing_has_neither_volume_score_nor_illiquidity() -> None:
    rows = compute(BARS.with_columns(volume=0.0))
    for name in ("volume_zscore", "volume_zscore_48", "illiquidity_48", "rank_volume_zscore"):
        assert np.isnan(values(rows, name)).all()
    assert np.array_equal(values(rows, "rsi"), values(ROWS, "rsi"), equal_nan=True)


@pytest.mark.parametrize("column", ["open", "high", "low", "close", "volume"])
@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf, 0.0, -1.0])
def test_a_broken_number_breaks_the_windows_over_it_and_nothing_else(
    column: str, broken: float
) -> None:
    at = (pl.col("symbol") == "ETH/USDT") & (pl.col("open_time") == BARS["open_time"][100])
    rows = compute(BARS.with_columns(pl.when(at).then(broken).otherwise(column).alias(column)))
    for feature in features_of("price_features"):
        found, wanted = values(rows, feature.name), values(ROWS, feature.name)
        over = slice(100, 100 + feature.warmup + 1)
        assert (
            np.isnan(np.delete(found, np.r_[over])).sum()
            == np.isnan(np.delete(wanted, np.r_[over])).sum()
        )
        if feature.name.startswith("rank_"):
            assert rows[feature.name].drop_nulls().is_in([0.5, 0.75, 1.0]).all()
        else:
            outside = np.r_[0:100, 100 + feature.warmup + 1 : len(found)]
            assert np.array_equal(found[outside], wanted[outside], equal_nan=True), feature.name
        assert not np.isinf(found).any()


def test_a_negative_variance_of_garman_and_klass_is_no_volatility() -> None:
    still = BARS.with_columns(high=pl.col("open"), low=pl.col("open"), close=pl.col("open") * 1.01)
    rows = compute(still)
    assert rows["garman_klass_48"].null_count() == rows.height
    assert set(values(rows, "parkinson_48")[47:]) == {0.0}


def test_bitcoin_has_beta_and_correlation_one_with_itself() -> None:
    for bars in (48, 288):
        for name in ("beta", "correlation"):
            assert set(values(ROWS, f"{name}_btc_{bars}", "BTC/USDT")[bars:]) == {1.0}


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("noise", [0.0, 1e-12, 1e-9])
def test_a_correlation_never_passes_one(sign: int, noise: float) -> None:
    bitcoin = make_bars(2, TWO[:1])["close"].to_numpy()
    shaken = np.random.default_rng(1).normal(0, noise, len(bitcoin)) if noise else 0.0
    rows = compute(with_close(3.7 * bitcoin**sign * np.exp(shaken)))
    for bars in (48, 288):
        found = values(rows, f"correlation_btc_{bars}")[bars:]
        assert np.abs(found).max() <= 1.0
        assert np.abs(found - sign).max() < 1e-6


def jumpy(rng: np.random.Generator, count: int) -> Numbers:
    return np.where(rng.random(count) < 0.01, rng.normal(0, 0.2, count), 0.0)


RETURNS: dict[str, Callable[[np.random.Generator, int], Numbers]] = {
    "heavy tails": lambda rng, count: rng.standard_t(3, count) * 1e-3,
    "a stable coin": lambda rng, count: rng.choice([-1e-4, 0.0, 1e-4], count, p=[0.1, 0.8, 0.1]),
    "a trend": lambda rng, count: rng.normal(3e-3, 1e-3, count),
    "a steep trend": lambda rng, count: rng.normal(2e-2, 1e-3, count),
    "jumps out of nothing": jumpy,
    "calm, then a crash": lambda rng, count: (
        np.where(np.arange(count) == 400, -0.5, 0.0) + rng.normal(0, 1e-5, count)
    ),
}
#: Relative to what a value is usually about: 1 for shapes, the value itself for the rest.
WORST = {
    "volatility": 1e-11,
    "realised_volatility": 1e-14,
    "skewness": 1e-9,
    "kurtosis": 1e-8,
    "beta_btc": 1e-11,
    "correlation_btc": 1e-11,
}


def exact(
    returns: NDArray[np.longdouble], market: NDArray[np.longdouble], n: int
) -> dict[str, Numbers]:
    """Moments of windows from deviations, in extended precision."""
    own, other = (sliding_window_view(each, n) for each in (returns, market))
    apart, beside = (each - each.mean(axis=1, keepdims=True) for each in (own, other))
    second, third, fourth = ((apart**power).sum(axis=1) for power in (2, 3, 4))
    below = (n - 2) * (n - 3)
    products, theirs = (apart * beside).sum(axis=1), (beside**2).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = {
            "volatility": np.sqrt(second / (n - 1)),
            "realised_volatility": np.sqrt((own**2).sum(axis=1)),
            "skewness": third / second**1.5 * (n * math.sqrt(n - 1) / (n - 2)),
            "kurtosis": fourth / second**2 * (n * (n + 1) * (n - 1) / below)
            - 3 * (n - 1) ** 2 / below,
            "beta_btc": products / theirs,
            "correlation_btc": products / np.sqrt(second * theirs),
        }
    return {name: each.astype(np.float64) for name, each in found.items()}


@pytest.mark.parametrize("kind", RETURNS)
@pytest.mark.parametrize("bars", [48, 288])
def test_moments_are_good_to_many_digits_or_null(kind: str, bars: int) -> None:
    close = 100 * np.exp(np.cumsum(RETURNS[kind](np.random.default_rng(3), 2 * 288)))
    frame = with_close(close)
    rows = compute(frame)
    # The logarithms are numpy's on both sides; what is judged is the arithmetic on them.
    returns, market = (
        np.log(each[1:] / each[:-1]).astype(np.longdouble)
        for each in (close, frame["close"].to_numpy()[: 2 * 288])
    )
    for name, wanted in exact(returns, market, bars).items():
        found = values(rows, f"{name}_{bars}")[bars:]
        defined = np.isfinite(found)
        shape = name in {"skewness", "kurtosis", "correlation_btc"}
        scale = 1.0 if shape else np.maximum(np.abs(wanted), np.finfo(np.float64).tiny)
        error = np.abs(found - wanted)[defined] / np.broadcast_to(scale, wanted.shape)[defined]
        assert error.max(initial=0.0) < WORST[name], name
        if kind in {"heavy tails", "a trend", "calm, then a crash"}:
            assert defined.all(), name


def test_shapes_are_null_before_their_digits_are_gone() -> None:
    for ratio, null in ((40, False), (60, True), (1000, True)):
        returns = np.random.default_rng(3).normal(2e-2, 2e-2 / ratio, 2 * 288)
        rows = compute(with_close(100 * np.exp(np.cumsum(returns))))
        for name in ("skewness_288", "kurtosis_288"):
            assert np.isnan(values(rows, name)[288:]).all() == null
        found = values(rows, "volatility_288")[288:]
        wanted = sliding_window_view(returns[1:], 288).std(axis=1, ddof=1)
        np.testing.assert_allclose(found, wanted, rtol=1e-8)


@pytest.mark.parametrize("symbols", [2, 5, 127, 128, 200, 300])
def test_ranks_equal_those_of_scipy_for_any_number_of_symbols(symbols: int) -> None:
    rng = np.random.default_rng(symbols)
    grid = rng.integers(0, symbols, (symbols, 50)).astype(np.float64)
    grid[rng.random(grid.shape) < 0.1] = np.nan
    grid[0, :5], grid[1, 5:9] = np.inf, -np.inf
    found = np.empty(grid.shape)
    rank_rows(grid, out=found)
    known = np.where(np.isfinite(grid), grid, np.nan)
    count = np.isfinite(grid).sum(axis=0)
    wanted = stats.rankdata(known, axis=0, nan_policy="omit") / count
    wanted[:, count < 2] = np.nan
    assert np.array_equal(found, wanted, equal_nan=True)


def test_many_symbols_have_the_values_each_has_alone() -> None:
    names = ["BTC/USDT", *(f"S{index:03d}/USDT" for index in range(219))]
    bars = make_bars(1, names)
    rows = price_features(bars, DAYS[:1], BAR)
    one = rows.filter(pl.col("symbol") == names[-1])
    two = price_features(
        bars.filter(pl.col("symbol").is_in([names[0], names[-1]])), DAYS[:1], BAR
    ).filter(pl.col("symbol") == names[-1])
    own = [name for name in NAMES if not name.startswith("rank_")]
    assert one.select(own).equals(two.select(own))
    ranks = rows.filter(pl.col("event_timestamp") == rows["event_timestamp"].max())
    found = ranks.sort("volatility_48")["rank_volatility_48"].to_list()
    assert found == [place / 220 for place in range(1, 221)]
