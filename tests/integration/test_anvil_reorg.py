"""Blocks of a real node, which reorganises its chain for real."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from cryptoml_assets.onchain.blocks import SCHEMA
from cryptoml_assets.onchain.ingest import ingest_blocks
from cryptoml_assets.onchain.node import open_node
from cryptoml_assets.onchain.stored import TABLE
from cryptoml_assets.resources.lake import Lake
from tests.anvil import CHAIN_ID, Anvil, anvil

GENESIS = datetime(2024, 3, 1, 12, tzinfo=UTC)
DAYS = [GENESIS.date() + timedelta(days=n) for n in range(4)]
PACE = 600


@pytest.fixture
def node() -> Iterator[Anvil]:
    with anvil(int(GENESIS.timestamp())) as running:
        running.mine(90, PACE)  # over the first midnight
        yield running


@pytest.fixture
def lake(tmp_path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def bring(node, lake, days=DAYS):
    with open_node(
        node.url,
        work=TABLE,
        source="simulated",
        timeout=timedelta(seconds=20),
        retry_delays=(0.1,),
    ) as opened:
        return ingest_blocks(opened, lake, days, chain_id=CHAIN_ID, receipts=True)


def content(lake):
    return lake.scan(TABLE).select(SCHEMA.names()).sort("number").collect()


def fresh(node, tmp_path):
    other = Lake(str(tmp_path / "fresh"))
    bring(node, other)
    return content(other)


def test_every_block_is_stored_as_the_node_has_it(node, lake):
    bring(node, lake)
    rows = content(lake)
    assert rows["number"].to_list() == list(range(node.head + 1))
    assert rows["date"].unique().sort().to_list() == DAYS[:2]
    for row in rows.tail(90).iter_rows(named=True):
        block = node.block(row["number"], full=True)
        paid = [
            int(receipt["effectiveGasPrice"], 16) * int(receipt["gasUsed"], 16)
            for receipt in node.call("eth_getBlockReceipts", hex(row["number"]))
        ]
        assert (row["hash"], row["parent_hash"]) == (block["hash"], block["parentHash"])
        assert row["timestamp"].timestamp() == int(block["timestamp"], 16)
        assert row["transaction_count"] == len(block["transactions"]) == len(paid)
        assert row["fees_wei"] == sum(paid)
        assert row["burnt_wei"] == int(block["gasUsed"], 16) * int(block["baseFeePerGas"], 16)


@pytest.mark.parametrize("depth", [1, 5, 20, 64])
def test_a_reorganisation_leaves_what_a_fresh_run_finds(node, lake, tmp_path, depth):
    bring(node, lake)
    before = content(lake)
    node.reorganise(depth)
    report = bring(node, lake, DAYS[1:])
    first = before["number"].max() - depth + 1
    (reorg,) = report.reorgs
    assert (reorg.first_replaced, reorg.depth, report.blocks_read) == (first, depth, depth)
    assert reorg.new_hash == node.block(first)["hash"]
    assert content(lake).equals(fresh(node, tmp_path))
    assert content(lake).head(first).equals(before.head(first))


def test_two_reorganisations_and_growth(node, lake, tmp_path):
    bring(node, lake, DAYS[:2])
    for depth in (3, 70):
        node.reorganise(depth)
        node.mine(40, PACE)
        bring(node, lake, DAYS[1:3])
    bring(node, lake)
    assert content(lake).equals(fresh(node, tmp_path))
    assert bring(node, lake).blocks_read == 0


def test_a_node_set_back_to_a_snapshot(node, lake, tmp_path):
    snapshot = node.call("evm_snapshot")
    node.mine(30, PACE)
    bring(node, lake)
    node.call("evm_revert", snapshot)
    node.mine(20, PACE // 2)  # another branch, of another pace and shorter
    assert bring(node, lake).reorgs[0].blocks_replaced == 30
    assert content(lake)["number"].max() == node.head
    node.mine(20, PACE // 2)
    bring(node, lake)
    assert content(lake).equals(fresh(node, tmp_path))
