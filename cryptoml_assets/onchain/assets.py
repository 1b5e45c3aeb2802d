"""Raw on-chain assets: blocks of the chain, and daily metrics of the networks."""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import dagster as dg
import httpx
import polars as pl

from cryptoml_assets.cadence import daily_table, top_up
from cryptoml_assets.onchain import blocks as chain
from cryptoml_assets.onchain import network_metrics as network
from cryptoml_assets.onchain.report import activity_plot, gas_plot
from cryptoml_assets.partitions import day_span, partition_days
from cryptoml_assets.plots import figure_metadata
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.settings import settings
from cryptoml_assets.tables import described_columns
from cryptoml_serving.contract.settings import World


def _work(table: str, days: Sequence[date]) -> str:
    """Table and partitions, as errors name them."""
    return f"{table} {days[0]}" if len(days) == 1 else f"{table} {days[0]}..{days[-1]}"


@daily_table(
    top_up,
    group="onchain",
    kinds={"ethereum", "polars"},
    owner="team:market-data",
    code_version="1",
    metadata=described_columns(chain.SCHEMA, chain.MEANINGS, chain.KEY),
)
def onchain_blocks(
    context: dg.AssetExecutionContext, lake: dg.ResourceParam[LakeIOManager]
) -> dg.MaterializeResult[pl.DataFrame]:
    """Blocks of the Ethereum chain, summed up over their transactions.

    One row per block, in the partition of the UTC day of its timestamp; `finality` is how settled
    the block was when it was read. With `CRYPTOML_BLOCK_DAYS` only the newest days of a run are
    read, and older ones keep the rows they have.
    """
    days = partition_days(context)
    newest = settings().block_days or len(days)
    read, kept = days[-newest:], days[:-newest]
    frame = _read_blocks(read)
    chain.check_not_behind(frame, _stored(lake, read))
    chain.check_attaches(frame, _stored(lake, (read[0] - timedelta(days=1),)))
    metadata: dict[str, Any] = {
        "days_read": f"{read[0]} .. {read[-1]}",
        "blocks_read": frame.height,
        "transactions": int(frame["transaction_count"].sum()),
        "finality": dict(frame.group_by("finality").len().sort("finality").iter_rows()),
    }
    if frame.height:
        metadata["first_block"], metadata["last_block"] = frame["number"][0], frame["number"][-1]
        metadata["plot"] = figure_metadata(gas_plot(frame))
    return dg.MaterializeResult(
        value=pl.concat([_stored(lake, kept), frame]).sort("number"), metadata=metadata
    )


@daily_table(
    top_up,
    group="onchain",
    kinds={"polars"},
    owner="team:market-data",
    code_version="1",
    metadata=described_columns(network.SCHEMA, network.MEANINGS, network.KEY),
)
def network_metrics(
    context: dg.AssetExecutionContext,
) -> dg.MaterializeResult[pl.DataFrame]:
    """How the networks behind the traded assets were used and valued.

    One row per base asset and UTC day, only from `available_at` on: the end of the day plus the
    publication lag. A metric an asset lacks is null; an asset the API does not know has no row.
    """
    configured, days = settings(), partition_days(context)
    assets = network.base_assets(configured.symbols)
    with httpx.Client(timeout=configured.request_timeout.total_seconds()) as client:
        api = network.MetricsApi(
            configured.metrics_address,
            _work("network_metrics", days),
            client,
            configured.retry_delays,
        )
        frame = network.read_metrics(
            api, assets, days, lag=configured.metrics_lag, now=configured.clock()
        )
    metadata: dict[str, Any] = {
        "assets_absent": sorted(set(assets) - set(frame["asset"])),
        "nulls": {name: frame[name].null_count() for name in network.METRICS},
    }
    if frame.height:
        metadata["plot"] = figure_metadata(activity_plot(frame))
    return dg.MaterializeResult(value=frame, metadata=metadata)


def _read_blocks(days: Sequence[date]) -> pl.DataFrame:
    from cryptoml_assets.onchain.node import open_node  # noqa: PLC0415  (web3 takes seconds to load)

    configured = settings()
    live = configured.world is World.LIVE
    with open_node(
        configured.chain_address,
        work=_work("onchain_blocks", days),
        # No recorded chain is long enough for replay, so what is not live is simulated.
        source=(World.LIVE if live else World.SIMULATED).value,
        timeout=configured.request_timeout,
        retry_delays=configured.retry_delays,
    ) as node:
        frame = chain.read_blocks(node, *day_span(tuple(days)), chain_id=configured.chain_id)
    return frame.filter(pl.col("date").is_in(list(days)))


def _stored(lake: LakeIOManager, days: Sequence[date]) -> pl.DataFrame:
    """The rows that the lake has of ``days``."""
    if not days or not lake.lake.exists("onchain_blocks"):
        return pl.DataFrame(schema=chain.SCHEMA)
    return lake.lake.scan("onchain_blocks", days).collect()
