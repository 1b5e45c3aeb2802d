"""Plots of how versions do live, beside what was promised of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from cryptoml_assets.plots import new_figure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from cryptoml_assets.monitoring.performance import Promise

_ROLLING = "24h"
#: Versions shown: those with the newest outcomes.
_SHOWN = 6


def live_against_promise(outcomes: pl.DataFrame, promises: Mapping[str, Promise]) -> Figure:
    """Rolling accuracy and coverage with what was promised (dashed), and the cumulative result.

    Args:
        outcomes: with a known return.
        promises: of versions, where known.
    """
    figure = new_figure(9, 8)
    accuracy, coverage, result = figure.subplots(3, 1, sharex=True)
    newest = outcomes.group_by("model_version").agg(pl.col("outcome_at").max())
    shown = newest.sort("outcome_at", "model_version")["model_version"].to_list()[-_SHOWN:]
    for place, version in enumerate(shown):
        rows, colour = outcomes.filter(model_version=version), f"C{place}"
        promise = promises.get(version)
        _draw_rolling(accuracy, rows, "correct", colour)
        _draw_rolling(coverage, rows, "covered", colour)
        if promise is not None:
            for axes, promised in ((accuracy, promise.accuracy), (coverage, promise.coverage)):
                axes.axhline(100 * promised, color=colour, linestyle="--", linewidth=0.8)
        summed = _by_instant(rows, pl.col("pnl_usd").sum()).with_columns(pl.col("value").cum_sum())
        role = rows.sort("feature_timestamp")["role"][-1]
        label = f"version {version}, {role}"
        result.plot(summed["outcome_at"], summed["value"], color=colour, label=label)
    accuracy.set(title=f"Accuracy over {_ROLLING} (dashed: promised)", ylabel="%")
    coverage.set(title=f"Coverage of the 90 % interval over {_ROLLING}", ylabel="%")
    result.set(title="Result net of costs, summed up", ylabel="USD")
    result.axhline(0.0, color="k", linewidth=0.8)
    if shown:
        result.legend(fontsize="small")
        figure.autofmt_xdate()
    return figure


def _draw_rolling(axes: Axes, rows: pl.DataFrame, column: str, colour: str) -> None:
    by_instant = _by_instant(rows, pl.col(column).cast(pl.Float64).mean())
    rolling = by_instant.select(
        "outcome_at", pl.col("value").rolling_mean_by("outcome_at", window_size=_ROLLING)
    )
    axes.plot(rolling["outcome_at"], 100 * rolling["value"], color=colour)


def _by_instant(rows: pl.DataFrame, value: pl.Expr) -> pl.DataFrame:
    return rows.group_by("outcome_at").agg(value.alias("value")).sort("outcome_at")
