"""Checks of the network metrics: keys that are unique, figures that can be, ratios that add up."""

from collections.abc import Sequence
from datetime import date

import dagster as dg
import polars as pl

from cryptoml_assets.onchain import network_metrics as network
from cryptoml_assets.onchain import ratios
from cryptoml_assets.onchain.metrics_assets import network_metrics
from cryptoml_assets.onchain.metrics_quality import missing_rows, unsound_figures
from cryptoml_assets.onchain.quality import repeated_keys
from cryptoml_assets.partitions import check_days
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.settings import settings
from cryptoml_assets.tables import markdown_table

_TABLE = "network_metrics"
_SHOWN_ROWS = 20


@dg.asset_check(asset=network_metrics, blocking=True)
def metric_keys_are_unique(
    context: dg.AssetCheckExecutionContext, lake: dg.ResourceParam[LakeIOManager]
) -> dg.AssetCheckResult:
    """No asset and day twice."""
    rows = _rows(lake, check_days(context))
    repeated = repeated_keys(rows, network.KEY)
    return _result(rows, "repeated", repeated)


@dg.asset_check(asset=network_metrics, blocking=True)
def metric_figures_are_sound(
    context: dg.AssetCheckExecutionContext, lake: dg.ResourceParam[LakeIOManager]
) -> dg.AssetCheckResult:
    """No figure is negative or infinite, and no price is zero."""
    rows = _rows(lake, check_days(context))
    return _result(rows, "unsound", unsound_figures(rows))


@dg.asset_check(asset=network_metrics)
def ratios_agree(
    context: dg.AssetCheckExecutionContext, lake: dg.ResourceParam[LakeIOManager]
) -> dg.AssetCheckResult:
    """Market cap, NVT and MVRV are within 1 % of those recomputed from their parts; else warns."""
    rows = _rows(lake, check_days(context))
    pairs = ratios.compared(rows)
    worst = pairs["difference"].max()
    return _result(
        rows,
        "disagreeing",
        ratios.disagreeing(rows),
        severity=dg.AssetCheckSeverity.WARN,
        compared=pairs.height,
        worst_difference=worst if isinstance(worst, float) else None,
    )


@dg.asset_check(asset=network_metrics)
def metric_days_are_complete(
    context: dg.AssetCheckExecutionContext, lake: dg.ResourceParam[LakeIOManager]
) -> dg.AssetCheckResult:
    """Every asset the API knows has a row for each published day of the run; else warns.

    Outside of a run for each day that any asset has a row for.
    """
    configured = settings()
    days = check_days(context)
    rows = _rows(lake, days)
    known = lake.lake.scan(_TABLE).select(pl.col("asset").unique()).collect()["asset"]
    expected = sorted(set(known) & set(network.base_assets(configured.symbols)))
    wanted = rows["day"].unique().to_list() if days is None else days
    published = network.published(wanted, configured.metrics_lag, configured.clock())
    absent = missing_rows(rows, expected, sorted(published))
    return _result(rows, "missing", absent, severity=dg.AssetCheckSeverity.WARN)


def _rows(lake: LakeIOManager, days: Sequence[date] | None) -> pl.DataFrame:
    return lake.lake.scan(_TABLE, days).collect()


def _result(
    rows: pl.DataFrame,
    name: str,
    offending: pl.DataFrame,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
    **metadata: float | None,
) -> dg.AssetCheckResult:
    """Passed without ``offending`` rows, of which the first are shown as ``name``."""
    shown = "none"
    if offending.height:
        shown = markdown_table(offending.columns, offending.head(_SHOWN_ROWS).iter_rows())
    return dg.AssetCheckResult(
        passed=offending.is_empty(),
        severity=severity,
        metadata={
            "rows": rows.height,
            f"{name}_rows": offending.height,
            name: dg.MetadataValue.md(shown),
            **metadata,
        },
    )
