"""Every price feature of the catalog in vectorised pandas.

All symbols are columns of one frame of times, so each rolling pass covers all of them, and what
features have in common is computed once.
"""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd

MARKET = "BTC/USDT"
#: Bars before the newest one that a window holds, and what it holds of them.
LAGS = 15
CHANNELS = ("log_return_1", "high_low_range")


def in_pandas(bars: pd.DataFrame, bar: timedelta) -> pd.DataFrame:
    """The rows of ``price_features``, values missing as NaN, sorted by symbol and time."""
    moments = bars["open_time"]
    grid = pd.date_range(moments.min(), moments.max(), freq=bar, name="open_time")
    # A symbol at a time: pivot would sort all rows of all symbols, and take five times as long.
    of_symbol = {
        symbol: rows.set_index("open_time").reindex(grid) for symbol, rows in bars.groupby("symbol")
    }
    wide = {
        name: pd.DataFrame({symbol: rows[name] for symbol, rows in of_symbol.items()})
        for name in ("open", "high", "low", "close", "volume")
    }
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
    for name in CHANNELS:
        for steps in range(1, LAGS + 1):
            features[f"{name}_lag_{steps}"] = features[name].shift(steps)
    there = close.notna().to_numpy().ravel(order="F")
    symbols = np.repeat(np.arange(close.shape[1]), len(grid))[there]
    moments = np.tile(closes_at.tz_convert(None).to_numpy(), close.shape[1])[there]
    # Columns stay apart (copy=False): to gather them into one block costs more than half of all.
    return pd.DataFrame(
        {
            "symbol": pd.Categorical.from_codes(symbols, close.columns),
            "event_timestamp": pd.DatetimeIndex(moments, tz="UTC"),
            **{
                name: np.asarray(values).ravel(order="F")[there]
                for name, values in features.items()
            },
        },
        copy=False,
    )


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
    for name, spans, kept in (
        ("macd", (12, 26, 9), (96, 192, 64)),
        ("macd_fast", (6, 13, 5), (48, 96, 48)),
    ):
        alphas = [2 / (span + 1) for span in spans]
        line = cut_off(close, alphas[0], kept[0]) - cut_off(close, alphas[1], kept[1])
        signal = cut_off(line, alphas[2], kept[2])
        features[name] = line / close
        features[f"{name}_signal"] = signal / close
        features[f"{name}_histogram"] = (line - signal) / close
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


def _ranges(wide: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    high, low, close = wide["high"], wide["low"], wide["close"]
    span = np.log(high / low)
    squared = span**2
    body = squared / 2 - (2 * np.log(2) - 1) * np.log(close / wide["open"]) ** 2
    before = close.shift(1)
    true_range = np.maximum(high, before) - np.minimum(low, before)
    features = {"high_low_range": span}
    for bars, kept in ((14, 192), (7, 96)):
        features[f"atr_{bars}"] = average = cut_off(true_range, 1 / bars, kept)
        features[f"atr_ratio_{bars}"] = average / close
    for bars in (48, 288):
        features[f"parkinson_{bars}"] = np.sqrt(squared.rolling(bars).mean() / (4 * np.log(2)))
        features[f"garman_klass_{bars}"] = np.sqrt(body.rolling(bars).mean())
    return features


def _bands(close: pd.DataFrame) -> dict[str, pd.DataFrame]:
    features = {}
    for bars in (20, 48):
        mean, deviation = close.rolling(bars).mean(), _deviation(close, bars)
        features[f"bollinger_position_{bars}"] = (close - (mean - 2 * deviation)) / (4 * deviation)
        features[f"bollinger_width_{bars}"] = 4 * deviation / mean
    return features


def _deviation(close: pd.DataFrame, bars: int, part: int = 1000) -> pd.DataFrame:
    """Population deviation, part by part, each with its window before it and less its first price.

    rolling.std carries its sums over the whole year, which on prices, whose mean is a thousand
    times their deviation, costs it all but six digits.
    """
    before, (length, symbols) = bars - 1, close.shape
    padded = np.full((-(-length // part) * part + before, symbols), np.nan)
    padded[before : before + length] = close
    parts = np.lib.stride_tricks.sliding_window_view(padded, part + before, axis=0)[::part]
    moved = parts - np.nan_to_num(parts[:, :, before : before + 1])
    rolling = pd.DataFrame(moved.reshape(-1, part + before).T).rolling(bars)
    found = rolling.std(ddof=0).to_numpy()[before:].T.reshape(-1, symbols, part)
    values = found.transpose(0, 2, 1).reshape(-1, symbols)[:length]
    return pd.DataFrame(values, close.index, close.columns)


def _returns(close: pd.DataFrame, volume: pd.DataFrame) -> dict[str, pd.DataFrame]:
    returns = np.log(close / close.shift(1))
    market = returns[MARKET]
    share = returns.abs() / (close * volume)
    squared = returns**2
    features = {"volatility": returns.rolling(20).std()}
    for bars in (48, 288):
        rolling = returns.rolling(bars)
        features[f"volatility_{bars}"] = deviation = rolling.std()
        features[f"realised_volatility_{bars}"] = np.sqrt(squared.rolling(bars).sum())
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
