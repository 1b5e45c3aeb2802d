"""Every price feature of the catalog in vectorised pandas.

All symbols are columns of one frame of times, so each rolling pass covers all of them, and what
features have in common is computed once.
"""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd

MARKET = "BTC/USDT"


def in_pandas(bars: pd.DataFrame, bar: timedelta) -> pd.DataFrame:
    """The rows of ``price_features``, values missing as NaN, sorted by symbol and time."""
    columns = ["open", "high", "low", "close", "volume"]
    # pivot_table would aggregate, and take longer.
    wide = bars.pivot(index="open_time", columns="symbol", values=columns)  # noqa: PD010
    grid = pd.date_range(wide.index[0], wide.index[-1], freq=bar, name="open_time")
    wide = wide.reindex(grid)
    close = wide["close"]
    closes_at = grid + bar
    features = {
        "price": close,
        "volume": wide["volume"],
        **_trend(close),
        **_ranges(wide),
        **_bands(close),
        **_returns(close, wide["volume"]),
        **_volume(wide["volume"]),
        **_calendar(closes_at, close.shape[1]),
    }
    for name in ("log_return_12", "log_return_288", "volatility_48", "volume_zscore"):
        ranks = features[name].rank(axis=1, pct=True)
        features[f"rank_{name}"] = ranks.where(features[name].notna().sum(axis=1) > 1)
    rows = pd.DataFrame(
        {name: np.asarray(values).ravel(order="F") for name, values in features.items()}
    )
    rows.insert(0, "symbol", np.repeat(close.columns.to_numpy(), len(grid)))
    moments = np.tile(closes_at.tz_convert(None).to_numpy(), close.shape[1])
    rows.insert(1, "event_timestamp", pd.DatetimeIndex(moments, tz="UTC"))
    return rows[rows["price"].notna()].reset_index(drop=True)


def _trend(close: pd.DataFrame) -> dict[str, pd.DataFrame]:
    features = {
        f"log_return_{bars}": np.log(close / close.shift(bars)) for bars in (1, 3, 12, 48, 288)
    }
    features["momentum"] = close / close.shift(12) - 1
    for bars in (48, 288):
        features[f"momentum_{bars}"] = close / close.shift(bars) - 1
    for bars in (5, 20):
        mean = close.rolling(bars).mean()
        features[f"sma_{bars}"] = mean
        features[f"sma_gap_{bars}"] = close / mean - 1
    change = close.diff()
    gain, move = change.clip(lower=0.0), change.abs()
    for span, kept, name in ((14, 192, "rsi"), (7, 96, "rsi_7")):
        gains, moves = (cut_off(each, 1 / span, kept) for each in (gain, move))
        features[name] = 100 * gains / moves
    line = cut_off(close, 2 / 13, 96) - cut_off(close, 2 / 27, 192)
    signal = cut_off(line, 2 / 10, 64)
    features["macd"] = line / close
    features["macd_signal"] = signal / close
    features["macd_histogram"] = (line - signal) / close
    return features


def cut_off(values: pd.DataFrame, alpha: float, kept: int) -> pd.DataFrame:
    """Exponential mean of the newest ``kept`` values: the endless one less its older part."""
    missing = values.isna()
    gaps = missing.cumsum()
    whole = gaps.eq(gaps.shift(kept, fill_value=0))
    whole.iloc[: kept - 1] = False
    filled = values.mask(missing, 0.0)
    filled.iloc[0] *= alpha  # ewm begins with the first value at its full weight
    endless = filled.ewm(alpha=alpha, adjust=False).mean()
    older = (1 - alpha) ** kept
    return ((endless - older * endless.shift(kept, fill_value=0.0)) / (1 - older)).where(whole)


def _ranges(wide: pd.DataFrame) -> dict[str, pd.DataFrame]:
    high, low, close = wide["high"], wide["low"], wide["close"]
    span = np.log(high / low)
    squared = span**2
    body = squared / 2 - (2 * np.log(2) - 1) * np.log(close / wide["open"]) ** 2
    before = close.shift(1)
    true_range = np.maximum(high, before) - np.minimum(low, before)
    average = cut_off(true_range, 1 / 14, 192)
    features = {"high_low_range": span, "atr_14": average, "atr_ratio_14": average / close}
    for bars in (48, 288):
        features[f"parkinson_{bars}"] = np.sqrt(squared.rolling(bars).mean() / (4 * np.log(2)))
        features[f"garman_klass_{bars}"] = np.sqrt(body.rolling(bars).mean())
    return features


def _bands(close: pd.DataFrame) -> dict[str, pd.DataFrame]:
    mean = close.rolling(20).mean()
    # rolling.std carries its sums over the whole year, which on prices, whose mean is a thousand
    # times their deviation, costs it all but six digits.
    prices, centre = close.to_numpy(), mean.to_numpy()[19:]
    squares = sum((prices[19 - k : len(prices) - k] - centre) ** 2 for k in range(20))
    deviation = mean.copy()
    deviation.iloc[19:] = np.sqrt(squares / 20)
    return {
        "bollinger_position_20": (close - (mean - 2 * deviation)) / (4 * deviation),
        "bollinger_width_20": 4 * deviation / mean,
    }


def _returns(close: pd.DataFrame, volume: pd.DataFrame) -> dict[str, pd.DataFrame]:
    returns = np.log(close / close.shift(1))
    market = returns[MARKET]
    share = returns.abs() / (close * volume)
    features = {"volatility": returns.rolling(20).std()}
    for bars in (48, 288):
        rolling = returns.rolling(bars)
        features[f"volatility_{bars}"] = deviation = rolling.std()
        features[f"skewness_{bars}"] = rolling.skew()
        features[f"kurtosis_{bars}"] = rolling.kurt()
        features[f"illiquidity_{bars}"] = share.rolling(bars).mean() * 1e6
        # Covariances of all symbols with the market, from rolling means: far faster than
        # rolling.cov, which aligns its operands for every call. A beta needs both sides' bars.
        both = returns.mul(market, axis=0).rolling(bars).mean()
        covariance = both.sub(rolling.mean().mul(market.rolling(bars).mean(), axis=0))
        covariance *= bars / (bars - 1)
        slope = deviation[MARKET]
        features[f"beta_btc_{bars}"] = covariance.div(slope**2, axis=0)
        features[f"correlation_btc_{bars}"] = covariance.div(slope, axis=0) / deviation
    return features


def _volume(volume: pd.DataFrame) -> dict[str, pd.DataFrame]:
    logs = np.log1p(volume)
    features = {}
    for bars, name in ((288, "volume_zscore"), (48, "volume_zscore_48")):
        rolling = logs.rolling(bars)
        features[name] = (logs - rolling.mean()) / rolling.std()
    return features


def _calendar(closes_at: pd.DatetimeIndex, symbols: int) -> dict[str, np.ndarray]:
    midnight = closes_at.normalize()
    seconds = (closes_at - midnight).total_seconds().to_numpy()
    day = seconds * (2 * np.pi / 86_400)
    week = (seconds + closes_at.dayofweek.to_numpy() * 86_400) * (2 * np.pi / 604_800)
    over_symbols = np.ones(symbols)
    return {
        f"{name}_{wave}": np.outer(function(phase), over_symbols)
        for name, phase in (("hour", day), ("weekday", week))
        for wave, function in (("sin", np.sin), ("cos", np.cos))
    }
