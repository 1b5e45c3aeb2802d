"""Feature tables, computed by day from what has been stored of bars, blocks and metrics."""

from collections.abc import Sequence

import dagster as dg
import polars as pl

from cryptoml_assets.cadence import daily_table, follow
from cryptoml_assets.features.catalog import features_of, version_of, warmup_of
from cryptoml_assets.features.compute import days_before, feature_schema
from cryptoml_assets.features.compute import price_features as compute_price
from cryptoml_assets.features.feature import Feature
from cryptoml_assets.features.inputs import MEANINGS, bars_of_settings
from cryptoml_assets.features.onchain import onchain_features as compute_onchain
from cryptoml_assets.features.report import null_shares, volatility_plot
from cryptoml_assets.partitions import partition_days
from cryptoml_assets.plots import figure_metadata
from cryptoml_assets.settings import settings
from cryptoml_assets.tables import described_columns


def _with_days_before(count: int) -> dg.AssetIn:
    """An input of the day and of ``count`` days before it, where the partitioning has them."""
    return dg.AssetIn(
        partition_mapping=dg.TimeWindowPartitionMapping(
            start_offset=-count, allow_nonexistent_upstream_partitions=True
        )
    )


@daily_table(
    follow,
    ins={"raw_prices": _with_days_before(days_before(settings().bar))},
    group="features",
    kinds={"polars"},
    owner="team:features",
    code_version=version_of("price_features"),
    metadata=described_columns(feature_schema(features_of("price_features")), MEANINGS),
)
def price_features(
    context: dg.AssetExecutionContext, raw_prices: pl.LazyFrame
) -> dg.MaterializeResult[pl.DataFrame]:
    """What is known of a symbol's price at the close of each bar.

    One row per symbol and closed bar; `event_timestamp` is the close of the newest bar that went
    in. Values come from the catalog and are null where a bar of their window is missing.
    """
    configured = settings()
    days = partition_days(context)
    frame = compute_price(bars_of_settings(raw_prices), days, configured.bar)
    return dg.MaterializeResult(
        value=frame,
        metadata={
            "symbols": frame["symbol"].n_unique(),
            "share_of_nulls": _null_shares(frame, features_of("price_features")),
            "plot": figure_metadata(volatility_plot(frame)),
        },
    )


@daily_table(
    follow,
    ins={
        table: _with_days_before(warmup_of("onchain_features"))
        for table in ("network_metrics", "onchain_blocks")
    },
    group="features",
    kinds={"polars"},
    owner="team:features",
    code_version=version_of("onchain_features"),
    metadata=described_columns(feature_schema(features_of("onchain_features")), MEANINGS),
)
def onchain_features(
    context: dg.AssetExecutionContext,
    network_metrics: pl.LazyFrame,
    onchain_blocks: pl.LazyFrame,
) -> dg.MaterializeResult[pl.DataFrame]:
    """What the chains say about a day, once it can be known.

    One row per symbol and UTC day; `event_timestamp` is the end of the day plus the longer of the
    metrics' publication lag and the blocks' finality delay, and a row exists only from then on.
    """
    configured = settings()
    frame = compute_onchain(
        network_metrics,
        onchain_blocks,
        configured.symbols,
        partition_days(context),
        delay=max(configured.metrics_lag, configured.finality_delay),
        now=configured.clock(),
    )
    return dg.MaterializeResult(
        value=frame,
        metadata={
            "symbols": frame["symbol"].n_unique(),
            "share_of_nulls": _null_shares(frame, features_of("onchain_features")),
        },
    )


def _null_shares(frame: pl.DataFrame, features: Sequence[Feature]) -> dg.MarkdownMetadataValue:
    return dg.MetadataValue.md(null_shares(frame, [feature.name for feature in features]))
