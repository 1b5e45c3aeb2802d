"""Every feature of one bar or day by its textbook formula, in plain Python, window by window."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

Numbers = Sequence[float]

#: Weights a smoothing keeps, by its decay: the fewest of the form m or 3m, m a power of two, past
#: which less than a millionth is left.
KEPT = {
    13 / 14: 192,
    6 / 7: 96,
    11 / 13: 96,
    25 / 27: 192,
    8 / 10: 64,
    5 / 7: 48,
    12 / 14: 96,
    4 / 6: 48,
}


def decayed(values: Numbers, factor: float) -> float:
    """Mean of the newest values, each weighing ``factor`` times the next newer one."""
    kept = KEPT[factor]
    newest = values[-1 : -kept - 1 : -1]
    assert len(newest) == kept
    weights = [factor**age for age in range(kept)]
    weighed = (weight * value for weight, value in zip(weights, newest, strict=True))
    return math.fsum(weighed) / math.fsum(weights)


class Window:
    """The bars up to one of them, oldest first."""

    def __init__(self, bars: pl.DataFrame, at: int) -> None:
        newest = bars[max(at - 400, 0) : at + 1]
        self.open, self.high, self.low, self.close, self.volume = (
            newest[name].to_list() for name in ("open", "high", "low", "close", "volume")
        )
        self.returns = [math.log(now / then) for then, now in itertools.pairwise(self.close)]
        self.moment = newest["close_time"][-1]


def textbook(bars: pl.DataFrame, market: pl.DataFrame, at: int) -> dict[str, float]:
    """Every price feature but the cross-sectional ones, of bar ``at`` of one symbol."""
    window = Window(bars, at)
    return {
        "price": window.close[-1],
        "volume": window.volume[-1],
        **_trend(window),
        **_oscillators(window),
        **_ranges(window),
        **_shape(window),
        **_market(window, Window(market, at)),
        **_calendar(window),
    }


def _trend(window: Window) -> dict[str, float]:
    close = window.close
    features = {f"log_return_{n}": math.log(close[-1] / close[-1 - n]) for n in (1, 3, 12, 48, 288)}
    for n in range(1, 16):
        features[f"log_return_1_lag_{n}"] = math.log(close[-1 - n] / close[-2 - n])
    for n, name in ((12, "momentum"), (48, "momentum_48"), (288, "momentum_288")):
        features[name] = close[-1] / close[-1 - n] - 1
    for n in (5, 20):
        features[f"sma_{n}"] = statistics.fmean(close[-n:])
        features[f"sma_gap_{n}"] = close[-1] / statistics.fmean(close[-n:]) - 1
    for n in (20, 48):
        middle, spread = statistics.fmean(close[-n:]), statistics.pstdev(close[-n:])
        features[f"bollinger_position_{n}"] = (close[-1] - (middle - 2 * spread)) / (4 * spread)
        features[f"bollinger_width_{n}"] = 4 * spread / middle
    return features


def _oscillators(window: Window) -> dict[str, float]:
    close = window.close
    changes = [now - then for then, now in itertools.pairwise(close)]
    features = {}
    for span, name in ((14, "rsi"), (7, "rsi_7")):
        factor = {14: 13 / 14, 7: 6 / 7}[span]
        gain = decayed([max(change, 0.0) for change in changes], factor)
        loss = decayed([max(-change, 0.0) for change in changes], factor)
        features[name] = 100 - 100 / (1 + gain / loss)
    for name, fast, slow, smoothed in (
        ("macd", 11 / 13, 25 / 27, 8 / 10),
        ("macd_fast", 5 / 7, 12 / 14, 4 / 6),
    ):
        closes = [close[: len(close) - back] for back in range(KEPT[smoothed])]
        lines = [decayed(each, fast) - decayed(each, slow) for each in closes]
        signal = decayed(lines[::-1], smoothed)
        features[name] = lines[0] / close[-1]
        features[f"{name}_signal"] = signal / close[-1]
        features[f"{name}_histogram"] = (lines[0] - signal) / close[-1]
    return features


def _ranges(window: Window) -> dict[str, float]:
    high, low, close = window.high, window.low, window.close
    spans = [math.log(top / bottom) for top, bottom in zip(high, low, strict=True)]
    bodies = [math.log(end / begin) for begin, end in zip(window.open, close, strict=True)]
    ranges = [
        max(top - bottom, abs(top - before), abs(bottom - before))
        for top, bottom, before in zip(high[1:], low[1:], close[:-1], strict=True)
    ]
    features = {
        "high_low_range": spans[-1],
        "volatility": statistics.stdev(window.returns[-20:]),
        **{f"high_low_range_lag_{n}": spans[-1 - n] for n in range(1, 16)},
    }
    for n, factor in ((14, 13 / 14), (7, 6 / 7)):
        features[f"atr_{n}"] = decayed(ranges, factor)
        features[f"atr_ratio_{n}"] = decayed(ranges, factor) / close[-1]
    for n in (48, 288):
        features[f"volatility_{n}"] = statistics.stdev(window.returns[-n:])
        squares = math.fsum(change**2 for change in window.returns[-n:])
        features[f"realised_volatility_{n}"] = math.sqrt(squares)
        mean_square = statistics.fmean(span**2 for span in spans[-n:])
        features[f"parkinson_{n}"] = math.sqrt(mean_square / (4 * math.log(2)))
        variances = [
            span**2 / 2 - (2 * math.log(2) - 1) * body**2
            for span, body in zip(spans[-n:], bodies[-n:], strict=True)
        ]
        features[f"garman_klass_{n}"] = math.sqrt(statistics.fmean(variances))
    return features


def _shape(window: Window) -> dict[str, float]:
    features = {}
    logs = [math.log1p(volume) for volume in window.volume]
    shares = [
        abs(change) / (close * volume)
        for change, close, volume in zip(
            window.returns, window.close[1:], window.volume[1:], strict=True
        )
    ]
    for n in (48, 288):
        returns = window.returns[-n:]
        mean, spread = statistics.fmean(returns), statistics.pstdev(returns)
        g1 = statistics.fmean((value - mean) ** 3 for value in returns) / spread**3
        g2 = statistics.fmean((value - mean) ** 4 for value in returns) / spread**4 - 3
        features[f"skewness_{n}"] = g1 * math.sqrt(n * (n - 1)) / (n - 2)
        features[f"kurtosis_{n}"] = (n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * g2 + 6)
        features[f"illiquidity_{n}"] = statistics.fmean(shares[-n:]) * 1e6
        name = "volume_zscore" if n == 288 else f"volume_zscore_{n}"
        features[name] = (logs[-1] - statistics.fmean(logs[-n:])) / statistics.stdev(logs[-n:])
    return features


def _market(window: Window, market: Window) -> dict[str, float]:
    features = {}
    for n in (48, 288):
        own, others = window.returns[-n:], market.returns[-n:]
        features[f"beta_btc_{n}"] = statistics.linear_regression(others, own).slope
        features[f"correlation_btc_{n}"] = statistics.correlation(own, others)
    return features


def _calendar(window: Window) -> dict[str, float]:
    minutes = window.moment.hour * 60 + window.moment.minute
    day = 2 * math.pi * minutes / (24 * 60)
    week = 2 * math.pi * (window.moment.weekday() * 24 * 60 + minutes) / (7 * 24 * 60)
    return {
        "hour_sin": math.sin(day),
        "hour_cos": math.cos(day),
        "weekday_sin": math.sin(week),
        "weekday_cos": math.cos(week),
    }


def onchain_textbook(
    metrics: Sequence[Mapping[str, Any]], blocks: Sequence[Sequence[Mapping[str, Any]]]
) -> dict[str, float]:
    """Every on-chain feature of the newest of eight days or more, oldest first.

    Args:
        metrics: The day's row of ``network_metrics`` of the symbol's base asset.
        blocks: The day's finalised rows of ``onchain_blocks``.
    """
    today = metrics[-1]
    features = {
        "active_addresses": today["active_addresses"],
        "transaction_count": today["transaction_count"],
        "network_hash_rate": today["hash_rate"],
        "nvt_ratio": today["nvt_ratio"],
        "mvrv_ratio": today["mvrv_ratio"],
        "eth_gas_used_ratio": _gas_used_ratio(blocks[-1]),
        "eth_gas_used_ratio_7": _gas_used_ratio([block for day in blocks[-7:] for block in day]),
        "eth_base_fee_gwei": _mean(blocks[-1], "base_fee_per_gas") / 10**9,
        "eth_fee_pressure": _above_target(blocks[-1]),
        "eth_fee_pressure_7": statistics.fmean(_above_target(day) for day in blocks[-7:]),
    }
    for n in (1, 7):
        for name, column in (
            ("active_address_growth", "active_addresses"),
            ("transaction_growth", "transaction_count"),
            ("hash_rate_change", "hash_rate"),
            ("nvt_change", "nvt_ratio"),
            ("mvrv_change", "mvrv_ratio"),
        ):
            features[f"{name}_{n}"] = math.log(today[column] / metrics[-1 - n][column])
        for name, column in (
            ("eth_base_fee_change", "base_fee_per_gas"),
            ("eth_transaction_growth", "transaction_count"),
            ("eth_active_address_growth", "active_addresses"),
        ):
            now, then = (_mean(blocks[-1 - back], column) for back in (0, n))
            features[f"{name}_{n}"] = math.log(now / then)
    return features


def _mean(blocks: Sequence[Mapping[str, Any]], column: str) -> float:
    return statistics.fmean(block[column] for block in blocks)


def _gas_used_ratio(blocks: Sequence[Mapping[str, Any]]) -> float:
    return sum(block["gas_used"] for block in blocks) / sum(block["gas_limit"] for block in blocks)


def _above_target(blocks: Sequence[Mapping[str, Any]]) -> float:
    return statistics.fmean(block["gas_used"] > block["gas_limit"] / 2 for block in blocks)
