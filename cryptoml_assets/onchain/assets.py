"""The raw asset of blocks of the chain."""

from collections.abc import Callable, Iterator, Sequence
from datetime import date
from typing import Any

import dagster as dg
import polars as pl

from cryptoml_assets.cadence import daily_table, top_up
from cryptoml_assets.onchain.blocks import KEY, MEANINGS, SCHEMA
from cryptoml_assets.onchain.events import tell_reorganisation, untold_days
from cryptoml_assets.onchain.ingest import ChainReport, ingest_blocks
from cryptoml_assets.onchain.reorg import Reorganisation, around
from cryptoml_assets.onchain.report import (
    day_figures,
    gas_plot,
    gas_series,
    reorg_table,
)
from cryptoml_assets.onchain.stored import TABLE
from cryptoml_assets.partitions import partition_days
from cryptoml_assets.plots import figure_metadata
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.resources.lake import Lake, Stored
from cryptoml_assets.settings import settings
from cryptoml_assets.tables import described_columns
from cryptoml_assets.versions import versioned
from cryptoml_serving.contract.settings import World


@daily_table(
    top_up,
    group="onchain",
    kinds={"ethereum", "polars"},
    owner="team:market-data",
    code_version="2",
    metadata=described_columns(SCHEMA, MEANINGS, KEY),
)
def onchain_blocks(
    context: dg.AssetExecutionContext, lake: dg.ResourceParam[LakeIOManager]
) -> Iterator[dg.MaterializeResult[Stored] | dg.AssetMaterialization]:
    """Blocks of the Ethereum chain, summed up over their transactions.

    One row per block, in the partition of the UTC day of its timestamp; `finality` is the strongest
    tag the block was seen with. Blocks that are stored and still of the node's chain are not read
    again. A reorganisation replaces the rows it concerns, those of days outside of the run as well,
    and is told in an observation of each day it changed. With `CRYPTOML_BLOCK_DAYS` only the newest
    days of a run are brought up to date.
    """
    days = partition_days(context)
    wanted = days[-(settings().block_days or len(days)) :]

    def tell(reorg: Reorganisation) -> None:
        # At once, for the run may still fail, and the next one finds nothing to replace.
        tell_reorganisation(context, lake.lake, reorg, days)

    report = _ingest(context, lake.lake, wanted, tell)
    figures = day_figures(lake.lake.scan(TABLE, days, report.stored.version))
    by_day = {row.pop("date"): row for row in figures.to_dicts()}
    before, *_, after = around(days)
    changed = {*report.stored.days_changed, *untold_days(context, lake.lake, (before, after))}
    yield from versioned(
        Stored(report.stored.version, int(figures["blocks"].sum()), report.stored.days_changed),
        lake.lake,
        context.asset_key,
        days,
        metadata=_metadata(report, figures, wanted, lake.lake),
        by_day={**{day: {} for day in changed - set(days)}, **by_day},
    )


def _ingest(
    context: dg.AssetExecutionContext,
    lake: Lake,
    days: Sequence[date],
    tell: Callable[[Reorganisation], None],
) -> ChainReport:
    from cryptoml_assets.onchain.node import open_node  # noqa: PLC0415  (web3 takes seconds to load)

    configured = settings()
    live = configured.world is World.LIVE
    work = f"{TABLE} {days[0]}" if len(days) == 1 else f"{TABLE} {days[0]}..{days[-1]}"
    with open_node(
        configured.chain_address,
        work=work,
        # No recorded chain is long enough for replay, so what is not live is simulated.
        source=(World.LIVE if live else World.SIMULATED).value,
        timeout=configured.request_timeout,
        retry_delays=configured.retry_delays,
    ) as node:
        return ingest_blocks(
            node,
            lake,
            days,
            chain_id=configured.chain_id,
            receipts=configured.block_receipts,
            progress=lambda done, total: context.log.debug(
                "%s: %d of %d blocks", work, done, total
            ),
            on_reorg=tell,
        )


def _metadata(
    report: ChainReport, figures: pl.DataFrame, wanted: Sequence[date], lake: Lake
) -> dict[str, Any]:
    """What a run over blocks tells; ``figures`` are those of its days."""
    metadata: dict[str, Any] = {
        "days_read": f"{wanted[0]} .. {wanted[-1]}",
        "blocks_read": report.blocks_read,
        "blocks_kept": report.blocks_kept,
        "days_changed": ", ".join(day.isoformat() for day in report.stored.days_changed) or "none",
        "reorganisations": dg.MetadataValue.md(reorg_table(report.reorgs)),
        "finality": {tag: int(figures[tag].sum()) for tag in ("finalized", "safe", "latest")},
    }
    if figures.height:
        days = figures["date"].to_list()
        series = gas_series(lake.scan(TABLE, days, report.stored.version), len(days))
        metadata["plot"] = figure_metadata(gas_plot(series))
    return metadata
