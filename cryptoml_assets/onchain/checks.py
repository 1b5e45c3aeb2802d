"""Checks of the stored blocks: a chain that links up, keys that are unique, finality that moves."""

from collections.abc import Sequence
from datetime import date

import dagster as dg
import polars as pl

from cryptoml_assets.onchain.assets import onchain_blocks
from cryptoml_assets.onchain.blocks import KEY
from cryptoml_assets.onchain.quality import (
    backward_times,
    broken_links,
    incomplete_rows,
    midnight_gaps,
    overdue_finality,
    repeated_keys,
    schema_problems,
)
from cryptoml_assets.onchain.reorg import around
from cryptoml_assets.onchain.stored import TABLE
from cryptoml_assets.partitions import check_days
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.settings import settings
from cryptoml_assets.tables import markdown_table

_SHOWN_ROWS = 20


@dg.asset_check(asset=onchain_blocks, blocking=True)
def block_schema_holds(
    context: dg.AssetCheckExecutionContext, lake: dg.ResourceParam[LakeIOManager]
) -> dg.AssetCheckResult:
    """The columns are those described, and none is null that every block of every chain has."""
    rows = lake.lake.scan(TABLE, check_days(context))
    columns, incomplete = schema_problems(lake.lake.schema(TABLE)), incomplete_rows(rows)
    return dg.AssetCheckResult(
        passed=columns.is_empty() and incomplete.is_empty(),
        metadata={"columns": _table(columns), "incomplete": _table(incomplete)},
    )


@dg.asset_check(asset=onchain_blocks, blocking=True)
def chain_is_continuous(
    context: dg.AssetCheckExecutionContext, lake: dg.ResourceParam[LakeIOManager]
) -> dg.AssetCheckResult:
    """Every block is the child of the stored block before it, the days around the run included.

    Warns only where the day before a stored day was left unfinished.
    """
    rows = _rows_around(context, lake, "number", "date", "hash", "parent_hash")
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
    rows = _rows(lake, check_days(context), *KEY)
    repeated = repeated_keys(rows, KEY)
    return dg.AssetCheckResult(
        passed=repeated.is_empty(),
        metadata={"rows": rows.height, "repeated": _table(repeated)},
    )


@dg.asset_check(asset=onchain_blocks, blocking=True)
def block_times_rise(
    context: dg.AssetCheckExecutionContext, lake: dg.ResourceParam[LakeIOManager]
) -> dg.AssetCheckResult:
    """No block is earlier than the one before it, the days around the run included."""
    rows = _rows_around(context, lake, "number", "hash", "timestamp")
    backward = backward_times(rows)
    return dg.AssetCheckResult(
        passed=backward.is_empty(),
        metadata={"blocks": rows.height, "backward": _table(backward)},
    )


@dg.asset_check(asset=onchain_blocks)
def finality_progresses(
    context: dg.AssetCheckExecutionContext, lake: dg.ResourceParam[LakeIOManager]
) -> dg.AssetCheckResult:
    """Blocks older than twice `CRYPTOML_FINALITY_DELAY` are finalized; otherwise warns."""
    configured = settings()
    rows = _rows(lake, check_days(context), "number", "hash", "timestamp", "finality")
    overdue = overdue_finality(rows, configured.clock(), configured.finality_delay)
    return dg.AssetCheckResult(
        passed=overdue.is_empty(),
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "blocks": rows.height,
            "overdue": overdue.height,
            "first_overdue": _table(overdue),
        },
    )


def _rows(lake: LakeIOManager, days: Sequence[date] | None, *columns: str) -> pl.DataFrame:
    return lake.lake.scan(TABLE, days).select(columns).collect()


def _rows_around(
    context: dg.AssetCheckExecutionContext, lake: LakeIOManager, *columns: str
) -> pl.DataFrame:
    """Rows of the run's days and of the days next to them; of all days outside of a run."""
    days = check_days(context)
    return _rows(lake, None if days is None else around(days), *columns)


def _table(rows: pl.DataFrame) -> dg.MarkdownMetadataValue:
    """The first rows as a table in the UI."""
    if rows.is_empty():
        return dg.MetadataValue.md("none")
    return dg.MetadataValue.md(markdown_table(rows.columns, rows.head(_SHOWN_ROWS).iter_rows()))
