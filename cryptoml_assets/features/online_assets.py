"""The online store as an asset: what the inference service reads."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

from cryptoml_assets.cadence import follow_all, fresh
from cryptoml_assets.days import days_between
from cryptoml_assets.features.assets import onchain_features, price_features
from cryptoml_assets.features.catalog import TTL
from cryptoml_assets.features.feature import TABLES
from cryptoml_assets.features.pins import refuse_other_formulas
from cryptoml_assets.resources.feature_store import FeatureStoreResource
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.settings import settings
from cryptoml_assets.tables import markdown_table

if TYPE_CHECKING:
    from cryptoml_assets.features.online import Brought

#: Metadata that says, table by table, what the online store was brought up to.
BROUGHT = "brought_up_to"
_SHOWN = ("symbol", "event_timestamp", "price", "rsi", "volatility")


@dg.asset(
    deps=[price_features, onchain_features],
    group_name="features",
    kinds={"feast", "redis" if settings().online_store else "sqlite"},
    owners=["team:features"],
    code_version="2",
    automation_condition=follow_all,
    freshness_policy=fresh,
)
def online_features(
    context: dg.AssetExecutionContext,
    feature_store: FeatureStoreResource,
    lake: dg.ResourceParam[LakeIOManager],
) -> dg.MaterializeResult[None]:
    """The newest row of each symbol and feature view, in Feast's online store.

    What the inference service reads. Only days that changed since the last run are read, and only
    rows that differ are written. Rows older than the views' time to live are not used.
    """
    configured = settings()
    with feature_store.session() as store:
        from cryptoml_assets.features import online  # noqa: PLC0415  (loads Feast, as opening does)
        from cryptoml_assets.features.store import register  # noqa: PLC0415

        since, now = last_brought(context.instance), configured.clock()
        refuse_other_formulas(context.instance, days_between((now - TTL).date(), now.date()))
        registered = register(store, lake.uri, now)
        brought = {
            table: online.bring_up_to_date(
                store,
                lake.lake,
                table,
                configured.symbols,
                now=now,
                delay=max(configured.metrics_lag, configured.finality_delay),
                since=since.get(table),
            )
            for table in TABLES
        }
        rows = {
            table: online.online_rows(store, table, configured.symbols, now) for table in brought
        }
    newest = rows["price_features"].select(_SHOWN)
    return dg.MaterializeResult(
        metadata={
            **{
                f"rows_{table}": int(frame["event_timestamp"].is_not_null().sum())
                for table, frame in rows.items()
            },
            "rows_written": sum(each.written for each in brought.values()),
            "days_read": sum(each.days_read for each in brought.values()),
            "registry_changed": registered,
            "newest": dg.MetadataValue.md(markdown_table(newest.columns, newest.iter_rows())),
            BROUGHT: dg.MetadataValue.json(
                {table: each.record() for table, each in brought.items()}
            ),
        }
    )


def last_brought(instance: dg.DagsterInstance) -> "Mapping[str, Brought]":
    """What the newest run brought online, table by table; nothing where that is not known."""
    from cryptoml_assets.features.online import Brought  # noqa: PLC0415  (loads Feast)

    event = instance.get_latest_materialization_event(online_features.key)
    made = event.asset_materialization if event is not None else None
    entry: Any = made.metadata.get(BROUGHT) if made is not None else None
    try:
        return {table: Brought.of_record(each) for table, each in entry.value.items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        # Not being known only costs reading everything.
        return {}
