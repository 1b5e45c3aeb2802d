from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import polars as pl

from cryptoml_assets.onchain.reorg import Reorganisation
from cryptoml_assets.onchain.report import day_figures, gas_plot, gas_series, reorg_table

START = datetime(2024, 3, 1, 23, tzinfo=UTC)
BLOCKS = pl.DataFrame(
    {
        "number": [7, 8, 9, 10],
        "timestamp": [START + timedelta(minutes=30 * n) for n in range(4)],
        "date": [date(2024, 3, 1), date(2024, 3, 1), date(2024, 3, 2), date(2024, 3, 2)],
        "transaction_count": [1, 2, 3, 4],
        "gas_used": [10, 20, 30, 40],
        "gas_limit": [40, 40, 40, 40],
        "base_fee_per_gas": [10**9, 3 * 10**9, None, None],
        "finality": ["finalized", "finalized", "safe", "latest"],
    }
).lazy()


def test_figures_of_each_day():
    assert day_figures(BLOCKS).rows() == [
        (date(2024, 3, 1), 2, 3, 7, 8, 2, 0, 0),
        (date(2024, 3, 2), 2, 7, 9, 10, 0, 1, 1),
    ]


def test_gas_is_drawn_as_hourly_means():
    upper, lower = gas_plot(gas_series(BLOCKS, days=2)).axes
    assert list(upper.lines[0].get_ydata()) == [0.375, 0.875]
    assert lower.lines[0].get_ydata()[0] == 2


def test_points_are_bounded_however_many_days_there_are():
    start = datetime(2020, 1, 1, tzinfo=UTC)
    times = pl.datetime_range(start, start + timedelta(days=2000), "1h", eager=True)
    blocks = pl.LazyFrame({"timestamp": times}).with_columns(
        gas_used=pl.lit(1), gas_limit=pl.lit(2), base_fee_per_gas=pl.lit(3)
    )
    assert 500 < gas_series(blocks, days=2000).height <= 1_001


def test_reorganisations_are_told_as_a_table():
    assert reorg_table([]) == "none"
    days = (date(2024, 3, 1), date(2024, 3, 2))
    table = reorg_table([Reorganisation(8, 3, 3, "0xold", None, days)])
    assert "| 8 | 3 | 3 | 0xold | none" in table
    assert "2024-03-01, 2024-03-02" in table
