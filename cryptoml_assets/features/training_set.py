"""Training rows: features as they were known, and the return that followed."""

from __future__ import annotations

from datetime import datetime, timedelta

import polars as pl

from cryptoml_assets.features.catalog import TTL, features_of, model_features
from cryptoml_assets.features.feature import Table
from cryptoml_assets.features.point_in_time import FeatureRows, as_of


def training_schema() -> pl.Schema:
    """Column types of a training set."""
    instant = pl.Datetime("us", "UTC")
    return pl.Schema(
        {
            "symbol": pl.String(),
            "event_timestamp": instant,
            "label_timestamp": instant,
            "label": pl.Float64(),
            **dict.fromkeys(model_features(), pl.Float64()),
            "source": pl.String(),
        }
    )


def model_inputs(
    price: pl.LazyFrame, onchain: pl.LazyFrame, *, ttl: timedelta = TTL
) -> tuple[FeatureRows, ...]:
    """The model inputs of each feature table, to be joined as of an instant.

    Args:
        price: ``price_features``.
        onchain: ``onchain_features``.
        ttl: Age past which a row is no longer used.
    """
    tables: tuple[tuple[Table, pl.LazyFrame], ...] = (
        ("price_features", price),
        ("onchain_features", onchain),
    )
    return tuple(
        FeatureRows(
            table,
            rows,
            tuple(feature.name for feature in features_of(table) if feature.model_input),
            ttl,
        )
        for table, rows in tables
    )


def with_labels(rows: pl.LazyFrame, bars: pl.LazyFrame, horizon: timedelta) -> pl.LazyFrame:
    """Rows whose label exists: the log return over exactly ``horizon`` from the event timestamp.

    Args:
        rows: Columns ``symbol`` and ``event_timestamp`` beside any others.
        bars: ``raw_prices`` of one venue and timeframe.
        horizon: Whole number of bars.

    Returns:
        ``rows`` with ``label_timestamp`` and ``label``, less those where the bar that closes at
        either end is missing: a label never spans a longer or shorter time than ``horizon``.
    """
    closes = bars.select("symbol", "close_time", "close")
    return (
        rows.with_columns(label_timestamp=pl.col("event_timestamp") + horizon)
        .join(
            closes.rename({"close_time": "event_timestamp", "close": "close_now"}),
            on=["symbol", "event_timestamp"],
            validate="m:1",
        )
        .join(
            closes.rename({"close_time": "label_timestamp", "close": "close_then"}),
            on=["symbol", "label_timestamp"],
            validate="m:1",
        )
        .with_columns(label=(pl.col("close_then") / pl.col("close_now")).log())
        .drop("close_now", "close_then")
    )


def training_set(
    price: pl.LazyFrame,
    onchain: pl.LazyFrame,
    bars: pl.LazyFrame,
    *,
    now: datetime,
    window: timedelta,
    horizon: timedelta,
    ttl: timedelta = TTL,
) -> pl.DataFrame:
    """Rows of the last ``window`` before ``now`` whose label is knowable at ``now``.

    Args:
        price: ``price_features``; its rows are the instants that are learnt from.
        onchain: ``onchain_features``.
        bars: ``raw_prices`` of one venue and timeframe.
        now: Nothing that became known later goes in.
        window: How far back rows reach.
        horizon: Span of the label, a whole number of bars.
        ttl: Age past which a feature row is no longer used.

    Returns:
        :func:`training_schema`; ``source`` is that of the price row. Sorted by event timestamp and
        symbol. Missing feature values stay null.
    """
    start = now - window
    recent = _since(price, start).filter(
        pl.col("event_timestamp").is_between(start, now, closed="right")
    )
    labelled = (
        with_labels(
            recent.select("symbol", "event_timestamp", "source"), _since(bars, start), horizon
        )
        .filter(pl.col("label_timestamp") <= now)
        .sort("event_timestamp", "symbol")
        .collect()
    )
    rows = as_of(labelled, model_inputs(price, onchain, ttl=ttl))
    return rows.select(training_schema().names())


def _since(frame: pl.LazyFrame, start: datetime) -> pl.LazyFrame:
    """Leave out the days that ended before ``start``, so that their files are never opened.

    A row belongs to the day its bar opened on, which may be the one before its close.
    """
    return frame.filter(pl.col("date") >= start.date() - timedelta(days=1))
