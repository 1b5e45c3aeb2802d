"""What Dagster was told of an asset's days."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import date

import dagster as dg

_AT_A_TIME = 500


def newest_events(
    instance: dg.DagsterInstance, key: dg.AssetKey, days: Collection[date] | None = None
) -> Iterator[tuple[date, dg.EventLogRecord, dg.AssetMaterialization]]:
    """The newest materialisation of each of ``days``, of all when not given, that has one."""
    wanted = None if days is None else {day.isoformat() for day in days}
    numbers = sorted(
        instance.get_latest_storage_id_by_partition(
            key, dg.DagsterEventType.ASSET_MATERIALIZATION, wanted
        ).values()
    )
    for place in range(0, len(numbers), _AT_A_TIME):
        some = numbers[place : place + _AT_A_TIME]
        asked = dg.AssetRecordsFilter(key, storage_ids=some)
        for record in instance.fetch_materializations(asked, limit=len(some)).records:
            event = record.asset_materialization
            if event is not None and event.partition is not None:
                yield date.fromisoformat(event.partition), record, event
