"""What can be wrong with stored network metrics, as frames of what is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import polars as pl

from cryptoml_assets.onchain.network_metrics import KEY, METRICS


def unsound_figures(metrics: pl.DataFrame) -> pl.DataFrame:
    """Figures that no network can have: negative or infinite ones, and prices of zero.

    Returns:
        One row per asset, day and ``metric`` (the column) with its ``value``, by key.
    """
    figures = metrics.unpivot(list(METRICS), index=KEY, variable_name="metric")
    sound = pl.col("value").is_finite() & (pl.col("value") >= 0)
    worthless = (pl.col("metric") == "price_usd") & (pl.col("value") == 0)
    return figures.filter(~sound | worthless).sort(*KEY, "metric")


def missing_rows(
    metrics: pl.DataFrame, assets: Sequence[str], days: Sequence[date]
) -> pl.DataFrame:
    """Asset and day of each of ``assets`` and ``days`` that has no row, by key."""
    wanted = pl.DataFrame({"asset": sorted(assets)}, schema={"asset": pl.String}).join(
        pl.DataFrame({"day": sorted(days)}, schema={"day": pl.Date}), how="cross"
    )
    return wanted.join(metrics, on=KEY, how="anti", maintain_order="left")


def lacking(metrics: pl.DataFrame) -> dict[str, list[str]]:
    """Per asset the metric columns without a figure on any day of ``metrics``.

    Assets that lack none are left out; the rest by name.
    """
    counts = metrics.group_by("asset").agg(pl.col(list(METRICS)).count()).sort("asset")
    return {
        row["asset"]: absent
        for row in counts.iter_rows(named=True)
        if (absent := [name for name in METRICS if not row[name]])
    }
