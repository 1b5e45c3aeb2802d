"""Indicators against TA-Lib, which computes them on its own.

TA-Lib never forgets, so what it smooths recursively is compared to the share that is cut off.
"""

import math
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
import talib
from numpy.typing import NDArray

from cryptoml_assets.features.compute import price_features
from tests.feature_data import BAR, make_bars, some_days

Numbers = NDArray[np.float64]
BARS = make_bars(6, ["BTC/USDT"])
FEATURES = price_features(BARS, some_days(6), BAR)
HIGH, LOW, CLOSE = (BARS[name].to_numpy() for name in ("high", "low", "close"))

# Relative to the largest value: a few millionths, as a millionth of the weights is cut off.
SMOOTHED = 1e-5


def bands(bars: int) -> tuple[Numbers, Numbers, Numbers]:
    return talib.BBANDS(CLOSE, timeperiod=bars, nbdevup=2, nbdevdn=2)


def position(bars: int) -> Numbers:
    upper, _, lower = bands(bars)
    return (CLOSE - lower) / (upper - lower)


def width(bars: int) -> Numbers:
    upper, middle, lower = bands(bars)
    return (upper - lower) / middle


def macd(which: int, spans: tuple[int, int, int] = (12, 26, 9)) -> Numbers:
    return talib.MACD(CLOSE, *spans)[which] / CLOSE


FAST = (6, 13, 5)


def simple(values: Numbers, bars: int) -> Numbers:
    return talib.SMA(values, bars)


def deviation(bars: int) -> Numbers:
    returns = talib.STDDEV(np.diff(np.log(CLOSE)), bars) * math.sqrt(bars / (bars - 1))
    return np.concatenate([[math.nan], returns])


# TA-Lib's own running sums are good to fewer digits where it squares prices: the bands.
EXACT: dict[str, tuple[Callable[[], Numbers], float]] = {
    "sma_5": (lambda: simple(CLOSE, 5), 1e-9),
    "sma_20": (lambda: simple(CLOSE, 20), 1e-9),
    "momentum": (lambda: talib.ROCP(CLOSE, 12), 1e-9),
    "momentum_48": (lambda: talib.ROCP(CLOSE, 48), 1e-9),
    "momentum_288": (lambda: talib.ROCP(CLOSE, 288), 1e-9),
    "bollinger_position_20": (lambda: position(20), 1e-6),
    "bollinger_width_20": (lambda: width(20), 1e-6),
    "bollinger_position_48": (lambda: position(48), 1e-6),
    "bollinger_width_48": (lambda: width(48), 1e-6),
    "volatility_48": (lambda: deviation(48), 1e-7),
    "volatility_288": (lambda: deviation(288), 1e-7),
    "sma_gap_5": (lambda: CLOSE / simple(CLOSE, 5) - 1, 1e-9),
    "sma_gap_20": (lambda: CLOSE / simple(CLOSE, 20) - 1, 1e-9),
}
RECURSIVE: dict[str, Callable[[], Numbers]] = {
    "rsi": lambda: talib.RSI(CLOSE, 14),
    "rsi_7": lambda: talib.RSI(CLOSE, 7),
    "atr_14": lambda: talib.ATR(HIGH, LOW, CLOSE, 14),
    "atr_ratio_14": lambda: talib.NATR(HIGH, LOW, CLOSE, 14) / 100,
    "macd": lambda: macd(0),
    "macd_signal": lambda: macd(1),
    "macd_histogram": lambda: macd(2),
    "macd_fast": lambda: macd(0, FAST),
    "macd_fast_signal": lambda: macd(1, FAST),
    "macd_fast_histogram": lambda: macd(2, FAST),
    "atr_7": lambda: talib.ATR(HIGH, LOW, CLOSE, 7),
    "atr_ratio_7": lambda: talib.NATR(HIGH, LOW, CLOSE, 7) / 100,
}


def both(name: str, theirs: Numbers, begin: int) -> tuple[Numbers, Numbers]:
    ours = FEATURES[name].fill_null(math.nan).to_numpy()
    assert np.isfinite(ours[begin:]).all()
    return ours[begin:], theirs[begin:]


@pytest.mark.parametrize("name", EXACT)
def test_windows_equal_ta_lib(name: str) -> None:
    theirs, tolerance = EXACT[name]
    ours, wanted = both(name, theirs(), 288)
    np.testing.assert_allclose(ours, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", RECURSIVE)
def test_smoothings_equal_ta_lib_but_for_the_weights_cut_off(name: str) -> None:
    ours, wanted = both(name, RECURSIVE[name](), 600)
    scale = np.abs(wanted).max()
    assert np.abs(ours - wanted).max() < SMOOTHED * scale


@pytest.mark.parametrize("bars", [48, 288])
def test_beta_and_correlation_equal_ta_lib(bars: int) -> None:
    both_symbols = make_bars(6)
    features = price_features(both_symbols, some_days(6), BAR)
    ether = features.filter(pl.col("symbol") == "ETH/USDT")
    returns = [
        np.diff(np.log(both_symbols.filter(pl.col("symbol") == name)["close"].to_numpy()))
        for name in ("BTC/USDT", "ETH/USDT")
    ]
    wanted = talib.CORREL(*returns, bars)[400:]
    ours = ether[f"correlation_btc_{bars}"][401:].to_numpy()
    np.testing.assert_allclose(ours, wanted, rtol=1e-9, atol=1e-9)
    deviation = [talib.STDDEV(each, bars)[400:] for each in returns]
    slope = wanted * deviation[1] / deviation[0]
    ours = ether[f"beta_btc_{bars}"][401:].to_numpy()
    np.testing.assert_allclose(ours, slope, rtol=1e-8, atol=1e-8)
