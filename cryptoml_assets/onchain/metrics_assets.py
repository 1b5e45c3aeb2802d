"""The raw asset of daily network metrics."""

from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any

import dagster as dg
import httpx
import polars as pl

from cryptoml_assets.cadence import daily_table, top_up
from cryptoml_assets.onchain import network_metrics as network
from cryptoml_assets.onchain.metrics_quality import lacking
from cryptoml_assets.onchain.metrics_report import activity_plot
from cryptoml_assets.partitions import partition_days
from cryptoml_assets.plots import figure_metadata
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.resources.lake import Stored
from cryptoml_assets.settings import settings
from cryptoml_assets.tables import described_columns
from cryptoml_assets.versions import versioned

_TABLE = "network_metrics"


@daily_table(
    top_up,
    group="onchain",
    kinds={"polars"},
    owner="team:market-data",
    code_version="2",
    metadata=described_columns(network.SCHEMA, network.MEANINGS, network.KEY),
)
def network_metrics(
    context: dg.AssetExecutionContext, lake: dg.ResourceParam[LakeIOManager]
) -> Iterator[dg.MaterializeResult[Stored] | dg.AssetMaterialization]:
    """How the networks behind the traded assets were used and valued.

    One row per base asset and UTC day, only from `available_at` on: the end of the day plus the
    publication lag. A figure that the provider revises replaces the stored one; a row or a figure
    that an answer leaves out stays as it was.

    A metric an asset lacks is null, and an asset the API does not know has no row. In the
    recordings ETH has no realised cap, so no MVRV. In the simulated world only BTC has hash rate,
    realised cap and MVRV, and SOL has no transfer value, so no NVT. The live API keeps some
    metrics from callers without a key. `lacks` of each run says what was not there.
    """
    configured, days = settings(), partition_days(context)
    assets = network.base_assets(configured.symbols)
    with httpx.Client(timeout=configured.request_timeout.total_seconds()) as client:
        api = network.MetricsApi(
            configured.metrics_address, _work(days), client, configured.retry_delays
        )
        answered = network.read_metrics(
            api, assets, days, lag=configured.metrics_lag, now=configured.clock()
        )
    stored = lake.lake.rewrite_days(
        _TABLE, days, lambda rows: network.merge_metrics(rows, answered), network.SCHEMA
    )
    rows = lake.lake.scan(_TABLE, days, stored.version).collect()
    metadata = _metadata(assets, answered, rows) | {"days_changed": len(stored.days_changed)}
    yield from versioned(stored, lake.lake, context.asset_key, days, metadata=metadata)


def _metadata(assets: Sequence[str], answered: pl.DataFrame, rows: pl.DataFrame) -> dict[str, Any]:
    told: dict[str, Any] = {
        "rows_answered": answered.height,
        "rows_kept": rows.join(answered, on=network.KEY, how="anti").height,
        "assets_absent": sorted(set(assets) - set(answered["asset"])),
        "lacks": lacking(rows),
    }
    if rows.height:
        told["plot"] = figure_metadata(activity_plot(rows))
    return told


def _work(days: Sequence[date]) -> str:
    """Table and partitions, as errors name them."""
    return f"{_TABLE} {days[0]}" if len(days) == 1 else f"{_TABLE} {days[0]}..{days[-1]}"
