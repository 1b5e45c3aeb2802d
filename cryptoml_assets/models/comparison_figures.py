"""Plots of all families side by side, each in its own colour everywhere; benchmarks are dashed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cryptoml_assets.models.calibration import COVERAGE
from cryptoml_assets.models.coverage import ALL, REGIMES, UNKNOWN, coverage_table
from cryptoml_assets.models.evaluation import CLAIM_LOSS
from cryptoml_assets.models.figures import LEVELS, quantile_curve, reliability_curve
from cryptoml_assets.plots import new_figure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    import polars as pl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from cryptoml_assets.models.comparison import Contender
    from cryptoml_assets.models.evaluation import Claim
    from cryptoml_assets.models.strategy import Costs, Track

# Okabe and Ito's colours, which colour-blind readers can tell apart.
_COLOURS = {
    "linear": "#0072B2",
    "mlp": "#D55E00",
    "tcn": "#009E73",
    "state_space": "#CC79A7",
    "lightgbm": "#7A7A7A",
    "xgboost": "#B8860B",
}
_SPARE = ("#56B4E9", "#8C564B", "#E69F00", "#9467BD", "#17BECF", "#000000")
_GREY = "#999999"
#: Most symbols a plot has room for.
_SYMBOLS = 12
#: Most bars that are told their height.
_LABELLED_BARS = 30


def learning_curves(contenders: Sequence[Contender]) -> Figure:
    """Loss of each network by epoch in the newest fold: mean over members, band from best to worst.

    Grey lines are the mean validation losses of the earlier folds.
    """
    learnt = [each for each in contenders if each.history]
    figure = new_figure(1.2 + 3.2 * max(len(learnt), 2), 3.6)
    panels = figure.subplots(1, max(len(learnt), 1), squeeze=False, sharey=True)[0]
    colours = _palette(contenders)
    for axes, each in zip(panels, learnt, strict=False):
        _draw_learning(axes, each, colours[each.name])
        axes.set(title=each.name, xlabel="epoch")
    panels[0].set_ylabel("negative log likelihood, nats per row")
    if not learnt:
        panels[0].set_title("no family here learns in epochs")
    figure.suptitle("Learning curves (solid: validation, dotted: training, grey: earlier folds)")
    return figure


def calibration_comparison(contenders: Sequence[Contender]) -> Figure:
    """Stated against observed over all folds: the chance of an up move, and the quantiles."""
    figure = new_figure(10, 4.8)
    reliability, quantiles = figure.subplots(1, 2)
    colours = _palette(contenders)
    for each in contenders:
        labels = np.concatenate([part.rows.labels for part in each.parts])
        answers = {
            name: np.concatenate([part.answers[name] for part in each.parts])
            for name in each.parts[0].answers
        }
        style: dict[str, Any] = _style(each, colours) | {"marker": "o", "markersize": 3}
        stated, observed = reliability_curve(labels, answers)
        reliability.plot(100 * stated, 100 * observed, **style)
        missed = quantile_curve(labels, answers) - LEVELS
        quantiles.plot(100 * LEVELS, 100 * missed, **style)
    low, high = reliability.get_xlim()
    reliability.plot([low, high], [low, high], color="k", linewidth=0.8)
    quantiles.axhline(0.0, color="k", linewidth=0.8)
    reliability.set(
        title="Chance of an up move, tenths of the rows", xlabel="stated, %", ylabel="observed, %"
    )
    quantiles.set(
        title="Quantiles of the return",
        xlabel="stated level, %",
        ylabel="share of labels below less stated level, points",
    )
    _legend(figure, reliability, len(contenders))
    return figure


def equity_plot(
    contenders: Sequence[Contender], tracks: Mapping[str, Track], costs: Costs
) -> Figure:
    """Capital of the threshold strategy after costs by day, and what it is below its height."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter  # noqa: PLC0415

    figure = new_figure(9, 5.5)
    equity, drawdown = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    colours, ends = _palette(contenders), []
    for each in contenders:
        track, style = tracks[each.name], _style(each, colours)
        # A day's figure is of its end: the line begins with the capital at the first day's start.
        ends_of_days = np.concatenate((track.days[:1], track.days + np.timedelta64(1, "D")))
        equity.plot(ends_of_days, np.concatenate(([1.0], track.equity)), **style)
        drawdown.plot(ends_of_days, -100 * np.concatenate(([0.0], track.drawdown)), **style)
        figures = track.figures()
        told = f"{each.name} {track.equity[-1]:.3f}, Sharpe {figures['sharpe_net']:.1f}"
        ends.append((float(track.equity[-1]), told, colours[each.name]))
    equity.axhline(1.0, color="k", linewidth=0.8)
    for part in contenders[0].parts[1:]:
        for axes in (equity, drawdown):
            axes.axvline(part.rows.events[0], color=_GREY, linewidth=0.8, linestyle=":")
    _label_ends(equity, ends)
    equity.set(
        title=f"Threshold strategy after {costs.fee_bps:g} bps of fee and {costs.slippage_bps:g} "
        "bps of slippage each way (dotted: new fold)",
        ylabel="capital, starts at 1",
    )
    drawdown.set(ylabel="drawdown, %")
    locator = AutoDateLocator(maxticks=8)  # type: ignore[no-untyped-call]
    drawdown.xaxis.set_major_locator(locator)
    drawdown.xaxis.set_major_formatter(
        ConciseDateFormatter(locator)  # type: ignore[no-untyped-call]
    )
    return figure


def skill_by_fold(contenders: Sequence[Contender], claim: Claim) -> Figure:
    """Share of the claim's base loss that each family saves in each fold."""
    name = f"{CLAIM_LOSS[claim]}_skill"
    folds = len(contenders[0].folds)
    figure = new_figure(4.0 + max(folds, 4), 4.2)
    axes = figure.subplots()
    colours, width = _palette(contenders), 0.8 / max(len(contenders), 3)
    for place, each in enumerate(contenders):
        heights = [100 * figures[name] for figures in each.folds]
        left = np.arange(folds) + (place - (len(contenders) - 1) / 2) * width
        hatch = None if each.served else "///"
        bars = axes.bar(
            left, heights, width, color=colours[each.name], label=each.name, hatch=hatch
        )
        if folds * len(contenders) <= _LABELLED_BARS:
            axes.bar_label(bars, fmt="%.2f", fontsize=6, padding=1)
    starts = [part.rows.events[0].astype("datetime64[D]") for part in contenders[0].parts]
    axes.set_xticks(
        np.arange(folds), [f"fold {n}\nfrom {day}" for n, day in enumerate(starts, 1)], fontsize=8
    )
    axes.axhline(0.0, color="k", linewidth=0.8)
    axes.set(
        title=f"{name.replace('_', ' ')} by fold, the newest at the right",
        xlim=(-0.6, max(folds, 2) - 0.4),
        ylabel="base loss saved, %",
    )
    axes.margins(y=0.1)
    _legend(figure, axes, len(contenders))
    return figure


def coverage_comparison(contenders: Sequence[Contender]) -> Figure:
    """Share of labels inside the 90 % interval, of each symbol in each regime, over all folds."""
    tables = {each.name: coverage_table(each.parts) for each in contenders}
    first = next(iter(tables.values()))
    present = [name for name in (*REGIMES, UNKNOWN) if name in set(first["regime"])]
    shown = [*present, ALL] if len(present) > 1 else [ALL]
    symbols = _furthest(tables)
    figure = new_figure(1.8 + 2.2 * len(shown), 2.2 + 0.34 * len(symbols))
    panels = figure.subplots(1, len(shown), squeeze=False, sharey=True, sharex=True)[0]
    for axes, regime in zip(panels, shown, strict=True):
        for place, each in enumerate(contenders):
            own = dict(tables[each.name].filter(regime=regime).select("symbol", "coverage").rows())
            offset = (place - (len(contenders) - 1) / 2) * 0.6 / len(contenders)
            axes.plot(
                [100 * own.get(symbol, np.nan) for symbol in symbols],
                np.arange(len(symbols)) + offset,
                "o" if each.served else "x",
                color=_palette(contenders)[each.name],
                markersize=4,
                label=each.name,
            )
        axes.axvline(100 * COVERAGE, color="k", linewidth=0.8)
        rows = first.filter(symbol=ALL, regime=regime)["rows"].sum()
        axes.set(title=f"{regime}\n{rows:,} rows", xlabel="coverage, %")
        axes.grid(axis="y", linewidth=0.3)
    panels[0].set_yticks(np.arange(len(symbols)), symbols, fontsize=8)
    panels[0].invert_yaxis()
    figure.suptitle("Share of labels inside the 90 % interval")
    _legend(figure, panels[0], len(contenders))
    return figure


def _furthest(tables: Mapping[str, pl.DataFrame]) -> list[str]:
    """Symbols to show, then all of them: those whose coverage is furthest off where many."""
    worst: dict[str, float] = {}
    for table in tables.values():
        for symbol, coverage in table.filter(regime=ALL).select("symbol", "coverage").iter_rows():
            worst[symbol] = max(worst.get(symbol, 0.0), abs(coverage - COVERAGE))
    named = sorted((symbol for symbol in worst if symbol != ALL), key=lambda s: -worst[s])
    return [*sorted(named[:_SYMBOLS]), ALL]


def _draw_learning(axes: Axes, each: Contender, colour: str) -> None:
    newest = max(epoch.fold for epoch in each.history)
    for fold in range(newest):
        losses = _losses(each, fold, "validation_loss")
        axes.plot(*_mean(losses), color=_GREY, linewidth=0.8)
    for part, line in (("training_loss", ":"), ("validation_loss", "-")):
        losses = _losses(each, newest, part)
        numbers, mean = _mean(losses)
        axes.plot(numbers, mean, color=colour, linestyle=line, linewidth=1.6)
        if line == "-":
            lowest, highest = np.nanmin(losses, axis=0), np.nanmax(losses, axis=0)
            kept = slice(0, len(numbers))
            axes.fill_between(numbers, lowest[kept], highest[kept], color=colour, alpha=0.2)


def _losses(each: Contender, fold: int, part: str) -> NDArray[np.float64]:
    """Losses by member and epoch of one fold; NaN once a member has stopped."""
    own = [epoch for epoch in each.history if epoch.fold == fold]
    members = sorted({epoch.member for epoch in own})
    losses = np.full((len(members), max((e.epoch for e in own), default=0)), np.nan)
    for epoch in own:
        losses[members.index(epoch.member), epoch.epoch - 1] = getattr(epoch, part)
    return losses


def _mean(losses: NDArray[np.float64]) -> tuple[NDArray[np.int_], NDArray[np.float64]]:
    """Epochs in which at least half of the members still learn, and their mean loss."""
    going = np.isfinite(losses).mean(axis=0) >= 0.5  # noqa: PLR2004 - half
    numbers = np.flatnonzero(going) + 1
    return numbers, np.nanmean(losses[:, going], axis=0)


def _palette(contenders: Sequence[Contender]) -> dict[str, str]:
    """The colour of each family; a known one has its own whoever else is there."""
    others = sorted(each.name for each in contenders if each.name not in _COLOURS)
    return _COLOURS | {name: _SPARE[n % len(_SPARE)] for n, name in enumerate(others)}


def _style(each: Contender, colours: Mapping[str, str]) -> dict[str, Any]:
    return {
        "color": colours[each.name],
        "linestyle": "-" if each.served else "--",
        "linewidth": 1.4,
        "label": each.name,
    }


def _legend(figure: Figure, axes: Axes, columns: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(columns, 6), frameon=False)


def _label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Write text at the right of the axes beside where lines end, apart enough to be read.

    Args:
        axes: whose limits are final but for these labels.
        ends: height in data, text and colour of each.
    """
    low, high = axes.get_ylim()
    gap, lowest = 0.075, -np.inf
    for value, text, colour in sorted(ends):
        height = max((value - low) / (high - low), lowest + gap)
        lowest = height
        axes.text(
            1.01, height, text, color=colour, transform=axes.transAxes, va="center", fontsize=8
        )
