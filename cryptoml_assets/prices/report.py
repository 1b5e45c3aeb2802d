"""What a run's bars look like: figures for a person, not for the graph."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import polars as pl

from cryptoml_assets.plots import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PLOTTED_POINTS = 1500


def rows_by_symbol(
    bars: pl.DataFrame, *, symbols: Sequence[str], span: timedelta, bar: timedelta
) -> pl.DataFrame:
    """One row per symbol: ``bars``, ``first``, ``last`` and ``completeness``.

    ``completeness`` is the share held of the bars that fit into ``span``, null where none does.
    """
    expected = max(span // bar, 0)
    held = bars.group_by("symbol").agg(
        pl.len().alias("bars"),
        pl.col("open_time").min().alias("first"),
        pl.col("open_time").max().alias("last"),
    )
    share = pl.col("bars") / expected if expected else pl.lit(None, pl.Float64)
    return (
        pl.DataFrame({"symbol": symbols}, schema={"symbol": pl.String})
        .join(held, on="symbol", how="left", maintain_order="left")
        .with_columns(pl.col("bars").fill_null(0))
        .with_columns(share.alias("completeness"))
    )


def plot_closes(bars: pl.DataFrame) -> Figure:
    """Close of every symbol over time, each relative to its first one of the run."""
    figure = new_figure()
    axes = figure.subplots()
    for (symbol,), rows in bars.sort("open_time").group_by("symbol", maintain_order=True):
        shown = rows.gather_every(max(rows.height // _PLOTTED_POINTS, 1))
        closes = shown["close"] / rows["close"][0]
        times = shown["close_time"].to_numpy()
        axes.plot(times, closes.to_numpy(), linewidth=0.9, label=str(symbol))
    if not bars.is_empty():
        axes.legend(loc="upper left", fontsize="small")
    axes.set_title("Close, relative to the first of the run")
    axes.set_ylabel("ratio")
    figure.autofmt_xdate()
    return figure
