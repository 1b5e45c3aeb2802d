"""Figures of a run, for any number of days and symbols."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from cryptoml_assets.prices.ledger import LEDGER_SCHEMA, day_summary
from cryptoml_assets.prices.report import plot_closes, plot_coverage

START = date(2024, 1, 1)
BAR = timedelta(minutes=5)
NO_GAP = dict.fromkeys(
    ("listed_later", "delisted", "venue_outage", "nothing_traded", "not_fetched"), 0
)


def summary(days: int, symbols: int, **gaps: int) -> pl.DataFrame:
    """As ``day_summary`` gives it; the first symbol has ``gaps`` on the last day."""
    rows: list[dict[str, Any]] = []
    for day in range(days):
        for number in range(symbols):
            missing = NO_GAP | (gaps if day == days - 1 and number == 0 else {})
            possible = 288 - sum(missing[c] for c in ("listed_later", "delisted", "venue_outage"))
            received = 288 - sum(missing.values())
            rows.append(
                {
                    "date": START + timedelta(days=day),
                    "symbol": f"COIN{number}/USDT",
                    "expected": 288,
                    "received": received,
                    **missing,
                    "share": received / possible if possible else None,
                }
            )
    return pl.DataFrame(rows)


def drawn(figure: Any) -> tuple[Any, list[str]]:
    """The shares as drawn, a row a symbol, and the legend."""
    figure.canvas.draw()
    axes = figure.axes[0]
    legends = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    return axes.images[0].get_array() if axes.images else None, legends


@pytest.mark.parametrize(("days", "symbols"), [(1, 1), (2, 3), (60, 30), (92, 2)])
def test_coverage_has_a_cell_for_each_day_and_symbol(days: int, symbols: int) -> None:
    cells, legends = drawn(plot_coverage(summary(days, symbols)))
    assert cells.shape == (symbols, days)
    assert (cells == 1.0).all()
    assert legends == []


def test_days_of_long_runs_share_cells() -> None:
    figure = plot_coverage(summary(365, 2, nothing_traded=144))
    cells, _ = drawn(figure)
    assert cells.shape == (2, 92)
    assert figure.axes[0].get_title() == "Bars received, 4 days a cell"
    assert cells[0, -1] == 0.5, "the last cell holds one day"


def test_every_cause_is_marked_with_how_many_bars_it_cost() -> None:
    gaps = dict.fromkeys(NO_GAP, 10)
    cells, legends = drawn(plot_coverage(summary(3, 2, **gaps)))
    assert cells[0, -1] == pytest.approx((288 - 50) / (288 - 30))
    assert legends == [
        "listed later: 10 bars",
        "delisted: 10 bars",
        "venue outage: 10 bars",
        "nothing traded: 10 bars",
        "not fetched: 10 bars",
    ]


def test_a_day_without_a_bar_that_could_exist_has_no_colour() -> None:
    cells, _ = drawn(plot_coverage(summary(2, 1, listed_later=288)))
    assert bool(cells.mask[0, 1])
    assert not bool(cells.mask[0, 0])


def test_what_the_ledger_sums_up_to_can_be_drawn() -> None:
    nothing = day_summary(
        LEDGER_SCHEMA.to_frame(),
        ["BTC/USDT"],
        [START],
        BAR,
        datetime(2024, 1, 1, 12, tzinfo=UTC),
    )
    cells, legends = drawn(plot_coverage(nothing))
    assert cells.tolist() == [[0.0]]
    assert legends == ["not fetched: 144 bars"]
    assert drawn(plot_coverage(nothing.clear())) == (None, [])


def test_closes_are_drawn_from_one() -> None:
    times = [datetime(2024, 1, 1, tzinfo=UTC) + i * BAR for i in range(4000)]
    closes = pl.DataFrame(
        {
            "symbol": "BTC/USDT",
            "open_time": times,
            "close_time": [at + BAR for at in times],
            "close": [100.0 + i for i in range(4000)],
        }
    )
    line = plot_closes(closes).axes[0].lines[0]
    assert line.get_ydata()[0] == 1.0
    assert 1500 <= len(line.get_ydata()) <= 2000
    assert not plot_closes(closes.clear()).axes[0].lines
