"""Data versions as Dagster understands them: what changed turns stale, and nothing else."""

from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from cryptoml_assets.partitions import daily, partition_days
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.resources.lake import Stored
from cryptoml_assets.versions import versioned

DAYS = [date(2024, 1, day) for day in (1, 2, 3)]
SCHEMA = {"value": pl.Int64, "date": pl.Date}
FIGURES: dict[date, int] = {}


@dg.asset(
    partitions_def=daily, backfill_policy=dg.BackfillPolicy.single_run(), io_manager_key="lake"
)
def table(
    context: dg.AssetExecutionContext, lake: dg.ResourceParam[LakeIOManager]
) -> Iterator[dg.MaterializeResult[Stored] | dg.AssetMaterialization]:
    days = partition_days(context)
    rows = pl.DataFrame([(FIGURES[day], day) for day in days], schema=SCHEMA, orient="row")
    stored = lake.lake.rewrite_days("table", days, lambda _: rows, SCHEMA)
    yield from versioned(
        stored,
        lake.lake,
        context.asset_key,
        days,
        metadata={"run": len(days)},
        by_day={day: {"figure": FIGURES[day]} for day in days},
    )


@pytest.fixture
def lake(tmp_path: Path) -> LakeIOManager:
    FIGURES.update(dict.fromkeys(DAYS, 1))
    return LakeIOManager(uri=str(tmp_path / "lake"))


def materialise(
    lake: LakeIOManager, instance: dg.DagsterInstance, days: Sequence[date]
) -> list[dg.AssetMaterialization]:
    dg.materialize(
        [table],
        resources={"lake": lake},
        instance=instance,
        tags={
            "dagster/asset_partition_range_start": str(days[0]),
            "dagster/asset_partition_range_end": str(days[-1]),
        },
    )
    return [newest(instance, day) for day in DAYS]


def newest(instance: dg.DagsterInstance, day: date) -> dg.AssetMaterialization:
    asked = dg.AssetRecordsFilter(table.key, asset_partitions=[str(day)])
    records = instance.fetch_materializations(asked, limit=1).records
    materialization = records[0].asset_materialization
    assert materialization is not None
    return materialization


def versions(events: Sequence[dg.AssetMaterialization]) -> list[str]:
    return [(event.tags or {})["dagster/data_version"] for event in events]


def figures(event: dg.AssetMaterialization) -> dict[str, Any]:
    return {name: value.value for name, value in event.metadata.items()}


def test_a_range_run_gives_each_day_the_version_of_its_rows(lake: LakeIOManager) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        first = materialise(lake, instance, DAYS)
        FIGURES[DAYS[1]] = 2
        second = materialise(lake, instance, DAYS)
    changed = [old != new for old, new in zip(versions(first), versions(second), strict=True)]
    assert changed == [False, True, False]


def test_a_day_has_one_version_in_a_run_alone_and_in_a_range(lake: LakeIOManager) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        ranged = materialise(lake, instance, DAYS)
        alone = materialise(lake, instance, DAYS[:1])
    assert versions(ranged) == versions(alone)


def test_the_newest_event_of_a_day_tells_of_the_day_and_the_last_one_of_the_run(
    lake: LakeIOManager,
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        FIGURES[DAYS[0]] = 5
        events = materialise(lake, instance, DAYS)
        assert figures(events[0]) == {"dagster/row_count": 1, "figure": 5}
        assert figures(events[2]) == {"dagster/row_count": 1, "figure": 1, "run": 3}
        alone = figures(materialise(lake, instance, DAYS[:1])[0])
    assert alone.items() >= {"dagster/row_count": 1, "figure": 5, "run": 1}.items()
