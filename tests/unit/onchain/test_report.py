from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import polars as pl

from cryptoml_assets.onchain.report import activity_plot, gas_plot


def test_gas_is_drawn_as_hourly_means():
    start = datetime(2024, 3, 1, tzinfo=UTC)
    blocks = pl.DataFrame(
        {
            "timestamp": [start + timedelta(minutes=30 * n) for n in range(4)],
            "gas_used": [10, 20, 30, 40],
            "gas_limit": [40, 40, 40, 40],
            "base_fee_per_gas": [10**9, 3 * 10**9, None, None],
        }
    )
    upper, lower = gas_plot(blocks).axes
    assert list(upper.lines[0].get_ydata()) == [0.375, 0.875]
    assert lower.lines[0].get_ydata()[0] == 2


def test_activity_has_a_line_for_each_asset():
    metrics = pl.DataFrame(
        {
            "asset": ["btc", "eth", "btc"],
            "day": [date(2024, 1, 2), date(2024, 1, 1), date(2024, 1, 1)],
            "active_addresses": [20.0, None, 10.0],
        }
    )
    (axes,) = activity_plot(metrics).axes
    drawn = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    assert drawn["btc"] == [10, 20]
    assert len(drawn["eth"]) == 1
