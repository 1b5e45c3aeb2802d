"""All price features of the catalog against the same features in vectorised pandas.

Both sides start from the same bars in memory and end with the same rows; the values are checked
equal to 1e-9, nulls included, before anything is timed.
"""

from __future__ import annotations

import argparse
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import polars as pl

from bench.report import Claim, alternate, publish
from cryptoml_assets.features.catalog import features_of
from cryptoml_assets.features.compute import price_features

FIRST = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
NAMES = [feature.name for feature in features_of("price_features")]


def make_bars(symbols: int, days: int, bar: timedelta) -> pl.DataFrame:
    """A random walk per symbol, shaped as ``raw_prices``, with one bar in a thousand missing."""
    rng = np.random.default_rng(7)
    count = days * (DAY // bar)
    opens = pl.datetime_range(
        FIRST, FIRST + (count - 1) * bar, bar, time_unit="us", time_zone="UTC", eager=True
    )
    frames = []
    for index in range(symbols):
        close = 100 * np.exp(np.cumsum(rng.standard_t(4, count) * 1e-3))
        opening = np.concatenate([[100.0], close[:-1]])
        frame = pl.DataFrame(
            {
                "symbol": [f"S{index:03d}/USDT"] * count,
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


def in_pandas(bars: pd.DataFrame, bar: timedelta) -> pd.DataFrame:
    """The same features, on a frame of times by symbols: one rolling pass covers all."""
    columns = ["high", "low", "close", "volume"]
    # pivot_table would aggregate, and take longer.
    wide = bars.pivot(index="open_time", columns="symbol", values=columns)  # noqa: PD010
    grid = pd.date_range(wide.index[0], wide.index[-1], freq=bar, name="open_time")
    wide = wide.reindex(grid)
    close, log_volume = wide["close"], np.log1p(wide["volume"])
    returns = np.log(close / close.shift(1))
    change = close.diff()
    gain = change.clip(lower=0.0).rolling(14).mean()
    loss = (-change).clip(lower=0.0).rolling(14).mean()
    sma_5, sma_20 = close.rolling(5).mean(), close.rolling(20).mean()
    volume_rolling = log_volume.rolling(288)
    closes_at = grid + bar
    phase = (closes_at - closes_at.normalize()).total_seconds().to_numpy() * (2 * np.pi / 86_400)
    over_symbols = np.ones(close.shape[1])
    features = {
        "price": close,
        "volume": wide["volume"],
        "sma_5": sma_5,
        "sma_20": sma_20,
        "rsi": 100 * gain / (gain + loss),
        "volatility": returns.rolling(20).std(),
        "momentum": close / close.shift(12) - 1,
        "log_return_1": returns,
        "log_return_3": np.log(close / close.shift(3)),
        "log_return_12": np.log(close / close.shift(12)),
        "sma_gap_5": close / sma_5 - 1,
        "sma_gap_20": close / sma_20 - 1,
        "volatility_288": returns.rolling(288).std(),
        "high_low_range": np.log(wide["high"] / wide["low"]),
        "volume_zscore": (log_volume - volume_rolling.mean()) / volume_rolling.std(),
        "hour_sin": np.outer(np.sin(phase), over_symbols),
        "hour_cos": np.outer(np.cos(phase), over_symbols),
    }
    rows = pd.DataFrame(
        {name: np.asarray(values).ravel(order="F") for name, values in features.items()}
    )
    rows.insert(0, "symbol", np.repeat(close.columns.to_numpy(), len(grid)))
    moments = np.tile(closes_at.tz_convert(None).to_numpy(), close.shape[1])
    rows.insert(1, "event_timestamp", pd.DatetimeIndex(moments, tz="UTC"))
    return rows[rows["price"].notna()].reset_index(drop=True)


def check_equal(ours: pl.DataFrame, theirs: pd.DataFrame) -> None:
    """Stop unless both hold the same rows and values."""
    assert ours["symbol"].to_list() == theirs["symbol"].to_list()
    moments = theirs["event_timestamp"].dt.tz_convert(None).to_numpy().astype("datetime64[us]")
    assert (ours["event_timestamp"].to_numpy() == moments).all()
    for name in NAMES:
        np.testing.assert_allclose(
            ours[name].fill_null(np.nan).to_numpy(),
            theirs[name].to_numpy(),
            rtol=1e-9,
            atol=1e-9,
            err_msg=name,
        )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--symbols", type=int, default=5)
    options.add_argument("--days", type=int, default=60)
    options.add_argument("--minutes", type=int, default=5, help="length of a bar")
    options.add_argument("--runs", type=int, default=9)
    chosen = options.parse_args()
    bar = timedelta(minutes=chosen.minutes)
    days = [date(2024, 1, 1) + timedelta(days=offset) for offset in range(chosen.days)]
    bars = make_bars(chosen.symbols, chosen.days, bar)
    pandas_bars = bars.to_pandas()
    check_equal(price_features(bars, days, bar), in_pandas(pandas_bars, bar))
    ours, theirs = alternate(
        lambda: price_features(bars, days, bar), lambda: in_pandas(pandas_bars, bar), chosen.runs
    )
    what = (
        f"{len(NAMES)} price features of {bars.height} {chosen.minutes}-minute bars "
        f"({chosen.symbols} symbols) against pandas {pd.__version__}"
    )
    publish("features", [Claim.of_seconds(what, ours, theirs, target=1.0)])


if __name__ == "__main__":
    main()
