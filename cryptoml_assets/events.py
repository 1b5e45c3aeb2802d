"""What Dagster was told of an asset's days."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import date
from typing import Any

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


def events_after(
    instance: dg.DagsterInstance,
    key: dg.AssetKey,
    number: int,
    limit: int,
    *,
    observations: bool = False,
) -> list[dg.EventLogRecord]:
    """The oldest ``limit`` materialisations, or observations, that came after event ``number``."""
    fetch = instance.fetch_observations if observations else instance.fetch_materializations
    asked = dg.AssetRecordsFilter(key, after_storage_id=number)
    return list(fetch(asked, limit=limit, ascending=True).records)


def newest_numbers(
    instance: dg.DagsterInstance, key: dg.AssetKey, limit: int, *, observations: bool = False
) -> list[int]:
    """Numbers of the newest ``limit`` materialisations, or observations, the newest first."""
    fetch = instance.fetch_observations if observations else instance.fetch_materializations
    return [record.storage_id for record in fetch(key, limit=limit).records]


def told(record: dg.EventLogRecord) -> dict[str, Any]:
    """The metadata of a materialisation or observation, as plain values."""
    event = record.asset_materialization or record.event_log_entry.asset_observation
    return {} if event is None else {name: each.value for name, each in event.metadata.items()}
