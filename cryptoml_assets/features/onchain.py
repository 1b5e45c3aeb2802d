"""On-chain features: one row per symbol and UTC day."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta

import numpy as np
import polars as pl

from cryptoml_assets.days import day_start
from cryptoml_assets.features.catalog import features_of
from cryptoml_assets.features.compute import computed, feature_schema, halo_of, wanted_of
from cryptoml_assets.features.feature import BLOCKS, METRICS, Feature
from cryptoml_assets.features.grid import UTC_TIME, Grid, Span, lay_out
from cryptoml_assets.features.lacks import Lacks, Mask
from cryptoml_assets.features.terms import Values

_DAY = timedelta(days=1)
#: What of a block counts.
BLOCK_NUMBERS = (
    "gas_used",
    "gas_limit",
    "base_fee_per_gas",
    "transaction_count",
    "active_addresses",
)
#: Columns of ``onchain_blocks`` that features are made of, and those that say when it was final.
BLOCK_COLUMNS = ("number", "timestamp", *BLOCK_NUMBERS, "finality", "source", "date")


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
        days: UTC days to compute; the tables cover them and the warm-up before them.
        delay: Time after the end of a day at which its metrics are published and its blocks final.
        now: A row whose ``event_timestamp`` (day end + ``delay``) is later does not exist yet.
        features: Catalog entries to compute.

    Returns:
        :func:`feature_schema` of ``features``, with a row only where the symbol has a metric or the
        day a final block. ``source`` names each distinct source of the day's rows, joined by ``+``.
    """
    # What is not knowable yet is left out, so that nothing can be made of it either.
    known = [day for day in days if day_start(day) + _DAY + delay <= now]
    if not known:
        return feature_schema(features).to_frame()
    grid, sources = day_grid(metrics, blocks, symbols, known, features)
    return computed(grid, known, features, sources, known_after=_DAY + delay)


def onchain_lacks(
    metrics: pl.LazyFrame | pl.DataFrame,
    blocks: pl.LazyFrame | pl.DataFrame,
    symbols: Sequence[str],
    days: Sequence[date],
    features: Sequence[Feature] = features_of("onchain_features"),
) -> tuple[Lacks, Mask]:
    """What the windows of :func:`onchain_features` lack, and the symbols and days with a row.

    Arguments are those of :func:`onchain_features`; ``days`` has one at least, and all are known.
    """
    grid, _ = day_grid(metrics, blocks, symbols, days, features)
    halo = halo_of(features)
    return Lacks(grid, halo), wanted_of(grid, days)[:, halo:]


def day_grid(
    metrics: pl.LazyFrame | pl.DataFrame,
    blocks: pl.LazyFrame | pl.DataFrame,
    symbols: Sequence[str],
    days: Sequence[date],
    features: Sequence[Feature],
) -> tuple[Grid, pl.Series]:
    """Metrics and blocks of ``days`` and of the warm-up before them, and the sources of each day.

    A symbol has a row where there is a metric of its base asset, or a final block.
    """
    span = Span.of_days(days, _DAY, halo_of(features))
    dates = [span.start.date() + step * _DAY for step in range(span.count)]
    per_day = _block_days(blocks).collect()
    rows = (
        _symbol_days(symbols, dates)
        .join(_metric_days(metrics), on=["asset", "date"], how="left", validate="m:1")
        .join(per_day.lazy().select("date", "block_source"), on="date", how="left", validate="m:1")
        .with_columns(
            open_time=pl.col("date").cast(UTC_TIME),
            source=_joined_sources("metric_source", "block_source"),
        )
        .filter(pl.col("source") != "")
        .collect()
    )
    return lay_out(rows, span, METRICS, _by_day(per_day, dates)), rows["source"]


def _symbol_days(symbols: Sequence[str], days: Sequence[date]) -> pl.LazyFrame:
    """Each symbol with its base asset, on each day."""
    assets = [symbol.split("/")[0].lower() for symbol in symbols]
    schema = {"symbol": pl.String, "asset": pl.String}
    named = pl.LazyFrame({"symbol": list(symbols), "asset": assets}, schema=schema)
    return named.join(pl.LazyFrame({"date": days}, schema={"date": pl.Date}), how="cross")


def _joined_sources(*columns: str) -> pl.Expr:
    return pl.concat_list(columns).list.drop_nulls().list.unique().list.sort().list.join("+")


def _metric_days(metrics: pl.LazyFrame | pl.DataFrame) -> pl.LazyFrame:
    return metrics.lazy().select(
        "asset", pl.col("day").alias("date"), *METRICS, pl.col("source").alias("metric_source")
    )


def _block_days(blocks: pl.LazyFrame | pl.DataFrame) -> pl.LazyFrame:
    """The columns that features see, of each day, and the day's sources.

    Sums of whole numbers and means over the blocks in order: the rows' order changes no bit.
    """
    final = blocks.lazy().filter(pl.col("finality") == "finalized")
    target = pl.col("gas_limit") / 2
    return (
        final.sort("number")
        .group_by("date")
        .agg(
            block_gas_used=pl.col("gas_used").sum(),
            block_gas_limit=pl.col("gas_limit").sum(),
            block_base_fee=pl.col("base_fee_per_gas").mean(),
            block_transactions=pl.col("transaction_count").mean(),
            block_active_addresses=pl.col("active_addresses").mean(),
            block_above_target=(pl.col("gas_used") > target).mean(),
            block_source=pl.col("source").unique().sort().str.join("+"),
        )
    )


def _by_day(per_day: pl.DataFrame, dates: Sequence[date]) -> dict[str, Values]:
    """Each column of the blocks for ``dates``, one row for all symbols."""
    wanted = pl.DataFrame({"date": dates}, schema={"date": pl.Date})
    rows = wanted.join(per_day, on="date", how="left", maintain_order="left")
    columns = rows.select(pl.col(BLOCKS).cast(pl.Float64).fill_null(np.nan))
    return {name: columns[name].to_numpy()[np.newaxis] for name in BLOCKS}
