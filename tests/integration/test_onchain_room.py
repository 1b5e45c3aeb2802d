"""The room onchain in process, over a temporary lake and the sandbox world."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime

import dagster as dg
import polars as pl
import pytest
import requests

from cryptoml_assets.onchain import blocks as chain
from cryptoml_assets.onchain import network_metrics as network
from cryptoml_assets.onchain.assets import network_metrics, onchain_blocks
from cryptoml_assets.onchain.checks import (
    block_keys_are_unique,
    chain_is_continuous,
    finality_progresses,
    metric_keys_are_unique,
)
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import settings
from tests.sandbox_server import SandboxServer, sandbox

NOW = "2024-01-04T12:00:00Z"
DAYS = [date(2024, 1, n) for n in (2, 3, 4)]
ROOM = [
    onchain_blocks,
    network_metrics,
    block_keys_are_unique,
    chain_is_continuous,
    finality_progresses,
    metric_keys_are_unique,
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
            ROOM,
            selection=selection,
            resources={"lake": LakeIOManager(uri=lake.uri)},
            instance=instance,
            tags=tags,
            raise_on_error=not fails,
        )

    return run


def checks_of(result) -> dict[str, bool]:
    return {e.check_name: e.passed for e in result.get_asset_check_evaluations()}


def metadata_of(result, asset) -> dict:
    return result.asset_materializations_for_node(asset)[0].metadata


def test_a_range_run_stores_every_block_and_metric_and_a_second_changes_nothing(
    world, lake, materialize
):
    result = materialize()
    assert checks_of(result) == {
        "block_keys_are_unique": True,
        "chain_is_continuous": True,
        "finality_progresses": True,
        "metric_keys_are_unique": True,
    }
    blocks = lake.scan("onchain_blocks").collect()
    assert blocks.schema == chain.SCHEMA
    assert blocks.group_by("date").len().sort("date")["len"].to_list() == [144, 144, 73]
    assert blocks["number"].to_list() == list(range(144, 144 * 3 + 73))
    assert blocks["finality"].tail(3).to_list() == ["finalized", "safe", "latest"]
    assert blocks["source"].unique().to_list() == ["simulated"]
    metrics = lake.scan("network_metrics").collect()
    assert metrics.schema == network.SCHEMA
    assert metrics["day"].unique().sort().to_list() == DAYS[:2]  # today's is not published
    versions = {table: lake.version(table) for table in lake.tables()}
    assert materialize().success
    assert {table: lake.version(table) for table in lake.tables()} == versions


def test_what_a_run_reports(world, materialize):
    result = materialize()
    metadata = metadata_of(result, "onchain_blocks")
    assert metadata["dagster/row_count"].value == metadata["blocks_read"].value == 361
    assert (metadata["first_block"].value, metadata["last_block"].value) == (144, 504)
    assert metadata["plot"].value.startswith("![plot](data:image/png;base64,")
    assert metadata_of(result, "network_metrics")["plot"].value.startswith("![plot]")


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
    assert metadata_of(result, "onchain_blocks")["blocks_read"].value == 144 + 73
    assert lake.scan("onchain_blocks").collect().equals(complete)


def test_a_chain_that_left_the_stored_branch_is_refused_until_both_days_are_read(
    world, lake, materialize
):
    materialize(DAYS[0], DAYS[1], selection=[onchain_blocks])
    before = lake.scan("onchain_blocks").collect()
    answer = requests.post(
        f"{world.rpc_url}/reorg", json={"depth": 100, "past_finality": True}, timeout=10
    )
    assert answer.json()["first_replaced"] < 432  # before the midnight that starts the third day
    refused = materialize(DAYS[2], DAYS[2], selection=[onchain_blocks], fails=True)
    assert not refused.success
    assert "Materialise 2024-01-03 and 2024-01-04 in one run" in str(
        refused.failure_data_for_node("onchain_blocks").error
    )
    assert lake.scan("onchain_blocks").collect().equals(before)
    again = materialize(DAYS[1], DAYS[2])
    assert all(checks_of(again).values())
    after = lake.scan("onchain_blocks", DAYS[:2]).collect()
    assert after.height == before.height
    changed = before["hash"] != after["hash"]
    assert before.filter(changed)["number"].min() == answer.json()["first_replaced"]


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
