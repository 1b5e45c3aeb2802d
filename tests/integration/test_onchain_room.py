"""The asset of blocks in Dagster, over a temporary lake and the sandbox world."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime

import dagster as dg
import polars as pl
import pytest
import requests
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.loader import LoadingContextForTest

from cryptoml_assets.onchain import blocks as chain
from cryptoml_assets.onchain.assets import onchain_blocks
from cryptoml_assets.onchain.checks import (
    block_keys_are_unique,
    block_schema_holds,
    block_times_rise,
    chain_is_continuous,
    finality_progresses,
)
from cryptoml_assets.partitions import daily
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import settings
from tests.sandbox_server import SandboxServer, sandbox

NOW = "2024-01-04T12:00:00Z"
DAYS = [date(2024, 1, n) for n in (2, 3, 4)]


@dg.asset(
    partitions_def=daily,
    backfill_policy=dg.BackfillPolicy.single_run(),
    deps=[onchain_blocks],
    code_version="1",
)
def downstream() -> None:
    """Stands for all that reads blocks by days."""


ASSETS = [onchain_blocks, downstream]
CHECKS = [
    block_keys_are_unique,
    block_schema_holds,
    block_times_rise,
    chain_is_continuous,
    finality_progresses,
]


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def lake(tmp_path) -> Lake:
    return Lake(str(tmp_path / "lake"))


@pytest.fixture
def world(monkeypatch) -> Iterator[SandboxServer]:
    with sandbox(now=NOW, transactions_per_block=6) as server:
        configure(monkeypatch, SANDBOX_URL=server.url, NOW=NOW, RETRY_DELAYS="0.01")
        yield server


def configure(monkeypatch, **variables):
    for name, value in variables.items():
        monkeypatch.setenv(f"CRYPTOML_{name}", value)
    settings.cache_clear()


@pytest.fixture
def materialize(lake, instance):
    def run(first=DAYS[0], last=DAYS[-1], *, selection=None, fails=False):
        tags = {
            "dagster/asset_partition_range_start": first.isoformat(),
            "dagster/asset_partition_range_end": last.isoformat(),
        }
        return dg.materialize(
            [*ASSETS, *CHECKS],
            selection=selection,
            resources={"lake": LakeIOManager(uri=lake.uri)},
            instance=instance,
            tags=tags,
            raise_on_error=not fails,
        )

    return run


@pytest.fixture
def stale_days(instance, lake):
    """The days on which what is downstream is stale."""

    def of() -> list[date]:
        resources = {"lake": LakeIOManager(uri=lake.uri)}
        graph = dg.Definitions(assets=ASSETS, resources=resources).resolve_asset_graph()
        resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
        status = {day: resolver.get_status(downstream.key, day.isoformat()) for day in DAYS}
        return [day for day, found in status.items() if found.name == "STALE"]

    return of


def checks_of(result) -> dict[str, bool]:
    return {e.check_name: e.passed for e in result.get_asset_check_evaluations()}


def metadata_of(result, asset="onchain_blocks") -> dict:
    """What a run tells of itself, with the first of its days."""
    told = (event.metadata for event in result.asset_materializations_for_node(asset))
    return next(metadata for metadata in told if "blocks_read" in metadata)


def reorganise(world, depth):
    """Replace the newest ``depth`` blocks; the number of the first."""
    url, asked = f"{world.rpc_url}/reorg", {"depth": depth, "past_finality": True}
    return requests.post(url, json=asked, timeout=10).json()["first_replaced"]


def observed(result) -> dict[date, dg.AssetObservation]:
    """The observations of a run, by day."""
    found = [
        event.asset_observation_data.asset_observation
        for event in result.all_events
        if event.is_asset_observation
    ]
    return {date.fromisoformat(each.partition): each for each in found}


def test_a_range_run_stores_every_block_and_a_second_changes_nothing(world, lake, materialize):
    result = materialize()
    assert checks_of(result) == {
        "block_keys_are_unique": True,
        "block_schema_holds": True,
        "block_times_rise": True,
        "chain_is_continuous": True,
        "finality_progresses": True,
    }
    blocks = lake.scan("onchain_blocks").collect()
    assert blocks.schema == chain.SCHEMA
    assert blocks.group_by("date").len().sort("date")["len"].to_list() == [144, 144, 73]
    assert blocks["number"].to_list() == list(range(144, 144 * 3 + 73))
    assert blocks["finality"].tail(3).to_list() == ["finalized", "safe", "latest"]
    assert blocks["source"].unique().to_list() == ["simulated"]
    assert (blocks["fees_wei"] > blocks["burnt_wei"]).all()
    version = lake.version("onchain_blocks")
    assert metadata_of(materialize())["blocks_read"].value == 0
    assert lake.version("onchain_blocks") == version


def test_what_a_run_reports(world, materialize, instance):
    result = materialize()
    metadata = metadata_of(result)
    assert metadata["dagster/row_count"].value == metadata["blocks_read"].value == 361
    assert metadata["finality"].value == {"finalized": 359, "safe": 1, "latest": 1}
    assert metadata["reorganisations"].value == "none"
    assert metadata["plot"].value.startswith("![plot](data:image/png;base64,")
    again = metadata_of(materialize())
    assert (again["blocks_read"].value, again["blocks_kept"].value) == (0, 361)
    assert again["days_changed"].value == "none"


def test_each_day_says_what_it_holds(world, materialize):
    result = materialize()
    told = [
        event.step_materialization_data.materialization
        for event in result.get_asset_materialization_events()
        if event.asset_key == onchain_blocks.key
    ]
    names = ("blocks", "first_block", "last_block", "finalized", "latest")
    assert {
        each.partition: tuple(each.metadata[name].value for name in names)
        for each in told
        if "blocks" in each.metadata
    } == {
        "2024-01-02": (144, 144, 287, 144, 0),
        "2024-01-03": (144, 288, 431, 144, 0),
        "2024-01-04": (73, 432, 504, 71, 1),
    }


def test_days_one_by_one_give_the_same_chain_as_a_range(world, lake, materialize, tmp_path):
    for day in DAYS:
        result = materialize(day, day, selection=[onchain_blocks])
        assert result.success
    one_by_one = lake.scan("onchain_blocks").collect()
    materialize(selection=[onchain_blocks])
    assert lake.scan("onchain_blocks").collect().equals(one_by_one)


def test_block_days_reads_the_newest_days_and_keeps_what_older_ones_have(
    world, lake, materialize, monkeypatch
):
    configure(monkeypatch, BLOCK_DAYS="1")
    materialize(selection=[onchain_blocks])
    assert lake.scan("onchain_blocks").collect()["date"].unique().to_list() == [DAYS[-1]]
    configure(monkeypatch, BLOCK_DAYS="0")
    materialize(selection=[onchain_blocks])
    complete = lake.scan("onchain_blocks").collect()
    configure(monkeypatch, BLOCK_DAYS="2")
    result = materialize(selection=[onchain_blocks])
    assert metadata_of(result)["blocks_kept"].value == 144 + 73
    assert lake.scan("onchain_blocks").collect().equals(complete)


def test_a_reorganisation_across_midnight_makes_both_days_stale_and_is_observed(
    world, lake, materialize, stale_days, instance
):
    materialize()
    assert stale_days() == []
    before = lake.scan("onchain_blocks").collect()
    first = reorganise(world, 100)
    assert first < 432  # before the midnight that starts the third day
    result = materialize(DAYS[2], DAYS[2], selection=dg.AssetSelection.assets(onchain_blocks))
    after = lake.scan("onchain_blocks").collect()
    changed = before["hash"] != after["hash"]
    assert before.filter(changed)["number"].to_list() == list(range(first, 505))
    assert all(checks_of(result).values())
    assert stale_days() == DAYS[1:]
    told = observed(result)
    assert list(told) == DAYS[1:]
    for observation in told.values():
        assert observation.description.startswith("Reorganisation: 100 blocks")
        assert observation.metadata["first_replaced"].value == first
        assert observation.metadata["depth"].value == 100
        assert observation.metadata["old_hash"].value in set(before["hash"])
        assert observation.metadata["new_hash"].value in set(after["hash"])
        assert observation.metadata["days"].value == "2024-01-03, 2024-01-04"
    assert f"| {first} | 100 |" in metadata_of(result)["reorganisations"].value
    materialize(DAYS[1], DAYS[2], selection=[downstream])
    assert stale_days() == []
    materialize(selection=[onchain_blocks])
    assert stale_days() == []


def test_a_reorganisation_within_a_range_makes_its_days_stale_and_no_other(
    world, materialize, stale_days
):
    materialize()
    reorganise(world, 100)
    told = observed(materialize(selection=[onchain_blocks]))
    assert list(told) == stale_days() == DAYS[1:]


def test_new_blocks_make_their_day_stale_and_finality_that_of_the_day_before(
    world, lake, materialize, stale_days
):
    world.move_to(datetime(2024, 1, 4, 0, 2, tzinfo=UTC))
    materialize()
    world.move_to(datetime(2024, 1, 4, 6, tzinfo=UTC))
    materialize(DAYS[2], DAYS[2], selection=[onchain_blocks])
    assert stale_days() == DAYS[1:]
    assert lake.scan("onchain_blocks", DAYS[1:2]).collect()["finality"].unique().to_list() == [
        "finalized"
    ]


def test_a_run_that_fails_after_a_reorganisation_has_told_of_it(
    world, materialize, stale_days, monkeypatch
):
    materialize()
    reorganise(world, 300)

    def fail(*_):
        message = "as if the node went away"
        raise RuntimeError(message)

    with monkeypatch.context() as patched:
        patched.setattr("cryptoml_assets.onchain.ingest._whole_days", fail)
        assert not materialize(DAYS[2], DAYS[2], selection=[onchain_blocks], fails=True).success
    assert stale_days() == DAYS[:2]
    materialize(DAYS[2], DAYS[2], selection=[onchain_blocks])
    assert stale_days() == DAYS


def test_a_killed_run_is_made_up_for_by_the_next(world, lake, materialize, stale_days):
    """Its rows are in the lake, and Dagster was never told of them."""
    materialize()
    stored = lake.scan("onchain_blocks", DAYS[1:2]).collect()
    lake.replace_days("onchain_blocks", stored.head(100), DAYS[1:2])
    lake.replace_days("onchain_blocks", stored, DAYS[1:2])
    materialize(DAYS[2], DAYS[2], selection=[onchain_blocks])
    assert stale_days() == DAYS[1:2]


def test_a_node_that_is_behind_erases_nothing(world, lake, materialize):
    materialize(selection=[onchain_blocks])
    before = lake.scan("onchain_blocks").collect()
    world.move_to(datetime(2024, 1, 3, 6, tzinfo=UTC))
    failed = materialize(selection=[onchain_blocks], fails=True)
    assert "it is behind" in str(failed.failure_data_for_node("onchain_blocks").error)
    assert lake.scan("onchain_blocks").collect().equals(before)


def test_a_broken_chain_in_the_lake_blocks_what_follows(world, lake, materialize):
    materialize(DAYS[0], DAYS[0], selection=[onchain_blocks])
    stored = lake.scan("onchain_blocks").collect()
    torn = stored.with_columns(
        parent_hash=pl.when(pl.col("number") == 200).then(pl.lit("0x0")).otherwise("parent_hash")
    )
    lake.replace_days("onchain_blocks", pl.concat([torn, torn.head(1)]), DAYS[:1])

    checks = dg.AssetSelection.checks(chain_is_continuous, block_keys_are_unique)
    result = materialize(DAYS[0], DAYS[0], selection=checks, fails=True)
    assert not result.success
    assert checks_of(result) == {"chain_is_continuous": False, "block_keys_are_unique": False}
    (link,) = [e for e in result.get_asset_check_evaluations() if e.check_name.startswith("chain")]
    assert "| 200 |" in link.metadata["broken"].value
    assert link.blocking
    assert link.severity == dg.AssetCheckSeverity.ERROR


def test_a_day_left_unfinished_is_a_warning(world, lake, materialize):
    materialize(selection=[onchain_blocks])
    stored = lake.scan("onchain_blocks", DAYS[:1]).collect()
    lake.replace_days("onchain_blocks", stored.head(100), DAYS[:1])
    result = materialize(DAYS[1], DAYS[1])
    assert result.success
    (link,) = [e for e in result.get_asset_check_evaluations() if e.check_name.startswith("chain")]
    assert (link.passed, link.severity) == (False, dg.AssetCheckSeverity.WARN)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"CHAIN_ID": "5"}, "is on chain 1, but CRYPTOML_CHAIN_ID=5"),
        ({"CHAIN_URL": "http://127.0.0.1:9"}, "POST http://127.0.0.1:9: onchain_blocks 2024-01-0"),
    ],
)
@pytest.mark.usefixtures("world")
def test_a_wrong_node_fails_by_name_and_leaves_the_lake_alone(
    lake, materialize, monkeypatch, wrong, error
):
    materialize(DAYS[0], DAYS[0], selection=[onchain_blocks])
    version = lake.version("onchain_blocks")
    configure(monkeypatch, **wrong)
    failed = materialize(selection=[onchain_blocks], fails=True)
    assert error in str(failed.failure_data_for_node("onchain_blocks").error)
    assert lake.version("onchain_blocks") == version


def test_overdue_finality_is_a_warning(lake, materialize, monkeypatch):
    with sandbox(now=NOW, finality_seconds=7200) as server:
        configure(monkeypatch, SANDBOX_URL=server.url, NOW=NOW, RETRY_DELAYS="0.01")
        result = materialize(selection=dg.AssetSelection.assets(onchain_blocks))
    (finality,) = [
        e for e in result.get_asset_check_evaluations() if e.check_name == "finality_progresses"
    ]
    assert (finality.passed, finality.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert not finality.blocking
    assert finality.metadata["overdue"].value == 8
