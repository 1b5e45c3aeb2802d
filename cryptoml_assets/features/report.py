"""What a person sees of a feature run: tables and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from cryptoml_assets.plots import new_figure
from cryptoml_assets.tables import markdown_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def null_shares(frame: pl.DataFrame, names: Sequence[str]) -> str:
    """A Markdown table of the share of missing values in each column."""
    counts = frame.select(pl.col(name).null_count() for name in names).row(0)
    rows = max(frame.height, 1)
    return markdown_table(
        ("feature", "share of nulls"),
        [(name, f"{count / rows:.2%}") for name, count in zip(names, counts, strict=True)],
    )


def volatility_plot(frame: pl.DataFrame) -> Figure:
    """Hourly mean volatility of each symbol; ``frame`` holds rows of ``price_features``."""
    hourly = (
        frame.group_by("symbol", pl.col("event_timestamp").dt.truncate("1h").alias("hour"))
        .agg(pl.col("volatility").mean())
        .sort("symbol", "hour")
    )
    figure = new_figure()
    axes = figure.subplots()
    for (symbol,), rows in hourly.group_by("symbol", maintain_order=True):
        axes.plot(rows["hour"].to_list(), rows["volatility"].to_list(), label=str(symbol), lw=1)
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
