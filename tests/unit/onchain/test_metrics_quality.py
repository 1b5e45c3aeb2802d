from __future__ import annotations

from datetime import date, timedelta

import polars as pl
import pytest

from cryptoml_assets.onchain.metrics_quality import lacking, missing_rows, unsound_figures
from cryptoml_assets.onchain.network_metrics import METRICS, SCHEMA, parse_row

ONE, TWO = date(2024, 1, 1), date(2024, 1, 2)


def table(*rows):
    """Rows as ``(asset, day, figures by column)``."""
    parsed = [
        parse_row(
            {"asset": asset, "time": f"{day}"} | {METRICS[k]: str(v) for k, v in figures.items()},
            source="simulated",
            lag=timedelta(hours=4),
        )
        for asset, day, figures in rows
    ]
    return pl.DataFrame(parsed, schema=SCHEMA, orient="row")


def test_absent_figures_and_counts_of_zero_are_sound():
    assert unsound_figures(table(("btc", ONE, {"active_addresses": 0, "supply": 0}))).is_empty()
    assert unsound_figures(table()).is_empty()


@pytest.mark.parametrize(
    ("metric", "value"),
    [("hash_rate", -1.0), ("price_usd", 0.0), ("nvt_ratio", float("inf"))],
)
def test_a_figure_that_cannot_be_is_named(metric, value):
    sound = table(("eth", ONE, {metric: 3}), ("btc", TWO, {metric: 3}))
    touched = sound.with_columns(
        pl.when(pl.col("asset") == "btc").then(value).otherwise(metric).alias(metric)
    )
    assert unsound_figures(touched).rows() == [("btc", TWO, metric, value)]


def test_a_nan_is_unsound():
    spoilt = table(("btc", ONE, {"supply": 3})).with_columns(supply=float("nan"))
    assert unsound_figures(spoilt)["metric"].to_list() == ["supply"]


def test_days_without_a_row_are_listed_by_asset():
    metrics = table(("btc", ONE, {}), ("btc", TWO, {}), ("eth", TWO, {}))
    absent = missing_rows(metrics, ["eth", "btc"], [TWO, ONE])
    assert absent.rows() == [("eth", ONE)]
    assert missing_rows(metrics, [], [ONE]).is_empty()
    assert missing_rows(metrics, ["btc"], []).is_empty()


def test_what_an_asset_lacks_on_every_day_is_said():
    every = dict.fromkeys(METRICS, 1)
    metrics = table(
        ("btc", ONE, every),
        ("eth", ONE, every | {"mvrv_ratio": "", "hash_rate": ""}),
        ("eth", TWO, every | {"mvrv_ratio": ""}),
    )
    assert lacking(metrics) == {"eth": ["mvrv_ratio"]}
