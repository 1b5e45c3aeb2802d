"""Price features from bars, exact to the bit whatever was asked for.

A value is a function of the bars in its own window and of nothing else (see
:mod:`cryptoml_assets.features.windows`), so one day, a range of days, any order of days and a day
still in progress all give the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cryptoml_assets.errors import LakeError
from cryptoml_assets.features.catalog import Feature, features_of, price_warmup

UTC_TIME = pl.Datetime("us", "UTC")
_BAR_COLUMNS = ("open", "high", "low", "close", "volume")


def feature_schema(features: Sequence[Feature]) -> pl.Schema:
    """Column types of a feature table: key, features, source, partition date."""
    return pl.Schema(
        {
            "symbol": pl.String(),
            "event_timestamp": UTC_TIME,
            **{feature.name: pl.Float64() for feature in features},
            "source": pl.String(),
            "date": pl.Date(),
        }
    )


def days_before(bar: timedelta, warmup: int | None = None) -> int:
    """Whole days of bars before a day that its computation reads."""
    bars = price_warmup() if warmup is None else warmup
    return math.ceil(bars * bar / timedelta(days=1))


def price_features(
    bars: pl.LazyFrame | pl.DataFrame,
    days: Sequence[date],
    bar: timedelta,
    features: Sequence[Feature] = features_of("price_features"),
) -> pl.DataFrame:
    """Feature rows of ``days``: one per symbol and closed bar, sorted by symbol and time.

    Args:
        bars: Rows of ``raw_prices`` of one venue and timeframe, in any order, covering ``days`` and
            :func:`days_before` them; more is ignored.
        days: UTC days to compute.
        bar: Length of one bar.
        features: Catalog entries to compute.

    Returns:
        :func:`feature_schema` of ``features``. A value is null where a bar of its window is
        missing or the quantity is undefined there (a price or a volume that never varies).

    Raises:
        LakeError: a bar given twice, or one that does not open on a whole step of the day.
    """
    schema = feature_schema(features)
    if not days:
        return schema.to_frame()
    start = datetime.combine(min(days), datetime.min.time(), UTC)
    start -= max((feature.warmup for feature in features), default=0) * bar
    end = datetime.combine(max(days), datetime.min.time(), UTC) + timedelta(days=1)
    return (
        _grid(bars.lazy(), start, (end - start) // bar, bar)
        .lazy()
        .with_columns(feature.expression.alias(feature.name) for feature in features)
        .with_columns(_finite(feature.name) for feature in features)
        .with_columns(event_timestamp="close_time", date=pl.col("open_time").dt.date())
        .filter(pl.col("source").is_not_null(), pl.col("date").is_in(list(set(days))))
        .select(pl.col(name).cast(dtype) for name, dtype in schema.items())
        .collect()
    )


def _grid(bars: pl.LazyFrame, start: datetime, steps: int, bar: timedelta) -> pl.DataFrame:
    """``steps`` rows from ``start`` for each symbol, one symbol after the other.

    A row is a bar, or nulls where there is none. The wanted rows of a symbol begin the longest
    warm-up after ``start``, so none of their windows reaches into the symbol above.
    """
    rows = (
        bars.filter(pl.col("open_time").is_between(start, start + steps * bar, closed="left"))
        .select("symbol", "open_time", *_BAR_COLUMNS, "source")
        .collect()
    )
    symbols = rows["symbol"].unique().sort()
    length = bar // timedelta(microseconds=1)
    since = (rows["open_time"] - start).dt.total_microseconds().to_numpy()
    if stray := np.count_nonzero(since % length):
        message = f"{stray} bars do not open on a whole step of {bar} since midnight"
        raise LakeError(message)
    order = rows["symbol"].cast(pl.Enum(symbols)).to_physical().to_numpy()
    place = order.astype(np.int64) * steps + since // length
    row_at = np.full(len(symbols) * steps, -1)
    row_at[place] = np.arange(rows.height)
    if twice := rows.height - np.count_nonzero(row_at >= 0):
        message = f"{twice} bars are there more than once"
        raise LakeError(message)
    row = pl.Series(row_at).set(pl.Series(row_at < 0), None)
    opens = np.tile(np.arange(steps) * length, len(symbols))
    return pl.DataFrame(
        [_scattered(rows[name], place, len(row_at)) for name in _BAR_COLUMNS]
    ).with_columns(
        symbols.gather(np.repeat(np.arange(len(symbols)), steps)).alias("symbol"),
        rows["source"].gather(row),
        open_time=pl.lit(start).cast(UTC_TIME) + pl.Series(opens).cast(pl.Duration("us")),
        close_time=pl.lit(start + bar).cast(UTC_TIME) + pl.Series(opens).cast(pl.Duration("us")),
    )


def _scattered(values: pl.Series, place: NDArray[np.int64], size: int) -> pl.Series:
    """``size`` numbers, null but for ``values`` at ``place``."""
    column = np.full(size, np.nan)
    column[place] = values.to_numpy()
    return pl.Series(values.name, column, nan_to_null=True)


def _finite(name: str) -> pl.Expr:
    """Turn 0/0 and x/0 into null: an undefined value is missing, never a number."""
    return pl.when(pl.col(name).is_finite()).then(pl.col(name)).alias(name)
