"""The online store as an asset: what the inference service reads."""

import dagster as dg

from cryptoml_assets.cadence import follow_all, fresh
from cryptoml_assets.features.assets import onchain_features, price_features
from cryptoml_assets.features.catalog import TTL
from cryptoml_assets.features.feature import Table
from cryptoml_assets.resources.feature_store import FeatureStoreResource
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.settings import settings
from cryptoml_assets.tables import markdown_table


@dg.asset(
    deps=[price_features, onchain_features],
    group_name="features",
    kinds={"feast", "sqlite"},
    owners=["team:features"],
    code_version="1",
    automation_condition=follow_all,
    freshness_policy=fresh,
)
def online_features(
    feature_store: FeatureStoreResource, lake: dg.ResourceParam[LakeIOManager]
) -> dg.MaterializeResult[None]:
    """The newest row of each symbol and feature view, in Feast's online store.

    What the inference service reads. Rows older than the views' time to live are not brought in.
    """
    store = feature_store.open()
    from cryptoml_assets.features import online  # noqa: PLC0415  (loads Feast, as opening does)

    configured = settings()
    online.bring_up_to_date(store, lake.uri, configured.clock(), TTL)
    tables: tuple[Table, ...] = ("price_features", "onchain_features")
    rows = {table: online.online_rows(store, table, configured.symbols) for table in tables}
    shown = ("symbol", "event_timestamp", "price", "rsi", "volatility")
    newest = rows["price_features"].select(shown)
    return dg.MaterializeResult(
        metadata={
            **{
                f"rows_{table}": int(frame["event_timestamp"].is_not_null().sum())
                for table, frame in rows.items()
            },
            "newest": dg.MetadataValue.md(markdown_table(newest.columns, newest.iter_rows())),
        }
    )
