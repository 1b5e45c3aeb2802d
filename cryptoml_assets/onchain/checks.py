"""Checks of the group onchain: a chain that links up, keys that are unique, finality that moves."""

from collections.abc import Sequence
from datetime import date, timedelta

import dagster as dg
import polars as pl

from cryptoml_assets.onchain import blocks as chain
from cryptoml_assets.onchain import network_metrics as network
from cryptoml_assets.onchain.assets import network_metrics, onchain_blocks
from cryptoml_assets.onchain.quality import (
    broken_links,
    midnight_gaps,
    overdue_finality,
    repeated_keys,
)
from cryptoml_assets.partitions import check_days
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.settings import settings
from cryptoml_assets.tables import markdown_table

_SHOWN_ROWS = 20
_DAY = timedelta(days=1)


@dg.asset_check(asset=onchain_blocks, blocking=True)
def chain_is_continuous(
    context: dg.AssetCheckExecutionContext, lake: dg.ResourceParam[LakeIOManager]
) -> dg.AssetCheckResult:
    """Every block is the child of the stored block before it, the days around the run included.

    Warns only where the day before a stored day was left unfinished.
    """
    days = check_days(context)
    around = None if days is None else (days[0] - _DAY, *days, days[-1] + _DAY)
    rows = _rows(lake, "onchain_blocks", around)
    broken, unfinished = broken_links(rows), midnight_gaps(rows)
    return dg.AssetCheckResult(
        passed=broken.is_empty() and unfinished.is_empty(),
        severity=dg.AssetCheckSeverity.WARN if broken.is_empty() else dg.AssetCheckSeverity.ERROR,
        metadata={
            "blocks": rows.height,
            "broken": _table(broken),
            "unfinished_days": _table(unfinished),
        },
    )


@dg.asset_check(asset=onchain_blocks, blocking=True)
def block_keys_are_unique(
    context: dg.AssetCheckExecutionContext, lake: dg.ResourceParam[LakeIOManager]
) -> dg.AssetCheckResult:
    """No chain id and number twice."""
    return _uniqueness(_rows(lake, "onchain_blocks", check_days(context)), chain.KEY)


@dg.asset_check(asset=network_metrics, blocking=True)
def metric_keys_are_unique(
    context: dg.AssetCheckExecutionContext, lake: dg.ResourceParam[LakeIOManager]
) -> dg.AssetCheckResult:
    """No asset and day twice."""
    return _uniqueness(_rows(lake, "network_metrics", check_days(context)), network.KEY)


@dg.asset_check(asset=onchain_blocks)
def finality_progresses(
    context: dg.AssetCheckExecutionContext, lake: dg.ResourceParam[LakeIOManager]
) -> dg.AssetCheckResult:
    """Blocks older than twice `CRYPTOML_FINALITY_DELAY` are finalized; otherwise warns."""
    configured = settings()
    rows = _rows(lake, "onchain_blocks", check_days(context))
    overdue = overdue_finality(rows, configured.clock(), configured.finality_delay)
    return dg.AssetCheckResult(
        passed=overdue.is_empty(),
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "blocks": rows.height,
            "overdue": overdue.height,
            "first_overdue": _table(overdue.select("number", "hash", "timestamp", "finality")),
        },
    )


def _rows(lake: LakeIOManager, table: str, days: Sequence[date] | None) -> pl.DataFrame:
    return lake.lake.scan(table, days).collect()


def _uniqueness(rows: pl.DataFrame, key: Sequence[str]) -> dg.AssetCheckResult:
    repeated = repeated_keys(rows, key)
    return dg.AssetCheckResult(
        passed=repeated.is_empty(),
        metadata={"rows": rows.height, "repeated": _table(repeated)},
    )


def _table(rows: pl.DataFrame) -> dg.MarkdownMetadataValue:
    """The first rows as a table in the UI."""
    if rows.is_empty():
        return dg.MetadataValue.md("none")
    return dg.MetadataValue.md(markdown_table(rows.columns, rows.head(_SHOWN_ROWS).iter_rows()))
