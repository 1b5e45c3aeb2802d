"""The same windows by polars' rolling kernels: over the whole series, and from fixed anchors.

For reference (docs/adr/0008): kernels carry running sums, so only what begins at a fixed anchor,
with its warm-up, gives a value the same bits in every run, and each anchor costs its slice.
"""

from __future__ import annotations

import math
from datetime import date, timedelta

import polars as pl

from bench.report import Claim, alternate
from cryptoml_assets.features.catalog import FEATURES
from cryptoml_assets.features.compute import price_features

WARM_UP = 288
CLOSE, VOLUME = pl.col("close"), pl.col("volume")
RETURN = (CLOSE / CLOSE.shift(1)).log()
SPAN, BODY = (pl.col("high") / pl.col("low")).log(), (CLOSE / pl.col("open")).log()


def expressions() -> dict[str, pl.Expr]:
    """Features of the catalog whose windows polars has kernels for."""
    found = {"high_low_range": SPAN, "volatility": RETURN.rolling_std(20)}
    for n in (1, 3, 12, 48, 288):
        found[f"log_return_{n}"] = (CLOSE / CLOSE.shift(n)).log()
    for n, name in ((12, "momentum"), (48, "momentum_48"), (288, "momentum_288")):
        found[name] = CLOSE / CLOSE.shift(n) - 1
    for n in (5, 20):
        found[f"sma_{n}"] = CLOSE.rolling_mean(n)
        found[f"sma_gap_{n}"] = CLOSE / CLOSE.rolling_mean(n) - 1
    for n in (20, 48):
        mean, deviation = CLOSE.rolling_mean(n), CLOSE.rolling_std(n, ddof=0)
        found[f"bollinger_position_{n}"] = (CLOSE - mean) / (4 * deviation) + 0.5
        found[f"bollinger_width_{n}"] = 4 * deviation / mean
    variance = SPAN**2 / 2 - BODY**2 * (2 * math.log(2) - 1)
    logs, share = VOLUME.log1p(), RETURN.abs() / (CLOSE * VOLUME) * 1e6
    for n in (48, 288):
        found[f"volatility_{n}"] = RETURN.rolling_std(n)
        found[f"realised_volatility_{n}"] = (RETURN**2).rolling_sum(n).sqrt()
        found[f"parkinson_{n}"] = ((SPAN**2).rolling_mean(n) / (4 * math.log(2))).sqrt()
        found[f"garman_klass_{n}"] = variance.rolling_mean(n).sqrt()
        found[f"skewness_{n}"] = RETURN.rolling_skew(n, bias=False)
        found[f"kurtosis_{n}"] = RETURN.rolling_kurtosis(n, bias=False)
        found[f"illiquidity_{n}"] = share.rolling_mean(n)
        name = "volume_zscore" if n == WARM_UP else f"volume_zscore_{n}"
        found[name] = (logs - logs.rolling_mean(n)) / logs.rolling_std(n)
    return found


CHOSEN = [feature for feature in FEATURES if feature.name in expressions()]


def whole(bars: pl.DataFrame) -> pl.DataFrame:
    """Features of the whole series of each symbol."""
    wanted = [each.over("symbol").alias(name) for name, each in expressions().items()]
    return bars.lazy().select("symbol", "open_time", *wanted).collect()


def anchored(bars: pl.DataFrame, bar: timedelta, every: str) -> pl.DataFrame:
    """The same, each ``every`` on its own, from its begin less the warm-up."""
    edges = bars["open_time"].dt.truncate(every).unique().sort()
    ends = edges.shift(-1, fill_value=bars["open_time"].max() + bar)
    wanted = [each.over("symbol").alias(name) for name, each in expressions().items()]
    opens = pl.col("open_time")
    return pl.concat(
        pl.collect_all(
            bars.lazy()
            .filter(opens.is_between(edge - WARM_UP * bar, end, closed="left"))
            .select("symbol", "open_time", *wanted)
            .filter(opens >= edge)
            for edge, end in zip(edges, ends, strict=True)
        )
    )


def claims(bars: pl.DataFrame, days: list[date], bar: timedelta, runs: int) -> list[Claim]:
    """Our time for these features beside that of each way, on the same bars."""
    found = []
    for what, theirs in (
        ("whole series, bits depend on the slice", lambda: whole(bars)),
        ("anchored at months", lambda: anchored(bars, bar, "1mo")),
        ("anchored at days", lambda: anchored(bars, bar, "1d")),
    ):
        seconds = alternate(lambda: price_features(bars, days, bar, CHOSEN), theirs, runs)
        claim = f"{len(CHOSEN)} features of {bars.height} bars: polars' rolling kernels, {what}"
        found.append(Claim.of_seconds(claim, *seconds, target=None))
    return found
