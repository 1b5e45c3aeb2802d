"""Plots of one candidate: how it learnt, whether its words hold, and when it was better."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cryptoml_assets.models import student
from cryptoml_assets.models.evaluation import predicted_scale
from cryptoml_assets.plots import new_figure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from cryptoml_assets.models.rows import Rows
    from cryptoml_assets.models.training import Epoch

_BINS = 10
#: Levels at which quantiles of the return are held against what happened.
LEVELS = np.linspace(0.05, 0.95, 19)


def learning_curve(history: Sequence[Epoch]) -> Figure:
    """Training and validation loss of each member by epoch, in the newest fold."""
    figure = new_figure(6, 3.5)
    axes = figure.subplots()
    newest = max((epoch.fold for epoch in history), default=0)
    own = [epoch for epoch in history if epoch.fold == newest]
    for member in sorted({epoch.member for epoch in own}):
        epochs = [epoch for epoch in own if epoch.member == member]
        numbers = [epoch.epoch for epoch in epochs]
        colour = f"C{member % 10}"
        axes.plot(numbers, [e.training_loss for e in epochs], colour, linestyle=":")
        axes.plot(numbers, [e.validation_loss for e in epochs], colour, label=f"member {member}")
    axes.set(
        title="Learning curve of the newest fold (dotted: training)",
        xlabel="epoch",
        ylabel="negative log likelihood, nats per row",
    )
    if own:
        axes.legend(fontsize="small")
    return figure


def calibration_plot(rows: Rows, answers: Mapping[str, NDArray[np.float32]]) -> Figure:
    """Stated against observed, out of sample: the chance of an up move, and the quantiles."""
    figure = new_figure(9, 4)
    reliability, quantiles = figure.subplots(1, 2)
    stated, observed = reliability_curve(rows.labels, answers)
    reliability.plot(stated, observed, "o-")
    low, high = reliability.get_xlim()
    reliability.plot([low, high], [low, high], "k--", linewidth=0.8)
    reliability.set(title="Chance of an up move", xlabel="stated", ylabel="observed")
    quantiles.plot(LEVELS, quantile_curve(rows.labels, answers), "o-")
    quantiles.plot([0, 1], [0, 1], "k--", linewidth=0.8)
    quantiles.set(title="Quantiles of the return", xlabel="stated", ylabel="observed")
    return figure


def reliability_curve(
    labels: NDArray[np.float64], answers: Mapping[str, NDArray[np.float32]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean stated chance and observed share of up moves, in up to ten bins of equally many rows."""
    probability, up = answers["probability_up"].astype(np.float64), labels > 0
    edges = np.quantile(probability, np.linspace(0, 1, _BINS + 1)[1:-1])
    bins = np.digitize(probability, edges)
    counts = np.bincount(bins, minlength=_BINS)
    used = counts > 0
    stated, observed = (
        np.bincount(bins, values, minlength=_BINS)[used] / counts[used]
        for values in (probability, up)
    )
    return stated, observed


def quantile_curve(
    labels: NDArray[np.float64], answers: Mapping[str, NDArray[np.float32]]
) -> NDArray[np.float64]:
    """Share of labels at or below the predicted quantile of each of ``LEVELS``."""
    ranks = student.cdf((labels - answers["expected_return"]) / predicted_scale(answers))
    return np.asarray([(ranks <= level).mean() for level in LEVELS])


def skill_by_day(events: NDArray[np.datetime64], gains: NDArray[np.float64], unit: str) -> Figure:
    """Mean gain over the base rate on each out-of-sample day."""
    days, position = np.unique(events.astype("datetime64[D]"), return_inverse=True)
    means = np.bincount(position, gains) / np.bincount(position)
    figure = new_figure(8, 3.5)
    axes = figure.subplots()
    axes.bar(days, means, color=np.where(means > 0, "C2", "C3"))
    axes.axhline(0.0, color="k", linewidth=0.8)
    axes.set(title="Gain over the base rate by day, out of sample", ylabel=unit)
    figure.autofmt_xdate()
    return figure
