from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.colors import to_rgba

from cryptoml_assets.models import comparison_figures as plots
from cryptoml_assets.models import student
from cryptoml_assets.models.comparison import Contender, contender, tracks
from cryptoml_assets.models.evaluation import Answered, baseline
from cryptoml_assets.models.figures import (
    LEVELS,
    calibration_plot,
    learning_curve,
    quantile_curve,
    reliability_curve,
)
from cryptoml_assets.models.rows import Rows
from cryptoml_assets.models.strategy import Costs

START = np.datetime64("2024-01-01T00:00", "us")
HOUR = np.timedelta64(1, "h")
COSTS = Costs(fee_bps=1.0, slippage_bps=0.0)


def part(number: int, seed: int, count: int = 400) -> Answered:
    rng = np.random.default_rng(seed)
    events = START + (number * count + np.arange(count)) * HOUR
    labels, location = 0.01 * rng.standard_t(4, count), 0.003 * rng.normal(size=count)
    half = np.full(count, 0.01 * student.QUANTILE_95)
    answers = {
        "expected_return": location,
        "lower": location - half,
        "upper": location + half,
        "probability_up": student.cdf(location / 0.01),
    }
    rows = Rows(np.array(["A", "B"] * (count // 2)), events, events + HOUR,
                np.zeros((count, 1), np.float32), labels)  # fmt: skip
    told = {name: np.float32(values) for name, values in answers.items()}
    regime = rng.integers(0, 3, count).astype(np.int8)
    return Answered(rows, told, baseline(0.01 * rng.standard_t(4, 900)), regime)


def history(members: int = 3) -> tuple[SimpleNamespace, ...]:
    return tuple(
        SimpleNamespace(
            fold=fold,
            member=member,
            epoch=epoch,
            training_loss=1 / epoch,
            validation_loss=1 + fold + 1 / epoch,
        )
        for fold in range(2)
        for member in range(members)
        for epoch in range(1, 6 + member)
    )


@pytest.fixture(scope="module")
def families() -> list[Contender]:
    def one(name: str, seed: int, **more: object) -> Contender:
        parts = [part(0, seed), part(1, seed + 1)]
        return contender(name, parts, horizon=HOUR, seed=1, costs=COSTS, **more)

    return [
        one("linear", 1, served=True),
        one("mlp", 3, served=True, history=history()),
        one("xgboost", 5, served=False),
    ]


def drawn(figure: object) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def test_every_comparison_is_drawn_with_the_colour_of_each_family(
    families: list[Contender],
) -> None:
    records = tracks(families, horizon=HOUR, costs=COSTS)
    figures = [
        plots.calibration_comparison(families),
        plots.equity_plot(families, records, COSTS),
        plots.skill_by_fold(families, "distribution"),
        plots.coverage_comparison(families),
    ]
    seen: dict[str, set] = {}
    for figure in figures:
        assert drawn(figure).startswith(b"\x89PNG")
        handles, names = figure.axes[0].get_legend_handles_labels()
        assert names == ["linear", "mlp", "xgboost"]
        for handle, name in zip(handles, names, strict=True):
            colour = handle.patches[0].get_facecolor() if hasattr(handle, "patches") else None
            seen.setdefault(name, set()).add(colour or to_rgba(handle.get_color()))
    assert all(len(colours) == 1 for colours in seen.values())
    assert len(set.union(*seen.values())) == 3


def test_a_family_keeps_its_colour_whoever_is_beside_it(families: list[Contender]) -> None:
    alone, among = (
        plots.equity_plot(chosen, tracks(chosen, horizon=HOUR, costs=COSTS), COSTS)
        for chosen in (families[1:2], families)
    )
    assert alone.axes[0].lines[0].get_color() == among.axes[0].lines[1].get_color()


def test_equity_begins_with_the_capital_and_ends_with_what_is_left(
    families: list[Contender],
) -> None:
    records = tracks(families[:1], horizon=HOUR, costs=COSTS)
    line = plots.equity_plot(families[:1], records, COSTS).axes[0].lines[0]
    heights, track = line.get_ydata(), records["linear"]
    assert heights[0] == 1.0
    assert heights[1:].tolist() == track.equity.tolist()
    assert len(line.get_xdata()) == len(track.days) + 1


def test_learning_curves_show_the_newest_fold_of_what_learns(families: list[Contender]) -> None:
    figure = plots.learning_curves(families)
    (panel,) = [axes for axes in figure.axes if axes.get_title() == "mlp"]
    grey, training, validation = (line.get_ydata() for line in panel.lines)
    # Members stop after 5, 6 and 7 epochs: two of three still learn in epoch 6.
    assert [len(line) for line in (grey, training, validation)] == [6, 6, 6]
    assert grey == pytest.approx(1 + 1 / np.arange(1, 7))
    assert validation == pytest.approx(2 + 1 / np.arange(1, 7))
    assert training == pytest.approx(1 / np.arange(1, 7))
    own = learning_curve(history())
    assert [len(line.get_xdata()) for line in own.axes[0].lines] == [5, 5, 6, 6, 7, 7]
    for empty in (plots.learning_curves(families[:1]), learning_curve([])):
        assert drawn(empty)


def test_many_symbols_are_cut_to_the_ones_furthest_off(families: list[Contender]) -> None:
    (first, second), rng = families[0].parts, np.random.default_rng(0)
    names = np.array([f"S{n:02d}" for n in range(30)])[rng.integers(0, 30, 400)]
    names[:40] = "OFF"
    wide = dict(first.answers)
    wide["lower"] = np.where(names == "OFF", np.float32(9), wide["lower"]).astype(np.float32)
    many = replace(first, rows=replace(first.rows, symbols=names), answers=wide)
    figure = plots.coverage_comparison([replace(families[0], parts=(many, second))])
    shown = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(shown) == 13
    assert shown[-1] == "all"
    assert "OFF" in shown


def test_calibrated_answers_lie_on_the_line() -> None:
    rng = np.random.default_rng(0)
    location = rng.normal(size=20_000)
    labels = location + 2.0 * rng.standard_t(4, 20_000)
    half = 2.0 * student.QUANTILE_95
    answers = {
        "expected_return": location,
        "lower": location - half,
        "upper": location + half,
        "probability_up": student.cdf(location / 2.0),
    }
    stated, observed = reliability_curve(labels, answers)
    assert len(stated) == 10
    assert observed == pytest.approx(stated, abs=0.04)
    assert quantile_curve(labels, answers) == pytest.approx(LEVELS, abs=0.015)
    one = reliability_curve(labels, answers | {"probability_up": np.full(20_000, 0.4)})
    assert [len(side) for side in one] == [1, 1]


def test_a_candidates_own_plots_are_drawn(families: list[Contender]) -> None:
    newest = families[0].parts[-1]
    assert drawn(calibration_plot(newest.rows, newest.answers))
