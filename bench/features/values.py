"""All price features of the catalog against the same features in vectorised pandas, and TA-Lib.

Both sides start from the same bars in memory and end with the same rows; the values are checked
equal to 1e-9, nulls included, before anything is timed. Peak memory is that of a fresh process, and
growth is the time a row takes as rows become more. TA-Lib is compared on one symbol, by the
indicators it has; its values are held against ours in the tests. Polars' own rolling kernels stand
beside ours for reference.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import polars as pl

from bench.features import polars_kernels
from bench.features.in_pandas import MARKET, in_pandas
from bench.report import Claim, alternate, measure, timed
from cryptoml_assets.features.catalog import features_of
from cryptoml_assets.features.compute import price_features

FIRST = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
FEATURES = features_of("price_features")
GROWTH = (500_000, 1_000_000, 2_000_000, 4_000_000)
LIMIT_GB = 3.0
REFERENCE_DAYS = 60
SEED = 7

INDICATORS: dict[str, tuple[tuple[str, ...], Callable[[Any, dict[str, Any]], object]]] = {
    "SMA 5 and 20": (
        ("sma_5", "sma_20"),
        lambda ta, bars: (ta.SMA(bars["close"], 5), ta.SMA(bars["close"], 20)),
    ),
    "RSI 7 and 14": (
        ("rsi_7", "rsi"),
        lambda ta, bars: (ta.RSI(bars["close"], 7), ta.RSI(bars["close"], 14)),
    ),
    "MACD 12, 26, 9 and 6, 13, 5": (
        (
            *("macd", "macd_signal", "macd_histogram"),
            *("macd_fast", "macd_fast_signal", "macd_fast_histogram"),
        ),
        lambda ta, bars: (ta.MACD(bars["close"]), ta.MACD(bars["close"], 6, 13, 5)),
    ),
    "ATR 7 and 14": (
        ("atr_7", "atr_14"),
        lambda ta, bars: [ta.ATR(bars["high"], bars["low"], bars["close"], n) for n in (7, 14)],
    ),
    "Bollinger bands 20 and 48": (
        (
            *("bollinger_position_20", "bollinger_width_20"),
            *("bollinger_position_48", "bollinger_width_48"),
        ),
        lambda ta, bars: (ta.BBANDS(bars["close"], 20), ta.BBANDS(bars["close"], 48)),
    ),
    "momentum 12, 48 and 288": (
        ("momentum", "momentum_48", "momentum_288"),
        lambda ta, bars: [ta.ROCP(bars["close"], each) for each in (12, 48, 288)],
    ),
}


def make_bars(symbols: int, count: int, bar: timedelta) -> pl.DataFrame:
    """A random walk per symbol, shaped as ``raw_prices``, with one bar in a thousand missing."""
    rng = np.random.default_rng(SEED)
    opens = pl.datetime_range(
        FIRST, FIRST + (count - 1) * bar, bar, time_unit="us", time_zone="UTC", eager=True
    )
    frames = []
    for name in (MARKET, *(f"S{index:03d}/USDT" for index in range(1, symbols))):
        close = 100 * np.exp(np.cumsum(rng.standard_t(4, count) * 1e-3))
        opening = np.concatenate([[100.0], close[:-1]])
        frame = pl.DataFrame(
            {
                "symbol": [name] * count,
                "open_time": opens,
                "open": opening,
                "high": np.maximum(opening, close) * (1 + rng.random(count) * 1e-3),
                "low": np.minimum(opening, close) * (1 - rng.random(count) * 1e-3),
                "close": close,
                "volume": rng.lognormal(2, 1, count),
                "source": ["simulated"] * count,
            }
        )
        frames.append(frame.filter(pl.Series(rng.random(count) > 1e-3)))
    return pl.concat(frames)


def days_of(bars: pl.DataFrame) -> list[date]:
    """The days that ``bars`` lie on."""
    return bars["open_time"].dt.date().unique().to_list()


def check_equal(ours: pl.DataFrame, theirs: pd.DataFrame) -> None:
    """Stop unless both hold the same rows and values."""
    assert ours["symbol"].to_list() == theirs["symbol"].to_list()
    moments = theirs["event_timestamp"].dt.tz_convert(None).to_numpy().astype("datetime64[us]")
    assert (ours["event_timestamp"].to_numpy() == moments).all()
    assert set(theirs.columns[2:]) == {feature.name for feature in FEATURES}
    for feature in FEATURES:
        np.testing.assert_allclose(
            ours[feature.name].fill_null(np.nan).to_numpy(),
            theirs[feature.name].to_numpy(),
            rtol=1e-9,
            atol=1e-9,
            err_msg=feature.name,
        )


def against_pandas(bars: pl.DataFrame, bar: timedelta, runs: int, what: str) -> Claim:
    """Time of both sides on the same bars, after their values were found equal."""
    days, theirs = days_of(bars), bars.to_pandas()
    check_equal(price_features(bars, days, bar), in_pandas(theirs, bar))
    spent = measure(
        {
            "ours": lambda: timed(lambda: price_features(bars, days, bar)),
            "theirs": lambda: timed(lambda: in_pandas(theirs, bar)),
        },
        runs,
    )
    return Claim.of_pairs(
        f"{len(FEATURES)} price features of {what}: pandas {pd.__version__}",
        spent["ours"],
        spent["theirs"],
        5.0,
        work=bars.height,
        unit="rows/s",
    )


def peak_memory(options: argparse.Namespace) -> Claim:
    """Largest resident memory of a process that makes the bars and computes all features once."""
    command = [sys.executable, "-m", "bench.features.values", "--peak"]
    command += [f"--symbols={options.symbols}", f"--days={options.days}"]
    command += [f"--minutes={options.minutes}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    peak = float(done.stdout) / 1e6
    claim = f"peak memory of {options.symbols} symbols, {options.days} days, bars included: limit"
    return Claim(claim, round(peak, 3), LIMIT_GB, "GB", round(LIMIT_GB / peak, 3), 1.0)


def growth(symbols: int, bar: timedelta, runs: int) -> list[Claim]:
    """Time a row takes, from the fewest rows to ever more."""
    claims = []
    first = 0.0
    for rows in GROWTH:
        bars = make_bars(symbols, rows // symbols, bar)
        days = days_of(bars)
        spent = []
        for _ in range(runs + 3):
            began = time.perf_counter()
            price_features(bars, days, bar)
            spent.append(time.perf_counter() - began)
        each = min(spent[1:]) / bars.height * 1e6
        first = first or each
        claim = f"growth: microseconds a row, {rows / 1e6:g} M rows: of {GROWTH[0] / 1e6:g} M"
        claims.append(
            Claim(claim, round(each, 4), round(first, 4), "us", round(first / each, 3), 0.9)
        )
    return claims


def against_talib(bars: pl.DataFrame, bar: timedelta, runs: int) -> list[Claim]:
    """Indicators of one symbol; nothing where TA-Lib is not installed."""
    try:
        import talib  # noqa: PLC0415
    except ImportError:
        print("TA-Lib is not installed; not compared")
        return []
    one = bars.filter(pl.col("symbol") == MARKET)
    days = days_of(one)
    arrays = {name: one[name].to_numpy() for name in ("high", "low", "close")}
    every = (
        tuple(name for names, _ in INDICATORS.values() for name in names),
        lambda ta, bars: [call(ta, bars) for _, call in INDICATORS.values()],
    )
    claims = []
    for what, (names, call) in {**INDICATORS, "all of these at once": every}.items():
        chosen = [feature for feature in FEATURES if feature.name in names]
        seconds = alternate(
            lambda chosen=chosen: price_features(one, days, bar, chosen),
            lambda call=call: call(talib, arrays),
            runs,
        )
        claim = f"{what}, {one.height} bars of one symbol: TA-Lib {talib.__version__}"
        claims.append(Claim.of_seconds(claim, *seconds, target=None))
    return claims


def claims(options: argparse.Namespace) -> list[Claim]:
    """Everything this file claims."""
    bar = timedelta(minutes=options.minutes)
    # First of all: a process begins with the peak of the one that starts it.
    memory = peak_memory(options)
    bars = make_bars(options.symbols, options.days * (DAY // bar), bar)
    what = f"{bars.height} {options.minutes}-minute bars ({options.symbols} symbols)"
    found = [against_pandas(bars, bar, options.runs, what), memory]
    found += against_talib(bars, bar, options.runs)
    few = bars.filter(pl.col("open_time") < FIRST + REFERENCE_DAYS * DAY)
    found += polars_kernels.claims(few, days_of(few), bar, options.runs)
    del bars, few
    return [*found, *growth(options.symbols, bar, options.runs)]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--symbols", type=int, default=5)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--minutes", type=int, default=1, help="length of a bar")
    parser.add_argument("--runs", type=int, default=7)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("--peak", action="store_true", required=True, help="in kB; nothing else")
    options = parser.parse_args()
    bar = timedelta(minutes=options.minutes)
    bars = make_bars(options.symbols, options.days * (DAY // bar), bar)
    price_features(bars, days_of(bars), bar)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


if __name__ == "__main__":
    main()
