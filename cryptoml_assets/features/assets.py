"""Feature tables, computed by day from what has been stored of bars, blocks and metrics."""

from collections.abc import Callable, Iterator, Sequence
from datetime import date
from typing import Any

import dagster as dg
import polars as pl

from cryptoml_assets.cadence import daily_table, follow
from cryptoml_assets.features.catalog import features_of, version_of, warmup_of
from cryptoml_assets.features.compute import BAR_COLUMNS, days_before, feature_schema, price_lacks
from cryptoml_assets.features.compute import price_features as compute_price
from cryptoml_assets.features.inputs import MEANINGS, bars_of_settings
from cryptoml_assets.features.nulls import null_counts
from cryptoml_assets.features.onchain import BLOCK_COLUMNS, onchain_lacks
from cryptoml_assets.features.onchain import onchain_features as compute_onchain
from cryptoml_assets.features.pins import FORMULAS, LAKE_VERSIONS
from cryptoml_assets.features.report import volatility_plot
from cryptoml_assets.features.summary import Summary
from cryptoml_assets.partitions import partition_days
from cryptoml_assets.plots import figure_metadata
from cryptoml_assets.reads import Reading, Reads
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.resources.lake import Lake, Stored
from cryptoml_assets.settings import settings
from cryptoml_assets.tables import described_columns
from cryptoml_assets.versions import versioned

#: The rows of some days, from the tables of a run, and how many values are null for what reason.
_Compute = Callable[[Reading, Sequence[date]], tuple[pl.DataFrame, pl.DataFrame]]
_Events = Iterator[dg.MaterializeResult[Stored] | dg.AssetMaterialization]

_ONCHAIN_DELAY = max(settings().metrics_lag, settings().finality_delay)
# Whether a window that lacks bars reaches back before a symbol's first one is told in its rows.
_PRICE_READS = Reads(
    {"raw_prices": days_before(settings().bar)}, history=True, code=version_of("price_features")
)
_ONCHAIN_READS = Reads(
    dict.fromkeys(("network_metrics", "onchain_blocks"), warmup_of("onchain_features")),
    delay=_ONCHAIN_DELAY,
    code=version_of("onchain_features"),
)


@daily_table(
    follow(_PRICE_READS),
    reads=_PRICE_READS,
    group="features",
    kinds={"polars"},
    owner="team:features",
    code_version=version_of("price_features"),
    metadata=described_columns(feature_schema(features_of("price_features")), MEANINGS),
)
def price_features(
    context: dg.AssetExecutionContext, lake: dg.ResourceParam[LakeIOManager]
) -> Iterator[dg.MaterializeResult[Stored] | dg.AssetMaterialization]:
    """What is known of a symbol's price at the close of each bar.

    One row per symbol and closed bar; `event_timestamp` is the close of the newest bar that went
    in. Values come from the catalog and are null where a bar of their window is missing.
    """
    summary = Summary(features_of("price_features"))
    yield from _computed(context, lake.lake, _PRICE_READS, _price_rows, summary)


@daily_table(
    follow(_ONCHAIN_READS),
    reads=_ONCHAIN_READS,
    group="features",
    kinds={"polars"},
    owner="team:features",
    code_version=version_of("onchain_features"),
    metadata=described_columns(feature_schema(features_of("onchain_features")), MEANINGS),
)
def onchain_features(
    context: dg.AssetExecutionContext, lake: dg.ResourceParam[LakeIOManager]
) -> Iterator[dg.MaterializeResult[Stored] | dg.AssetMaterialization]:
    """What the chains say about a day, once it can be known.

    One row per symbol and UTC day; `event_timestamp` is the end of the day plus the longer of the
    metrics' publication lag and the blocks' finality delay, and a row exists only from then on.
    """
    summary = Summary(features_of("onchain_features"))
    yield from _computed(context, lake.lake, _ONCHAIN_READS, _onchain_rows, summary)


def _price_rows(reading: Reading, days: Sequence[date]) -> tuple[pl.DataFrame, pl.DataFrame]:
    features, bar = features_of("price_features"), settings().bar
    # Read once: the values and the reasons of their nulls are made of the same rows.
    bars = bars_of_settings(reading.scan("raw_prices", days)).select(BAR_COLUMNS).collect()
    history = bars_of_settings(reading.history("raw_prices"))
    frame = compute_price(bars, days, bar, features, history=history)
    return frame, null_counts(
        frame, features, lambda: price_lacks(bars, days, bar, features, history=history)
    )


def _onchain_rows(reading: Reading, days: Sequence[date]) -> tuple[pl.DataFrame, pl.DataFrame]:
    features, symbols = features_of("onchain_features"), settings().symbols
    metrics = reading.scan("network_metrics", days).collect()
    blocks = reading.scan("onchain_blocks", days).select(BLOCK_COLUMNS).collect()
    frame = compute_onchain(
        metrics, blocks, symbols, days, delay=_ONCHAIN_DELAY, now=reading.now, features=features
    )
    known = [day for day in days if reading.reads.known(day, reading.now)]
    return frame, null_counts(
        frame, features, lambda: onchain_lacks(metrics, blocks, symbols, known, features)
    )


def _computed(
    context: dg.AssetExecutionContext, lake: Lake, reads: Reads, compute: _Compute, summary: Summary
) -> _Events:
    """Compute the run's days part by part, store them in one commit, and tell of each day."""
    reading = Reading.begin(reads, lake, partition_days(context), settings().clock())

    def rows(days: Sequence[date]) -> pl.DataFrame:
        frame, nulls = compute(reading, days)
        summary.add(days, frame, nulls)
        done, count = summary.days, len(reading.days)
        context.log.info("%d of %d days computed, %d rows", done, count, summary.rows)
        return frame

    stored = lake.replace_parts(context.asset_key.path[-1], reading.slices(), rows)
    yield from versioned(
        stored,
        lake,
        context.asset_key,
        reading.days,
        metadata=_metadata(summary),
        by_day={
            day: {LAKE_VERSIONS: dict(reading.at), FORMULAS: reads.code} for day in reading.days
        },
        inputs=reading.versions(),
    )


def _metadata(summary: Summary) -> dict[str, Any]:
    told: dict[str, Any] = {
        "symbols": summary.symbols,
        "share_of_nulls": dg.MetadataValue.md(summary.null_shares()),
        "null_reasons": dg.MetadataValue.md(summary.null_reasons()),
    }
    if summary.volatility.width:
        told["plot"] = figure_metadata(volatility_plot(summary.volatility))
    return told
