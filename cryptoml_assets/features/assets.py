"""Feature assets: computed by day, brought online, joined with labels into a training set."""

from collections.abc import Sequence
from typing import Any

import dagster as dg
import polars as pl

from cryptoml_assets.cadence import daily_table, follow, follow_all, fresh
from cryptoml_assets.errors import TrainingDataError
from cryptoml_assets.features.catalog import (
    FEATURES,
    TTL,
    features_of,
    model_features,
    version_of,
    warmup_of,
)
from cryptoml_assets.features.compute import days_before, feature_schema
from cryptoml_assets.features.compute import price_features as compute_price
from cryptoml_assets.features.feature import Table
from cryptoml_assets.features.onchain import onchain_features as compute_onchain
from cryptoml_assets.features.report import label_plot, null_shares, volatility_plot
from cryptoml_assets.features.training_set import training_schema
from cryptoml_assets.features.training_set import training_set as compute_training
from cryptoml_assets.partitions import partition_days
from cryptoml_assets.plots import figure_metadata
from cryptoml_assets.resources.feature_store import FeatureStoreResource
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.settings import settings
from cryptoml_assets.tables import described_columns, markdown_table

_MEANINGS = {
    "symbol": "base and quote currency, BASE/QUOTE",
    "event_timestamp": "instant from which the row can be known (UTC)",
    "label_timestamp": "instant at which the label is known, one horizon later (UTC)",
    "label": "log return from event_timestamp to label_timestamp",
    "source": "worlds the row was made from",
    "date": "UTC day; the partition",
    **{each.name: f"{each.description} Unit: {each.unit}." for each in FEATURES},
}


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
    metadata=described_columns(feature_schema(features_of("price_features")), _MEANINGS),
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
            "share_of_nulls": _null_shares(frame, _names("price_features")),
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
    metadata=described_columns(feature_schema(features_of("onchain_features")), _MEANINGS),
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
            "share_of_nulls": _null_shares(frame, _names("onchain_features")),
        },
    )


@dg.asset(
    deps=[price_features, onchain_features],
    group_name="features",
    kinds={"feast", "sqlite"},
    owners=["team:features"],
    code_version="1",
    automation_condition=follow_all,
    freshness_policy=fresh,
)
def online_features(
    feature_store: FeatureStoreResource, lake: dg.ResourceParam[LakeIOManager]
) -> dg.MaterializeResult[None]:
    """The newest row of each symbol and feature view, in Feast's online store.

    What the inference service reads. Rows older than the views' time to live are not brought in.
    """
    store = feature_store.open()
    from cryptoml_assets.features import online  # noqa: PLC0415  (loads Feast, as opening does)

    configured = settings()
    online.bring_up_to_date(store, lake.uri, configured.clock(), TTL)
    tables: tuple[Table, ...] = ("price_features", "onchain_features")
    rows = {table: online.online_rows(store, table, configured.symbols) for table in tables}
    shown = ("symbol", "event_timestamp", "price", "rsi", "volatility")
    newest = rows["price_features"].select(shown)
    return dg.MaterializeResult(
        metadata={
            **{
                f"rows_{table}": int(frame["event_timestamp"].is_not_null().sum())
                for table, frame in rows.items()
            },
            "newest": dg.MetadataValue.md(markdown_table(newest.columns, newest.iter_rows())),
        }
    )


@dg.asset(
    deps=[price_features, onchain_features, dg.AssetKey("raw_prices")],
    group_name="models",
    kinds={"polars", "deltalake"},
    owners=["team:research"],
    code_version="1",
    io_manager_key="lake",
    metadata=described_columns(training_schema(), _MEANINGS),
)
def training_set(lake: dg.ResourceParam[LakeIOManager]) -> dg.MaterializeResult[pl.DataFrame]:
    """Model inputs as they were known, with the return that followed.

    One row per symbol and closed bar of the training window: the inputs known at
    `event_timestamp` and the log return from then to `label_timestamp`, one horizon later. Only
    rows whose label is known already.
    """
    configured = settings()
    # Read at pinned versions, so that a model's record names the very rows it learnt from.
    tables = ("price_features", "onchain_features", "raw_prices")
    versions = {table: lake.lake.version(table) for table in tables}
    price, onchain, prices = (lake.lake.scan(table, version=versions[table]) for table in tables)
    now = configured.clock()
    frame = compute_training(
        price,
        onchain,
        bars_of_settings(prices),
        now=now,
        window=configured.training_window,
        horizon=configured.horizon,
    )
    if frame.is_empty():
        message = (
            f"no labelled rows between {now - configured.training_window} and {now}: "
            "materialise raw_prices and price_features of those days first"
        )
        raise TrainingDataError(message)
    return dg.MaterializeResult(
        value=frame,
        metadata={
            "window_start": frame["event_timestamp"][0].isoformat(),
            "window_end": frame["event_timestamp"][-1].isoformat(),
            "lake_versions": versions,
            "sources": _sources(price_features=price, onchain_features=onchain),
            "share_of_nulls": _null_shares(frame, model_features()),
            **_label_metadata(frame),
        },
    )


def bars_of_settings(prices: pl.LazyFrame) -> pl.LazyFrame:
    """The bars of the configured venue and length; a table may hold others from earlier runs."""
    configured = settings()
    return prices.filter(
        pl.col("venue") == configured.venue, pl.col("timeframe") == configured.timeframe
    )


def _names(table: Table) -> tuple[str, ...]:
    return tuple(feature.name for feature in features_of(table))


def _null_shares(frame: pl.DataFrame, names: Sequence[str]) -> dg.MarkdownMetadataValue:
    return dg.MetadataValue.md(null_shares(frame, names))


def _label_metadata(frame: pl.DataFrame) -> dict[str, Any]:
    labels = frame["label"].to_numpy()
    return {
        "label_mean": float(labels.mean()),
        "label_std": float(labels.std(ddof=1)),
        "labels": figure_metadata(label_plot(frame)),
    }


def _sources(**tables: pl.LazyFrame) -> dict[str, list[str]]:
    """The distinct sources of each table's rows."""
    return {
        name: rows.select(pl.col("source").unique().sort()).collect()["source"].to_list()
        for name, rows in tables.items()
    }
