from __future__ import annotations

from datetime import date

import polars as pl

from cryptoml_assets.onchain.metrics_report import activity_plot


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
