"""Pictures of network metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptoml_assets.plots import new_figure

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure


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
