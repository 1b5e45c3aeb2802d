"""What Dagster is told of days outside of a run whose rows the run changed."""

from collections.abc import Iterator, Sequence
from datetime import date

import dagster as dg

from cryptoml_assets.onchain.reorg import Reorganisation
from cryptoml_assets.onchain.report import reorg_metadata
from cryptoml_assets.onchain.stored import TABLE
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.versions import version_events

#: The tag in which Dagster keeps the data version of a materialization.
_VERSION_TAG = "dagster/data_version"


def tell_reorganisation(
    context: dg.AssetExecutionContext, lake: Lake, reorg: Reorganisation, days: Sequence[date]
) -> None:
    """Record ``reorg`` as an observation of each day it changed.

    Those that are not of the run, whose own are ``days``, get their new data version with it.
    """
    for day in reorg.days:
        observation = dg.AssetObservation(
            asset_key=context.asset_key,
            partition=day.isoformat(),
            description=f"Reorganisation: {reorg.blocks_replaced} blocks from "
            f"{reorg.first_replaced} on were replaced by another branch",
            metadata=reorg_metadata(reorg),
        )
        context.log_event(observation)
    others = {day: reorg_metadata(reorg) for day in reorg.days if day not in days}
    for event in version_events(lake, context.asset_key, others):
        context.log_event(event)


def untold_days(
    context: dg.AssetExecutionContext, lake: Lake, days: Sequence[date]
) -> Iterator[date]:
    """Those of ``days`` whose rows are others than Dagster knows, as a killed run leaves them."""
    versions = lake.day_versions(TABLE, days)
    for day in days:
        told = context.instance.fetch_materializations(
            dg.AssetRecordsFilter(context.asset_key, asset_partitions=[day.isoformat()]), limit=1
        )
        for record in told.records:
            known = record.asset_materialization
            if known is not None and (known.tags or {}).get(_VERSION_TAG) != versions[day]:
                yield day
