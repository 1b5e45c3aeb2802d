"""Worlds in which nothing drifts, or something does from an instant on, and their drift reports."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import polars as pl

from cryptoml_assets.features.catalog import price_warmup, row_inputs
from cryptoml_assets.features.compute import days_before, price_features
from cryptoml_assets.monitoring.drift import (
    Rules,
    drift_report,
    recent_windows,
    windows_of_both,
)
from tests.honesty.markets import BAR, GENESIS, NAMES, market_bars

#: The rules by default in the settings.
RULES = Rules(threshold=0.25, significance=0.05, minimum=10, share=0.3)
#: Days a champion learnt from, and days after.
LEARNT, SERVED = 48, 12
_DAY = timedelta(days=1)
#: Bars of the windows of the inputs that are judged, and days of the daily ones.
SPANS = {
    each.name: each.window
    for each in row_inputs()
    if each.table == "price_features" and each.sources
}
DAILY = {each.name: each.window for each in row_inputs() if each.table == "onchain_features"}
#: Days that the lake holds of those when a champion has learnt.
DAYS = 240
#: Days before the first row, whose bars it needs.
_BEFORE = days_before(BAR, price_warmup())
#: Rows begin here; champions learnt until, and what changes in a world does so at:
FIRST = GENESIS + _BEFORE * _DAY
LEARNT_UNTIL = FIRST + LEARNT * _DAY
CHANGED = LEARNT_UNTIL + 2 * _DAY
#: Each input of a synthetic world with the time, in bars, in which it forgets.
_MEMORY = {"quick": 1.0, "slow": 4.0, "moody": 1.0, "volatility": 4.0}
SYNTHETIC = {"quick": 1, "slow": 4, "moody": 1, "volatility": 4}


def market(seed: int, *, factor: float = 1.0) -> pl.DataFrame:
    """Inputs in a simulated market, wilder since :data:`CHANGED`.

    Args:
        seed: of the market.
        factor: how much more returns deviate.
    """
    bars = market_bars(seed, 0.0, _BEFORE + LEARNT + SERVED, NAMES)
    if factor != 1:
        bars = _wilder(bars, factor)
    days = [(FIRST + n * _DAY).date() for n in range(LEARNT + SERVED)]
    return price_features(bars, days, BAR)


def _wilder(bars: pl.DataFrame, factor: float) -> pl.DataFrame:
    """Log prices move ``factor`` times as far from where they were at :data:`CHANGED`."""
    later = pl.col("open_time") >= CHANGED
    there = pl.col("open").filter(later).first().over("symbol")
    return bars.with_columns(
        pl.when(later).then(there * (pl.col(name) / there) ** factor).otherwise(name).alias(name)
        for name in ("open", "high", "low", "close")
    )


def synthetic(seed: int, *, bar: timedelta = timedelta(minutes=30)) -> pl.DataFrame:
    """Autoregressive inputs of two symbols that share a volatility with moods of days.

    The mood is an autoregression that forgets in ten days, as the slowest of the simulated market.
    """
    random = np.random.default_rng(seed)
    count = (LEARNT + SERVED) * _DAY // bar
    mood = np.exp(0.4 * _autoregression(random, count, 10 * _DAY / bar))
    times = pl.Series([FIRST + n * bar for n in range(count)], dtype=pl.Datetime("us", "UTC"))
    frames = []
    for symbol in NAMES:
        own = {name: _autoregression(random, count, span) for name, span in _MEMORY.items()}
        own["moody"] = own["moody"] * mood
        own["volatility"] = mood * np.exp(0.4 * own["volatility"])
        frames.append(
            pl.DataFrame(
                {"symbol": [symbol] * count, "event_timestamp": times, **own, "source": "simulated"}
            )
        )
    return pl.concat(frames)


def chain(seed: int) -> pl.DataFrame:
    """Daily inputs as the networks' are: two of each symbol, two that all symbols share.

    They forget in a day, in three, in ten and in a month; half of them have a long upper tail. The
    last value is that of the last day served.
    """
    random = np.random.default_rng([seed, 1])
    count = DAYS + SERVED
    times = [LEARNT_UNTIL + n * _DAY for n in range(1 - DAYS, SERVED + 1)]
    key = {"event_timestamp": pl.Series(times, dtype=pl.Datetime("us", "UTC"))}
    values: dict[tuple[str, str], np.ndarray] = {}
    for place, (name, memory) in enumerate(zip(DAILY, (10.0, 30.0, 1.0, 3.0), strict=True)):
        for symbol in NAMES if place < len(DAILY) // 2 else NAMES[:1]:
            level = _autoregression(random, count, memory)
            values[name, symbol] = np.exp(level) if place % 2 else level
    frames = []
    for symbol in NAMES:
        own = {name: values.get((name, symbol), values[name, NAMES[0]]) for name in DAILY}
        frames.append(pl.DataFrame({"symbol": [symbol] * count, **key, **own}))
    return pl.concat(frames).with_columns(source=pl.lit("simulated"))


def _autoregression(random: np.random.Generator, count: int, memory: float) -> np.ndarray:
    """Of unit variance, stationary from the first value on."""
    kept = float(np.exp(-1 / memory))
    noise = random.standard_normal(count)
    noise[1:] *= np.sqrt(1 - kept**2)
    values = np.empty(count)
    level = 0.0
    for place, each in enumerate(noise.tolist()):
        level = kept * level + each
        values[place] = level
    return values


def moved(
    rows: pl.DataFrame, feature: str, deviations: float, since: datetime = CHANGED
) -> pl.DataFrame:
    """``feature`` of the first symbol higher by so many deviations since an instant."""
    there = (pl.col("symbol") == NAMES[0]) & (pl.col("event_timestamp") >= since)
    by = deviations * rows.filter(pl.col("symbol") == NAMES[0])[feature].std()
    return rows.with_columns(pl.when(there).then(pl.col(feature) + by).otherwise(feature))


def report(
    rows: pl.DataFrame, now: datetime, spans: dict[str, int] = SPANS, rules: Rules = RULES
) -> pl.DataFrame:
    """The report at ``now`` of a champion that learnt from the first :data:`LEARNT` days."""
    learnt = rows.filter(pl.col("event_timestamp") <= LEARNT_UNTIL)
    windows = recent_windows(learnt, now, rules)
    assert windows is not None
    return drift_report(learnt, rows, spans, windows, rules, now=now)


def report_of_both(rows: pl.DataFrame, days: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """The same of inputs of bars and daily ones together, as `feature_drift` judges them."""
    learnt, before = (
        frame.filter(pl.col("event_timestamp") <= LEARNT_UNTIL) for frame in (rows, days)
    )
    parts = windows_of_both(learnt, before, now, RULES)
    tables = [
        drift_report(past, newest, spans, windows, own, now=now)
        for (past, newest, spans), (windows, own) in zip(
            ((learnt, rows, SPANS), (before, days, DAILY)), parts, strict=True
        )
    ]
    return pl.concat(tables)
