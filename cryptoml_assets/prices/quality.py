"""What makes ``raw_prices`` rows fit to build on; each function returns what offends."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

import polars as pl

from cryptoml_assets.prices.bars import KEY, PRICES, SCHEMA

DAY = timedelta(days=1)


def schema_problems(schema: pl.Schema) -> list[str]:
    """Columns that are absent, of another type, or not part of ``raw_prices``."""
    return [
        f"{name}: expected {SCHEMA.get(name, 'no such column')}, found {schema.get(name, 'none')}"
        for name in dict.fromkeys((*SCHEMA, *schema))
        if SCHEMA.get(name) != schema.get(name)
    ]


def duplicate_keys(bars: pl.LazyFrame) -> pl.DataFrame:
    """Keys that more than one row carries: the key's columns and ``rows``."""
    return bars.group_by(KEY).agg(pl.len().alias("rows")).filter(pl.col("rows") > 1).collect()


def broken_bars(bars: pl.LazyFrame) -> pl.DataFrame:
    """Bars that contradict themselves.

    Prices must be positive numbers, high the greatest and low the least of the four, volume a
    number from 0 up, close time after open time, and the date the UTC day of the open time.
    """
    high, low = pl.col("high"), pl.col("low")
    sound = [
        *((pl.col(price) > 0) & pl.col(price).is_finite() for price in PRICES),
        high >= pl.max_horizontal("open", "close", "low"),
        low <= pl.min_horizontal("open", "close"),
        (pl.col("volume") >= 0) & pl.col("volume").is_finite(),
        pl.col("close_time") > pl.col("open_time"),
        pl.col("date") == pl.col("open_time").dt.date(),
    ]
    return bars.filter(~pl.all_horizontal(rule.fill_null(value=False) for rule in sound)).collect()


def completeness(
    bars: pl.LazyFrame, *, symbols: Sequence[str], days: Sequence[date], bar: timedelta
) -> pl.DataFrame:
    """Share of expected bars held, one row per day and symbol, absent ones included.

    Columns ``date``, ``symbol``, ``bars``, ``expected`` and ``share`` (0 to 1).
    """
    grid = pl.LazyFrame({"date": days}, schema={"date": pl.Date}).join(
        pl.LazyFrame({"symbol": symbols}, schema={"symbol": pl.String}), how="cross"
    )
    held = bars.group_by("date", "symbol").agg(pl.col("open_time").n_unique().alias("bars"))
    return (
        grid.join(held, on=["date", "symbol"], how="left")
        .with_columns(pl.col("bars").fill_null(0), pl.lit(DAY // bar).alias("expected"))
        .with_columns((pl.col("bars") / pl.col("expected")).alias("share"))
        .sort("date", "symbol")
        .collect()
    )
