"""The training set as an asset: features as they were known, with the return that followed."""

from typing import Any

import dagster as dg
import polars as pl

from cryptoml_assets.days import days_between
from cryptoml_assets.errors import TrainingDataError
from cryptoml_assets.features.assets import onchain_features, price_features
from cryptoml_assets.features.catalog import TTL, model_features
from cryptoml_assets.features.inputs import MEANINGS, bars_of_settings
from cryptoml_assets.features.pins import refuse_other_formulas
from cryptoml_assets.features.report import coverage_plot, label_plot, null_shares
from cryptoml_assets.features.training_set import training_schema
from cryptoml_assets.features.training_set import training_set as compute_training
from cryptoml_assets.plots import figure_metadata
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.settings import settings
from cryptoml_assets.tables import described_columns


@dg.asset(
    deps=[price_features, onchain_features, dg.AssetKey("raw_prices")],
    group_name="models",
    kinds={"polars", "deltalake"},
    owners=["team:research"],
    code_version="1",
    io_manager_key="lake",
    metadata=described_columns(training_schema(), MEANINGS),
)
def training_set(
    context: dg.AssetExecutionContext, lake: dg.ResourceParam[LakeIOManager]
) -> dg.MaterializeResult[pl.DataFrame]:
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
    first = (now - configured.training_window - TTL).date()
    refuse_other_formulas(context.instance, days_between(first, now.date()))
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
    missing = {name: frame[name].null_count() for name in model_features()}
    return dg.MaterializeResult(
        value=frame,
        metadata={
            "symbols": frame["symbol"].n_unique(),
            "window_start": frame["event_timestamp"][0].isoformat(),
            "window_end": frame["event_timestamp"][-1].isoformat(),
            "lake_versions": versions,
            "sources": _sources(price_features=price, onchain_features=onchain),
            "share_of_nulls": dg.MetadataValue.md(null_shares(missing, frame.height)),
            "coverage": figure_metadata(coverage_plot(frame, model_features())),
            **_label_metadata(frame),
        },
    )


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
