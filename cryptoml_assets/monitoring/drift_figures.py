"""Pictures of a drift report."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from cryptoml_assets.plots import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

#: Pairs whose distributions are drawn.
_SHOWN = 6
_COLUMNS = 3
_BINS = 40


def heat_map(report: pl.DataFrame, threshold: float) -> Figure:
    """The index of every pair, framed where it counts as drift."""
    table = report.pivot(on="symbol", index="feature", values="psi")
    drifted = report.pivot(on="symbol", index="feature", values="drifted")
    symbols = table.columns[1:]
    figure = new_figure(1.6 + 1.3 * max(len(symbols), 3), 1.2 + 0.32 * max(table.height, 3))
    axes = figure.subplots()
    axes.set_title(
        f"Population stability index (framed: drifted, above {threshold:g} and beyond "
        "chance; blank: not judged)",
        fontsize=9,
    )
    if table.is_empty():
        return figure
    image = axes.imshow(
        table.select(symbols).cast(pl.Float64).to_numpy(),
        vmin=0.0,
        vmax=2 * threshold,
        cmap="RdYlGn_r",
        aspect="auto",
    )
    rows, columns = np.nonzero(drifted.select(symbols).fill_null(value=False).to_numpy())
    axes.scatter(columns, rows, s=90, marker="s", facecolors="none", edgecolors="black")
    axes.set_xticks(range(len(symbols)), symbols)
    axes.set_yticks(range(table.height), table["feature"].to_list())
    figure.colorbar(image, ax=axes)
    return figure


def most_drifted(report: pl.DataFrame) -> pl.DataFrame:
    """The judged pairs that stand out most, the drifted ones first; at most six."""
    judged = report.filter(pl.col("psi").is_not_null())
    return judged.sort("drifted", "statistic", descending=True).head(_SHOWN)


def distributions(
    reference: pl.DataFrame, current: pl.DataFrame, report: pl.DataFrame
) -> Figure | None:
    """Past and recent values of the pairs that stand out most; none where nothing was judged.

    Args:
        reference: rows of the past: ``symbol`` and the columns.
        current: rows of the newest window.
        report: of these.
    """
    shown = most_drifted(report)
    if shown.is_empty():
        return None
    rows = -(-shown.height // _COLUMNS)
    figure = new_figure(3.4 * _COLUMNS, 2.5 * rows)
    panels = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for axes in panels[shown.height :]:
        axes.set_axis_off()
    for axes, row in zip(panels, shown.iter_rows(named=True), strict=False):
        then, now = (_values(frame, row) for frame in (reference, current))
        edges = np.histogram_bin_edges(_usual(np.concatenate([_usual(then), _usual(now)])), _BINS)
        for values, label, colour in ((then, "past", "tab:blue"), (now, "now", "tab:red")):
            weights = np.full(len(values), 1 / len(values))
            axes.hist(
                values, edges, weights=weights, label=label, color=colour, histtype="stepfilled",
                alpha=0.45,
            )  # fmt: skip
        verdict = "drifted" if row["drifted"] else "not drifted"
        axes.set_title(
            f"{row['feature']} {row['symbol']}\n{verdict}: index {row['psi']:.2f}, "
            f"p {row['adjusted_p_value']:.3f}",
            fontsize=8,
        )
        axes.tick_params(labelsize=7)
    panels[0].legend(fontsize=7)
    figure.supylabel("share of rows", fontsize=8)
    return figure


def _values(frame: pl.DataFrame, row: dict[str, object]) -> NDArray[np.float64]:
    own = frame.filter(pl.col("symbol") == row["symbol"])[str(row["feature"])]
    values: NDArray[np.float64] = own.cast(pl.Float64).drop_nulls().to_numpy()
    return values


def _usual(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Without the farthest hundredth on either side, which would make the rest a single bar."""
    low, high = np.quantile(values, (0.01, 0.99))
    usual: NDArray[np.float64] = values[(values >= low) & (values <= high)]
    return usual
