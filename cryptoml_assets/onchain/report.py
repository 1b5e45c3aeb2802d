"""What runs over blocks report: figures of each day, gas over time, reorganisations."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import polars as pl

from cryptoml_assets.onchain.reorg import Reorganisation
from cryptoml_assets.plots import new_figure
from cryptoml_assets.tables import markdown_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WEI_PER_GWEI = 1e9
_MOST_POINTS = 1_000
_TAGS = ("finalized", "safe", "latest")


def day_figures(blocks: pl.LazyFrame) -> pl.DataFrame:
    """A row for each day: its blocks, transactions, first and last block, and blocks per finality.

    Columns: date, blocks, transactions, first_block, last_block, finalized, safe, latest.
    """
    return (
        blocks.group_by("date")
        .agg(
            pl.len().cast(pl.Int64).alias("blocks"),
            pl.col("transaction_count").sum().cast(pl.Int64).alias("transactions"),
            pl.col("number").min().alias("first_block"),
            pl.col("number").max().alias("last_block"),
            *((pl.col("finality") == tag).sum().cast(pl.Int64).alias(tag) for tag in _TAGS),
        )
        .sort("date")
        .collect()
    )


def gas_series(blocks: pl.LazyFrame, days: int) -> pl.DataFrame:
    """Gas over ``days`` days, in hours or in as many more as keep the points bounded.

    Columns: timestamp (start of the hours), ratio (gas used over gas limit), fee (mean base fee in
    gwei).
    """
    hours = 1 + 24 * days // _MOST_POINTS
    return (
        blocks.group_by(pl.col("timestamp").dt.truncate(timedelta(hours=hours)))
        .agg(
            ratio=pl.col("gas_used").sum() / pl.col("gas_limit").sum(),
            fee=pl.col("base_fee_per_gas").mean() / _WEI_PER_GWEI,
        )
        .sort("timestamp")
        .collect()
    )


def gas_plot(series: pl.DataFrame) -> Figure:
    """Share of the gas limit used and base fee in gwei over time, from :func:`gas_series`."""
    times = series["timestamp"].to_list()
    figure = new_figure()
    upper, lower = figure.subplots(2, 1, sharex=True)
    upper.plot(times, series["ratio"].to_list(), linewidth=1)
    upper.axhline(0.5, color="grey", linewidth=0.8, linestyle="--")
    upper.set(ylabel="gas used / limit", ylim=(0, 1), title="Blocks, means over time")
    lower.plot(times, series["fee"].to_list(), linewidth=1, color="tab:orange")
    lower.set(ylabel="base fee (gwei)")
    lower.tick_params(axis="x", rotation=30)
    return figure


def reorg_metadata(reorg: Reorganisation) -> dict[str, Any]:
    """One reorganisation, as the event of a day that it changed tells it."""
    return {
        "first_replaced": reorg.first_replaced,
        "depth": reorg.depth,
        "blocks_replaced": reorg.blocks_replaced,
        "old_hash": reorg.old_hash,
        "new_hash": reorg.new_hash or "none: the new branch does not reach this block",
        "days": ", ".join(day.isoformat() for day in reorg.days),
    }


def reorg_table(reorgs: Sequence[Reorganisation]) -> str:
    """The reorganisations of a run as a Markdown table; ``none`` without one."""
    rows = [reorg_metadata(reorg) for reorg in reorgs]
    return markdown_table(list(rows[0]), [list(row.values()) for row in rows]) if rows else "none"
