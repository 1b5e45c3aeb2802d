"""Whatever the order of writes, the lake holds what a plain dictionary of days would."""

import tempfile
from datetime import date, timedelta

import dagster as dg
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.resources.lake import Lake

DAYS = [date(2024, 1, 1) + timedelta(days=n) for n in range(6)]
SCHEMA = {"value": pl.Int64, "date": pl.Date}

day_rows = st.lists(st.one_of(st.none(), st.integers(-3, 3)), max_size=3)
#: One write: the days it replaces and the rows it brings for each.
writes = st.dictionaries(st.sampled_from(DAYS), day_rows, max_size=4)


def frame(content: dict[date, list[int | None]]) -> pl.DataFrame:
    rows = [(value, day) for day, values in content.items() for value in values]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def read(lake: Lake, days: list[date] | None = None) -> dict[date, list[int | None]]:
    rows = lake.scan("t", days).collect()
    return {key[0]: part["value"].to_list() for key, part in rows.group_by("date")}


@settings(max_examples=25, deadline=None)
@given(st.lists(writes, min_size=1, max_size=6), st.lists(st.sampled_from(DAYS), unique=True))
def test_any_sequence_of_writes_equals_a_dictionary_of_days(
    sequence: list[dict[date, list[int | None]]], asked: list[date]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(folder)
        model: dict[date, list[int | None]] = {}
        version = -1
        for write in sequence:
            changes = version < 0 or any(
                sorted(map(str, model.get(day, []))) != sorted(map(str, values))
                for day, values in write.items()
            )
            committed = lake.replace_days("t", frame(write), list(write))
            assert committed == version + int(changes)
            version = committed
            if changes:
                model |= write
            kept = {day: values for day, values in model.items() if values}
            assert {d: sorted(map(str, v)) for d, v in read(lake).items()} == {
                d: sorted(map(str, v)) for d, v in kept.items()
            }
        assert set(read(lake, asked)) == {day for day in asked if model.get(day)}


daily = dg.DailyPartitionsDefinition(start_date="2024-01-01", end_date="2024-01-07")


@dg.asset(
    partitions_def=daily, backfill_policy=dg.BackfillPolicy.single_run(), io_manager_key="lake"
)
def t(context: dg.AssetExecutionContext) -> pl.DataFrame:
    days = [date.fromisoformat(key) for key in context.partition_keys]
    return frame({day: [day.day, None] for day in days if day.day % 3})


def run(folder: str, first: date, last: date) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        dg.materialize(
            [t],
            tags={
                "dagster/asset_partition_range_start": str(first),
                "dagster/asset_partition_range_end": str(last),
            },
            instance=instance,
            resources={"lake": LakeIOManager(uri=folder)},
        )


@settings(max_examples=3, deadline=None)
@given(st.permutations(DAYS))
def test_a_range_run_equals_single_runs_in_any_order(order: list[date]) -> None:
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as many:
        run(one, DAYS[0], DAYS[-1])
        for day in order:
            run(many, day, day)
        expected = Lake(one).scan("t").collect()
        assert expected.height == 8
        assert Lake(many).scan("t").collect().equals(expected)
