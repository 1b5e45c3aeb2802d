"""Checks of the online store; what fails here is not served."""

import dagster as dg

from cryptoml_assets.features.catalog import TTL
from cryptoml_assets.features.feature import Table
from cryptoml_assets.features.online_assets import online_features
from cryptoml_assets.resources.feature_store import FeatureStoreResource
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.settings import settings

_SHOWN = 20


@dg.asset_check(asset=online_features, blocking=True)
def online_equals_lake(
    feature_store: FeatureStoreResource, lake: dg.ResourceParam[LakeIOManager]
) -> dg.AssetCheckResult:
    """Every online value of every symbol equals the lake's newest one, to the bit."""
    from cryptoml_assets.features import online  # noqa: PLC0415

    configured = settings()
    store = feature_store.open()
    tables: tuple[Table, ...] = ("price_features", "onchain_features")
    found: list[str] = []
    compared = 0
    for table in tables:
        held = online.online_rows(store, table, configured.symbols)
        wanted = online.newest_rows(
            lake.lake.scan(table), table, configured.symbols, configured.clock(), TTL
        )
        compared += wanted.drop_nulls("event_timestamp").height * (wanted.width - 1)
        found += [str(difference) for difference in online.differences(table, held, wanted)]
    return dg.AssetCheckResult(
        passed=not found,
        description="; ".join(found[:_SHOWN]) or f"{compared} values compared",
        metadata={"compared": compared, "different": len(found)},
    )
