"""Checks of the online store; what fails here holds back whatever follows in the graph."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from cryptoml_assets.features.feature import TABLES
from cryptoml_assets.features.online_assets import last_brought, online_features
from cryptoml_assets.features.pins import versions_read
from cryptoml_assets.resources.feature_store import FeatureStoreResource
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.settings import settings

if TYPE_CHECKING:
    import polars as pl

    from cryptoml_assets.features.feature import Table
    from cryptoml_assets.features.parity import Difference

    #: What differs, and how many rows were looked at.
    Compared = tuple[Sequence[Difference], int]

_SHOWN = 20


@dg.asset_check(asset=online_features, blocking=True)
def online_equals_lake(
    context: dg.AssetCheckExecutionContext,
    feature_store: FeatureStoreResource,
    lake: dg.ResourceParam[LakeIOManager],
) -> dg.AssetCheckResult:
    """Every online value of every symbol equals the lake's, to the bit.

    The lake as it is, or as it was at some version since the one last brought online.
    """
    configured = settings()
    delay = max(configured.metrics_lag, configured.finality_delay)

    def compare(table: "Table", online: "pl.DataFrame") -> "Compared":
        from cryptoml_assets.features import parity  # noqa: PLC0415

        since, now = last_brought(context.instance).get(table), configured.clock()
        found = parity.not_of_the_lake(online, lake.lake, table, now=now, delay=delay, since=since)
        return found, online.drop_nulls("event_timestamp").height

    return _compared(feature_store, compare)


@dg.asset_check(
    asset=online_features,
    blocking=True,
    additional_deps=["raw_prices", "network_metrics", "onchain_blocks"],
)
def online_equals_recomputation(
    context: dg.AssetCheckExecutionContext,
    feature_store: FeatureStoreResource,
    lake: dg.ResourceParam[LakeIOManager],
) -> dg.AssetCheckResult:
    """Every online value equals what the raw tables give, computed again, to the bit.

    They are read as they were when the value was made. Rows that are not the lake's newest are not
    looked at; `online_equals_lake` tells of those.
    """
    configured = settings()
    delay = max(configured.metrics_lag, configured.finality_delay)

    def compare(table: "Table", online: "pl.DataFrame") -> "Compared":
        from cryptoml_assets.features import parity  # noqa: PLC0415

        def again() -> "Compared":
            return parity.not_of_the_raw_tables(
                online,
                lake.lake,
                table,
                now=configured.clock(),
                delay=delay,
                bar=configured.bar,
                pins=lambda days: versions_read(context.instance, dg.AssetKey(table), days),
            )

        # Once more: rows may have been stored by a run that had yet to say what it had read.
        found, rows = again()
        return again() if found else (found, rows)

    return _compared(feature_store, compare)


def _compared(
    feature_store: FeatureStoreResource,
    compare: "Callable[[Table, pl.DataFrame], Compared]",
) -> dg.AssetCheckResult:
    """The result of comparing what readers of each view get."""
    configured = settings()
    found: list[Difference] = []
    compared = 0
    with feature_store.session() as store:
        from cryptoml_assets.features import online  # noqa: PLC0415

        for table in TABLES:
            rows = online.online_rows(store, table, configured.symbols, configured.clock())
            different, looked_at = compare(table, rows)
            compared += looked_at * (rows.width - 1)
            found += different
    return dg.AssetCheckResult(
        passed=not found,
        description="; ".join(str(each) for each in found[:_SHOWN])
        or f"{compared} values compared",
        metadata={"compared": compared, "different": len(found)},
    )
