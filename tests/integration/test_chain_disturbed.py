"""Blocks from the sandbox: reorganisations of every kind, a node that fails or lacks things."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import requests

from cryptoml_assets.onchain.blocks import SCHEMA
from cryptoml_assets.onchain.ingest import ingest_blocks
from cryptoml_assets.onchain.node import open_node
from cryptoml_assets.onchain.stored import TABLE
from cryptoml_assets.resources.lake import Lake
from tests.sandbox_server import SandboxServer, sandbox

MIDNIGHT = datetime(2024, 1, 2, tzinfo=UTC)
DAYS = [date(2024, 1, 1), date(2024, 1, 2)]
PACE, PER_DAY = 60, 1440
#: Blocks since the midnight that begins the second day.
SINCE = 20
FINAL = {"finality_seconds": 64 * PACE, "safe_seconds": 32 * PACE}


@dataclass
class Asked:
    """A node that counts the blocks it is asked for in full."""

    node: Any
    full: list[int] = field(default_factory=list)

    def ask(self, calls):
        whole = [call for call in calls if call[0] == "eth_getBlockByNumber" and call[1][1]]
        self.full += [int(params[0], 16) for _, params in whole]
        return self.node.ask(calls)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.node, name)


@pytest.fixture
def world() -> Iterator[SandboxServer]:
    now = MIDNIGHT + timedelta(seconds=PACE * SINCE)
    genesis = MIDNIGHT - timedelta(days=1)
    with sandbox(
        now=now, genesis=genesis, block_seconds=PACE, transactions_per_block=1, **FINAL
    ) as server:
        yield server


@pytest.fixture
def lake(tmp_path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def bring(world, lake, days=DAYS, delays=(0.01, 0.01, 0.01)):
    with open_node(
        world.rpc_url,
        work=TABLE,
        source="simulated",
        timeout=timedelta(seconds=10),
        retry_delays=delays,
    ) as node:
        asked = Asked(node)
        report = ingest_blocks(asked, lake, days, chain_id=1, receipts=True)
    return report, asked.full


def content(lake):
    return lake.scan(TABLE).select(SCHEMA.names()).sort("number").collect()


def reorganise(world, depth, **more):
    asked = {"depth": depth, "past_finality": True} | more
    answer = requests.post(f"{world.rpc_url}/reorg", json=asked, timeout=10)
    return answer.json()["first_replaced"]


def fresh(world, tmp_path, name="fresh"):
    other = Lake(str(tmp_path / name))
    bring(world, other)
    return content(other)


def test_reorganisations_of_every_depth_one_after_another(world, lake, tmp_path):
    bring(world, lake)
    version = lake.version(TABLE)
    for turn, depth in enumerate((1, 2, SINCE, SINCE + 1, SINCE + 2, 63, 64, 200)):
        first = reorganise(world, depth)
        report, full = bring(world, lake, DAYS[1:])
        assert full == list(range(first, PER_DAY + SINCE + 1))
        (reorg,) = report.reorgs
        assert (reorg.first_replaced, reorg.depth) == (first, depth)
        across = first < PER_DAY
        assert reorg.days == report.stored.days_changed == tuple(DAYS if across else DAYS[1:])
        assert lake.version(TABLE) == version + turn + 1
    assert content(lake).equals(fresh(world, tmp_path))
    assert bring(world, lake)[1] == []


def test_a_branch_that_is_shorter_at_first(world, lake, tmp_path):
    bring(world, lake)
    reorganise(world, 40, shorter=30)
    report, _ = bring(world, lake, DAYS[1:])
    assert report.reorgs[0].depth == 40
    assert content(lake).equals(fresh(world, tmp_path))


@pytest.mark.parametrize("requests", [2, 5, 9, 13])
def test_a_reorganisation_during_a_run(world, lake, tmp_path, requests):
    bring(world, lake, DAYS[:1])
    world.suffer(reorg_after={"requests": requests, "depth": 50})
    world.move_to(MIDNIGHT + timedelta(seconds=PACE * 400))
    bring(world, lake, DAYS[1:])
    world.suffer()
    bring(world, lake, DAYS[1:])
    assert content(lake).equals(fresh(world, tmp_path))


def test_a_node_that_is_behind_and_catches_up(world, lake, tmp_path):
    world.suffer(node_behind=100)
    bring(world, lake)
    assert content(lake)["number"].max() == PER_DAY + SINCE - 100
    world.suffer()
    bring(world, lake)
    before = content(lake)
    world.suffer(node_behind=30)
    bring(world, lake)
    world.suffer()
    bring(world, lake)
    assert content(lake).equals(before)
    assert before.equals(fresh(world, tmp_path))


def test_fees_and_fields_a_node_lacks_are_null(lake):
    lacks = ("eth_getBlockReceipts", "baseFeePerGas", "withdrawals")
    with sandbox(now=MIDNIGHT, faults={"lacks": lacks}) as poor:
        bring(poor, lake)
    nulls = {name for name, column in content(lake).to_dict().items() if column.null_count()}
    assert nulls == {
        *("fees_wei", "base_fee_per_gas", "burnt_wei", "withdrawal_count", "withdrawn_gwei"),
        "total_difficulty",
    }


@pytest.mark.parametrize("fault", ["rate_limited", "unavailable", "truncated", "cut"])
def test_a_node_that_often_fails(world, lake, tmp_path, fault):
    world.suffer(**{fault: 0.3, "retry_after_seconds": 0})
    bring(world, lake, delays=(0.0,) * 12)
    world.suffer()
    assert content(lake).equals(fresh(world, tmp_path))
