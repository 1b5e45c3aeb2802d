"""What a run's bars look like: figures for a person, not for the graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from cryptoml_assets.plots import new_figure
from cryptoml_assets.prices.ledger import CAUSES, share

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PLOTTED_POINTS = 1500
#: Columns of the coverage map at most; more days share one.
_MOST_COLUMNS = 92
_NOT_FETCHED = "not_fetched"
#: How each reason for absent bars is marked in its cell, the gravest last and on top.
_MARKS = {
    "listed_later": ("<", "listed later"),
    "delisted": (">", "delisted"),
    "venue_outage": ("x", "venue outage"),
    "nothing_traded": ("_", "nothing traded"),
    _NOT_FETCHED: ("o", "not fetched"),
}


def plot_closes(bars: pl.DataFrame) -> Figure:
    """Close of every symbol over time, each relative to its first one of the run.

    Args:
        bars: columns ``symbol``, ``open_time``, ``close_time`` and ``close``.
    """
    figure = new_figure()
    axes = figure.subplots()
    for (symbol,), rows in bars.sort("open_time").group_by("symbol", maintain_order=True):
        shown = rows.gather_every(max(rows.height // _PLOTTED_POINTS, 1))
        closes = shown["close"] / rows["close"][0]
        times = shown["close_time"].to_numpy()
        axes.plot(times, closes.to_numpy(), linewidth=0.9, label=str(symbol))
    if not bars.is_empty():
        axes.legend(loc="upper left", fontsize="small", ncols=1 + bars["symbol"].n_unique() // 8)
    axes.set_title("Close, relative to the first of the run")
    axes.set_ylabel("ratio")
    figure.autofmt_xdate()
    return figure


def plot_coverage(summary: pl.DataFrame) -> Figure:
    """How much of each symbol's days was received, and why the rest was not.

    Colour is the share received of the bars that could exist; grey where none could. A mark names
    a reason for which bars of the cell are absent, however few. Days of long runs share cells.

    Args:
        summary: one row per day and symbol, as ``day_summary`` gives it.
    """
    cells, days_each = _cells(summary)
    symbols = summary["symbol"].unique(maintain_order=True).to_list()
    days = cells["date"].unique().sort().to_list()
    figure = new_figure(height=1.9 + 0.24 * len(symbols))
    axes = figure.subplots()
    axes.set_facecolor("lightgrey")
    rows = {symbol: row for row, symbol in enumerate(symbols)}
    columns = {day: column for column, day in enumerate(days)}
    cells = cells.with_columns(
        pl.col("symbol").replace_strict(rows, return_dtype=pl.Int64).alias("row"),
        pl.col("date").replace_strict(columns, return_dtype=pl.Int64).alias("column"),
    ).sort("row", "column")
    shares = cells["share"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    if cells.height:
        grid = shares.reshape(len(symbols), len(days))
        shading = axes.imshow(grid, aspect="auto", vmin=0, vmax=1, cmap="YlGnBu")
        figure.colorbar(shading, ax=axes, label="share received", pad=0.01)
    _mark_reasons(axes, cells)
    _name_axes(axes, symbols, days)
    each = "" if days_each == 1 else f", {days_each} days a cell"
    axes.set_title(f"Bars received{each}")
    return figure


def _cells(summary: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """``summary`` with so many days to a row that the columns can be told apart; how many."""
    first, count = summary["date"].min(), summary["date"].n_unique()
    days_each = max(-(-count // _MOST_COLUMNS), 1)
    number = (pl.col("date") - pl.lit(first, pl.Date)).dt.total_days() // days_each
    counted = ("expected", "received", *CAUSES, _NOT_FETCHED)
    cells = summary.group_by("symbol", number.alias("cell")).agg(
        pl.col("date").min(), *(pl.col(name).sum() for name in counted)
    )
    dates = pl.lit(first, pl.Date) + pl.duration(days=pl.col("cell") * days_each)
    return cells.with_columns(dates.alias("date"), share().alias("share")), days_each


def _mark_reasons(axes: Any, cells: pl.DataFrame) -> None:
    size = max(min(2600 / max(cells["column"].n_unique(), 1), 36.0), 5.0)
    for name, (mark, meaning) in _MARKS.items():
        marked = cells.filter(pl.col(name) > 0)
        if marked.height:
            axes.scatter(
                marked["column"].to_numpy(),
                marked["row"].to_numpy(),
                s=size,
                marker=mark,
                color="crimson" if name == _NOT_FETCHED else "orange",
                linewidths=1.0,
                label=f"{meaning}: {marked[name].sum():,} bars",
            )
    if axes.collections:
        axes.figure.legend(loc="outside lower center", ncols=3, fontsize="small", frameon=False)


def _name_axes(axes: Any, symbols: Sequence[str], days: Sequence[object]) -> None:
    step = max(-(-len(days) // 5), 1)
    shown = range(0, len(days), step)
    axes.set_xticks(list(shown), [str(days[column]) for column in shown], fontsize="small")
    axes.set_yticks(range(len(symbols)), symbols, fontsize="small")
