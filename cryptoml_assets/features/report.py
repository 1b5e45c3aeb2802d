"""What a person sees of a feature run: tables and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from cryptoml_assets.plots import new_figure
from cryptoml_assets.tables import markdown_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def null_shares(missing: Mapping[str, int], rows: int) -> str:
    """A Markdown table of the share of ``rows`` in which each feature is ``missing``."""
    return markdown_table(
        ("feature", "share of nulls"),
        [(name, f"{count / max(rows, 1):.2%}") for name, count in missing.items()],
    )


def hourly_volatility(frame: pl.DataFrame) -> pl.DataFrame:
    """Mean ``volatility`` of each symbol and hour of some rows of ``price_features``."""
    hour = pl.col("event_timestamp").dt.truncate("1h")
    return frame.group_by("symbol", hour, maintain_order=True).agg(pl.col("volatility").mean())


def volatility_plot(hourly: pl.DataFrame) -> Figure:
    """The lines of :func:`hourly_volatility`, a log return per bar, one for each symbol."""
    figure = new_figure()
    axes = figure.subplots()
    ordered = hourly.sort("symbol", "event_timestamp")
    for (symbol,), rows in ordered.group_by("symbol", maintain_order=True):
        hours, means = rows["event_timestamp"].to_list(), rows["volatility"].to_list()
        axes.plot(hours, means, label=str(symbol), lw=1)
    axes.set_title("Volatility: standard deviation of 20 one-bar log returns")
    axes.set_ylabel("log return per bar")
    if hourly.height:
        axes.legend(loc="upper left", fontsize="small")
    axes.tick_params(axis="x", rotation=30)
    return figure


def label_plot(frame: pl.DataFrame) -> Figure:
    """Distribution of the labels of each symbol; ``frame`` holds rows of ``training_set``."""
    figure = new_figure()
    axes = figure.subplots()
    lowest, highest = np.quantile(frame["label"].to_numpy(), (0.001, 0.999))
    for (symbol,), rows in frame.group_by("symbol", maintain_order=True):
        axes.hist(
            rows["label"].to_numpy(),
            bins=80,
            range=(lowest, highest),
            histtype="step",
            density=True,
            label=str(symbol),
        )
    axes.set_title("Labels: log return over the horizon (0.1 % cut off at each end)")
    axes.set_xlabel("log return")
    axes.legend(fontsize="small")
    return figure


def coverage_plot(frame: pl.DataFrame, names: Sequence[str]) -> Figure:
    """Share of values that are there, of each of ``names`` and each day of ``training_set``."""
    daily = (
        frame.group_by(pl.col("event_timestamp").dt.date().alias("day"))
        .agg(pl.col(name).is_not_null().mean() for name in names)
        .sort("day")
    )
    days = [day.isoformat() for day in daily["day"]]
    figure = new_figure(8.0, 1.2 + 0.22 * max(len(names), 3))
    axes = figure.subplots()
    image = axes.imshow(
        daily.select(names).to_numpy().T, vmin=0.0, vmax=1.0, cmap="RdYlGn", aspect="auto"
    )
    shown = range(0, len(days), max(1, len(days) // 8))
    axes.set_xticks(shown, [days[place] for place in shown], rotation=30)
    axes.set_yticks(range(len(names)), names, fontsize="small")
    axes.set_title("Share of rows with a value")
    figure.colorbar(image, ax=axes)
    return figure
