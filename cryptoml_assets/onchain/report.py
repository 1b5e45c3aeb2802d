"""Pictures of blocks and network metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from cryptoml_assets.plots import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WEI_PER_GWEI = 1e9


def gas_plot(blocks: pl.DataFrame) -> Figure:
    """Share of the gas limit used and base fee in gwei, hourly means over time."""
    hourly = (
        blocks.sort("timestamp")
        .group_by_dynamic("timestamp", every="1h")
        .agg(
            ratio=pl.col("gas_used").sum() / pl.col("gas_limit").sum(),
            fee=pl.col("base_fee_per_gas").mean() / _WEI_PER_GWEI,
        )
    )
    hours = hourly["timestamp"].to_list()
    figure = new_figure()
    upper, lower = figure.subplots(2, 1, sharex=True)
    upper.plot(hours, hourly["ratio"].to_list(), linewidth=1)
    upper.axhline(0.5, color="grey", linewidth=0.8, linestyle="--")
    upper.set(ylabel="gas used / limit", ylim=(0, 1), title="Blocks, hourly means")
    lower.plot(hours, hourly["fee"].to_list(), linewidth=1, color="tab:orange")
    lower.set(ylabel="base fee (gwei)")
    lower.tick_params(axis="x", rotation=30)
    return figure


def activity_plot(metrics: pl.DataFrame) -> Figure:
    """Active addresses per day, one line per asset, on a logarithmic scale."""
    figure = new_figure()
    axes = figure.subplots()
    for (asset,), rows in metrics.sort("day").group_by("asset", maintain_order=True):
        values = [value or float("nan") for value in rows["active_addresses"].to_list()]
        axes.plot(rows["day"].to_list(), values, marker=".", label=str(asset))
    axes.set(ylabel="active addresses", yscale="log", title="Network activity")
    axes.tick_params(axis="x", rotation=30)
    axes.legend()
    return figure
