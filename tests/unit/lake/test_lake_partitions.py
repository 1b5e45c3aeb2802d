"""The IO manager hands each asset exactly the partitions it asked for."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from cryptoml_assets.errors import LakeError
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.resources.lake import Lake

START = date(2024, 1, 1)
DAYS = [START + timedelta(days=n) for n in range(5)]
daily = dg.DailyPartitionsDefinition(start_date="2024-01-01", end_date="2024-01-11")
single_run = dg.BackfillPolicy.single_run()
SCHEMA = {"value": pl.Int64, "date": pl.Date}


def rows(*days: date, value: int = 1) -> pl.DataFrame:
    return pl.DataFrame([(value, day) for day in days], schema=SCHEMA, orient="row")


def run_days(context: dg.AssetExecutionContext) -> list[date]:
    return [date.fromisoformat(key) for key in context.partition_keys]


@dg.asset(partitions_def=daily, backfill_policy=single_run, io_manager_key="lake")
def up(context: dg.AssetExecutionContext) -> pl.DataFrame:
    return rows(*run_days(context))


@dg.asset(partitions_def=daily, backfill_policy=single_run, io_manager_key="lake")
def down(context: dg.AssetExecutionContext, up: pl.LazyFrame) -> pl.LazyFrame:
    assert isinstance(up, pl.LazyFrame)
    return up.with_columns(pl.col("value") * 10)


@dg.asset(io_manager_key="lake")
def whole(up: pl.LazyFrame) -> pl.DataFrame:
    return up.collect().with_columns(pl.col("value") * 100)


@dg.asset(partitions_def=daily, io_manager_key="lake")
def reads_whole(context: dg.AssetExecutionContext, whole: pl.DataFrame) -> pl.DataFrame:
    assert isinstance(whole, pl.DataFrame)
    return rows(*run_days(context), value=whole.height)


Materialize = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path))


@pytest.fixture
def materialize(lake: Lake) -> Materialize:
    with dg.DagsterInstance.ephemeral() as instance:
        yield materializer(lake, instance)


def materializer(lake: Lake, instance: dg.DagsterInstance) -> Materialize:
    def materialize(
        *assets: Any, first: date | None = None, last: date | None = None
    ) -> dg.ExecuteInProcessResult:
        tags = {
            "dagster/asset_partition_range_start": str(first),
            "dagster/asset_partition_range_end": str(last or first),
        }
        keys = [asset.key for asset in assets]
        others = [a for a in (up, down, whole, reads_whole) if a.key not in keys]
        return dg.materialize(
            [*assets, *others],
            selection=keys,
            tags=tags if first else None,
            instance=instance,
            resources={"lake": LakeIOManager(uri=lake.uri)},
        )

    return materialize


def stored(lake: Lake, table: str) -> list[tuple[int, date]]:
    return lake.scan(table).collect().rows()


def test_a_five_day_range_run_loads_all_five_days_downstream(
    lake: Lake, materialize: Materialize
) -> None:
    materialize(up, down, first=DAYS[0], last=DAYS[4])
    assert stored(lake, "down") == [(10, day) for day in DAYS]


def test_a_five_day_range_is_one_commit_and_spares_other_days(
    lake: Lake, materialize: Materialize
) -> None:
    lake.replace_days("up", rows(*DAYS, date(2024, 1, 9), value=7), [*DAYS, date(2024, 1, 9)])
    materialize(up, first=DAYS[0], last=DAYS[4])
    assert lake.version("up") == 1
    assert stored(lake, "up") == [*((1, day) for day in DAYS), (7, date(2024, 1, 9))]


def test_a_single_day_run_reads_and_writes_that_day_only(
    lake: Lake, materialize: Materialize
) -> None:
    materialize(up, first=DAYS[0], last=DAYS[4])
    materialize(down, first=DAYS[2])
    assert stored(lake, "down") == [(10, DAYS[2])]


def test_an_unpartitioned_asset_reads_every_partition(lake: Lake, materialize: Materialize) -> None:
    materialize(up, first=DAYS[0], last=DAYS[4])
    materialize(whole)
    assert stored(lake, "whole") == [(100, day) for day in DAYS]


def test_a_partitioned_asset_reads_all_of_an_unpartitioned_one(
    lake: Lake, materialize: Materialize
) -> None:
    lake.overwrite("whole", rows(*DAYS))
    materialize(reads_whole, first=DAYS[0])
    assert stored(lake, "reads_whole") == [(5, DAYS[0])]


def test_a_partition_mapping_with_an_offset_reads_the_days_before_too(
    lake: Lake, materialize: Materialize
) -> None:
    window = dg.TimeWindowPartitionMapping(start_offset=-2, end_offset=0)

    @dg.asset(
        partitions_def=daily,
        backfill_policy=single_run,
        io_manager_key="lake",
        ins={"up": dg.AssetIn(partition_mapping=window)},
    )
    def windowed(context: dg.AssetExecutionContext, up: pl.LazyFrame) -> pl.DataFrame:
        return rows(*run_days(context), value=up.collect().height)

    materialize(up, first=DAYS[0], last=DAYS[4])
    materialize(windowed, first=DAYS[3])
    assert stored(lake, "windowed") == [(3, DAYS[3])]
    materialize(windowed, first=DAYS[2], last=DAYS[3])
    assert stored(lake, "windowed") == [(4, DAYS[2]), (4, DAYS[3])]


def test_an_empty_frame_removes_the_rows_of_its_day(lake: Lake, materialize: Materialize) -> None:
    @dg.asset(name="up", partitions_def=daily, backfill_policy=single_run, io_manager_key="lake")
    def nothing() -> pl.DataFrame:
        return rows()

    materialize(up, first=DAYS[0], last=DAYS[2])
    materialize(nothing, first=DAYS[1])
    assert stored(lake, "up") == [(1, DAYS[0]), (1, DAYS[2])]


def test_an_empty_first_write_keeps_the_schema_for_downstream(
    lake: Lake, materialize: Materialize
) -> None:
    @dg.asset(name="up", partitions_def=daily, backfill_policy=single_run, io_manager_key="lake")
    def nothing() -> pl.DataFrame:
        return rows()

    materialize(nothing, first=DAYS[0])
    materialize(down, first=DAYS[0])
    assert lake.schema("down") == pl.Schema(SCHEMA)
    assert stored(lake, "down") == []


def test_a_missing_upstream_table_is_named(materialize: Materialize) -> None:
    with pytest.raises(LakeError, match="has no table up"):
        materialize(down, first=DAYS[0])


def test_rows_outside_the_run_are_refused(lake: Lake, materialize: Materialize) -> None:
    @dg.asset(name="up", partitions_def=daily, backfill_policy=single_run, io_manager_key="lake")
    def strays() -> pl.DataFrame:
        return rows(DAYS[3])

    with pytest.raises(LakeError, match="rows outside the days to replace: 2024-01-04"):
        materialize(strays, first=DAYS[0])
    assert not lake.exists("up")


def test_what_is_not_a_frame_is_refused(lake: Lake, materialize: Materialize) -> None:
    @dg.asset(name="up", io_manager_key="lake")
    def text() -> str:
        return "no frame"

    with pytest.raises(LakeError, match="lake table up: a polars frame is needed, not str"):
        materialize(text)


def test_partitions_that_are_not_days_are_refused(materialize: Materialize) -> None:
    @dg.asset(name="up", partitions_def=dg.StaticPartitionsDefinition(["a"]), io_manager_key="lake")
    def letters() -> pl.DataFrame:
        return rows(DAYS[0])

    with pytest.raises(LakeError, match="must be days like 2024-01-31, got 'a'"):
        dg.materialize(
            [letters], partition_key="a", resources={"lake": LakeIOManager(uri="unused")}
        )


def test_the_metadata_says_rows_days_version_and_columns(
    lake: Lake, materialize: Materialize
) -> None:
    result = materialize(up, first=DAYS[0], last=DAYS[4])
    metadata = result.asset_materializations_for_node("up")[0].metadata
    assert metadata["dagster/row_count"].value == 5
    assert metadata["days"].value == "2024-01-01 .. 2024-01-05"
    assert metadata["table_version"].value == lake.version("up")
    columns = metadata["dagster/column_schema"].value.columns
    assert [(column.name, column.type) for column in columns] == [
        ("value", "Int64"),
        ("date", "Date"),
    ]


def test_columns_that_the_asset_describes_are_not_hidden_by_those_written(
    materialize: Materialize,
) -> None:
    described = dg.TableSchema([dg.TableColumn("value", "Int64", description="a meaning")])

    @dg.asset(name="up", io_manager_key="lake", metadata={"dagster/column_schema": described})
    def documented() -> pl.DataFrame:
        return rows(DAYS[0])

    result = materialize(documented)
    metadata = result.asset_materializations_for_node("up")[0].metadata
    assert "dagster/column_schema" not in metadata
    assert metadata["dagster/row_count"].value == 1


def test_instants_survive_the_way_through_two_assets(lake: Lake, materialize: Materialize) -> None:
    instant = datetime(2024, 1, 1, 12, 34, 56, 789, tzinfo=UTC)

    @dg.asset(name="up", partitions_def=daily, backfill_policy=single_run, io_manager_key="lake")
    def instants() -> pl.DataFrame:
        return rows(DAYS[0]).with_columns(pl.lit(instant).dt.cast_time_unit("us").alias("at"))

    materialize(instants, down, first=DAYS[0])
    assert lake.scan("down").collect()["at"].to_list() == [instant]
