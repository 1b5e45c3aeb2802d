"""Training rows: features as they were known, and the return that followed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import polars as pl

from cryptoml_assets.features.catalog import TTL, model_features


def training_schema(inputs: Sequence[str] | None = None) -> pl.Schema:
    """Column types of a training set over ``inputs``, the catalog's model inputs when not given."""
    instant = pl.Datetime("us", "UTC")
    return pl.Schema(
        {
            "symbol": pl.String(),
            "event_timestamp": instant,
            "label_timestamp": instant,
            "label": pl.Float64(),
            **{name: pl.Float64() for name in (model_features() if inputs is None else inputs)},
            "source": pl.String(),
        }
    )


def features_as_of(
    price: pl.LazyFrame, onchain: pl.LazyFrame, *, ttl: timedelta = TTL
) -> pl.LazyFrame:
    """Each price row with the symbol's newest on-chain row known at its event timestamp.

    On-chain values are null where the newest row is older than ``ttl``, as with Feast.

    Returns:
        The columns of ``price`` and the on-chain features, sorted by event timestamp and symbol.
    """
    return (
        price.sort("event_timestamp", "symbol")
        .join_asof(
            onchain.drop("source", "date").sort("event_timestamp", "symbol"),
            on="event_timestamp",
            by="symbol",
            strategy="backward",
            tolerance=ttl,
            check_sortedness=False,
        )
        .sort("event_timestamp", "symbol")
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
    inputs: Sequence[str] | None = None,
) -> pl.DataFrame:
    """Rows of the last ``window`` before ``now`` whose label is knowable at ``now``.

    Args:
        price: ``price_features``.
        onchain: ``onchain_features``.
        bars: ``raw_prices`` of one venue and timeframe.
        now: Nothing that became known later goes in.
        window: How far back rows reach.
        horizon: Span of the label, a whole number of bars.
        ttl: Age past which an on-chain row is no longer used.
        inputs: Feature columns; the catalog's model inputs when not given.

    Returns:
        :func:`training_schema` of ``inputs``; ``source`` is that of the bars. Sorted by event
        timestamp and symbol. Missing feature values stay null.
    """
    start = now - window
    recent = _since(price, start).filter(
        pl.col("event_timestamp").is_between(start, now, closed="right")
    )
    return (
        with_labels(features_as_of(recent, onchain, ttl=ttl), _since(bars, start), horizon)
        .filter(pl.col("label_timestamp") <= now)
        .select(training_schema(inputs).names())
        .sort("event_timestamp", "symbol")
        .collect()
    )


def _since(frame: pl.LazyFrame, start: datetime) -> pl.LazyFrame:
    """Leave out the days that ended before ``start``, so that their files are never opened.

    A row belongs to the day its bar opened on, which may be the one before its close.
    """
    return frame.filter(pl.col("date") >= start.date() - timedelta(days=1))
