"""On-chain features: one row per symbol and UTC day."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta

import polars as pl

from cryptoml_assets.features.catalog import Feature, features_of
from cryptoml_assets.features.compute import UTC_TIME, feature_schema

_METRICS = ("active_addresses", "transaction_count", "hash_rate", "nvt_ratio", "mvrv_ratio")


def onchain_features(
    metrics: pl.LazyFrame | pl.DataFrame,
    blocks: pl.LazyFrame | pl.DataFrame,
    symbols: Sequence[str],
    days: Sequence[date],
    *,
    delay: timedelta,
    now: datetime,
    features: Sequence[Feature] = features_of("onchain_features"),
) -> pl.DataFrame:
    """Feature rows of ``days`` that are knowable at ``now``, sorted by symbol and time.

    Args:
        metrics: Rows of ``network_metrics``; a symbol reads those of its base asset.
        blocks: Rows of ``onchain_blocks``; only finalised ones count, the same for every symbol.
        symbols: Symbols to compute, such as ``BTC/USDT``.
        days: UTC days to compute.
        delay: Time after the end of a day at which its metrics are published and its blocks final.
        now: A row whose ``event_timestamp`` (day end + ``delay``) is later does not exist yet.
        features: Catalog entries to compute.

    Returns:
        :func:`feature_schema` of ``features``, with a row only where the symbol has a metric or the
        day a final block. ``source`` names each distinct source that went in, joined by ``+``.
    """
    schema = feature_schema(features)
    day_end = pl.col("date").cast(UTC_TIME) + timedelta(days=1)
    return (
        _symbol_days(symbols, days)
        .join(_metric_days(metrics), on=["asset", "date"], how="left", validate="m:1")
        .join(_block_days(blocks), on="date", how="left", validate="m:1")
        .with_columns(
            event_timestamp=day_end + delay,
            source=_joined_sources("metric_source", "block_source"),
        )
        .filter(pl.col("source") != "", pl.col("event_timestamp") <= now)
        .with_columns(
            feature.expression.cast(pl.Float64).alias(feature.name) for feature in features
        )
        .select(pl.col(name).cast(dtype) for name, dtype in schema.items())
        .sort("symbol", "event_timestamp")
        .collect()
    )


def _symbol_days(symbols: Sequence[str], days: Sequence[date]) -> pl.LazyFrame:
    """Each symbol with its base asset, on each day."""
    assets = [symbol.split("/")[0].lower() for symbol in symbols]
    schema = {"symbol": pl.String, "asset": pl.String}
    named = pl.LazyFrame({"symbol": list(symbols), "asset": assets}, schema=schema)
    dates = pl.LazyFrame({"date": sorted(set(days))}, schema={"date": pl.Date})
    return named.join(dates, how="cross")


def _joined_sources(*columns: str) -> pl.Expr:
    return pl.concat_list(columns).list.drop_nulls().list.unique().list.sort().list.join("+")


def _metric_days(metrics: pl.LazyFrame | pl.DataFrame) -> pl.LazyFrame:
    return metrics.lazy().select(
        "asset", pl.col("day").alias("date"), *_METRICS, pl.col("source").alias("metric_source")
    )


def _block_days(blocks: pl.LazyFrame | pl.DataFrame) -> pl.LazyFrame:
    final = blocks.lazy().filter(pl.col("finality") == "finalized")
    return (
        final.sort("number")
        .group_by("date")
        .agg(
            block_gas_used=pl.col("gas_used").sum().cast(pl.Float64),
            block_gas_limit=pl.col("gas_limit").sum().cast(pl.Float64),
            block_base_fee=pl.col("base_fee_per_gas").mean(),
            block_source=pl.col("source").unique().sort().str.join("+"),
        )
    )
