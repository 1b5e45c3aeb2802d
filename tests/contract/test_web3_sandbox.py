"""A real, unmodified web3 client talks to the sandbox's chain."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
import requests
from web3 import HTTPProvider, Web3
from web3.exceptions import BlockNotFound, MethodUnavailable, Web3RPCError

from tests.sandbox_server import SandboxServer, sandbox

NOW = "2024-02-01T00:00:00Z"
HEAD = 31 * 144


@pytest.fixture(scope="module")
def world() -> Iterator[SandboxServer]:
    with sandbox(now=NOW, transactions_per_block=8) as server:
        yield server


@pytest.fixture
def w3(world) -> Iterator[Web3]:
    with requests.Session() as session:
        yield Web3(HTTPProvider(world.rpc_url, session=session))


def test_the_node_introduces_itself(w3):
    assert w3.is_connected()
    assert w3.eth.chain_id == 1
    assert w3.net.version == "1"
    assert w3.eth.block_number == HEAD
    assert w3.eth.syncing is False
    assert w3.client_version.startswith("cryptoml-sandbox/")


def test_a_block_with_full_transactions(w3):
    block = w3.eth.get_block(HEAD, full_transactions=True)
    assert block.number == HEAD
    assert block.parentHash == w3.eth.get_block(HEAD - 1).hash
    assert block.gasLimit == 30_000_000
    assert len(block.withdrawals) > 0
    transaction = block.transactions[0]
    assert transaction.type == 2
    assert transaction.blockHash == block.hash
    assert transaction["from"] == Web3.to_checksum_address(transaction["from"])
    assert sum(t.gas for t in block.transactions) == block.gasUsed
    assert all(t.maxFeePerGas >= t.gasPrice > block.baseFeePerGas for t in block.transactions)


def test_a_block_without_full_transactions_has_their_hashes(w3):
    full = w3.eth.get_block(HEAD, full_transactions=True)
    assert w3.eth.get_block(HEAD).transactions == [t.hash for t in full.transactions]
    assert w3.eth.get_block(full.hash, full_transactions=True) == full


def test_the_tags(w3):
    tags = ("earliest", "finalized", "safe", "latest", "pending")
    numbers = [w3.eth.get_block(tag).number for tag in tags]
    assert numbers == [0, HEAD - 2, HEAD - 1, HEAD, HEAD + 1]


@pytest.mark.parametrize("full", [False, True])
def test_batches(w3, full):
    with w3.batch_requests() as batch:
        for number in range(100, 120):
            batch.add(w3.eth.get_block(number, full_transactions=full))
        blocks = batch.execute()
    assert [block.number for block in blocks] == list(range(100, 120))
    assert blocks[7] == w3.eth.get_block(107, full_transactions=full)
    for parent, child in pairwise(blocks):
        assert child.parentHash == parent.hash


def test_receipts_of_a_block(w3):
    block = w3.eth.get_block(HEAD, full_transactions=True)
    receipts = w3.eth.get_block_receipts(HEAD)
    assert [r.transactionHash for r in receipts] == [t.hash for t in block.transactions]
    assert sum(r.gasUsed for r in receipts) == receipts[-1].cumulativeGasUsed == block.gasUsed
    for receipt, sent in zip(receipts, block.transactions, strict=True):
        tip = min(sent.maxPriorityFeePerGas, sent.maxFeePerGas - block.baseFeePerGas)
        assert receipt.effectiveGasPrice == block.baseFeePerGas + tip
        assert receipt["from"] == sent["from"]
    logs = [log for receipt in receipts for log in receipt.logs]
    assert logs == w3.eth.get_logs({"fromBlock": HEAD, "toBlock": HEAD})


def test_a_node_that_lacks_receipts_and_fields(w3):
    lacks = ["eth_getBlockReceipts", "baseFeePerGas", "withdrawals"]
    with sandbox(now=NOW, faults={"lacks": lacks, "node_behind": 3}) as server:
        w3.provider.endpoint_uri = server.rpc_url
        with pytest.raises(MethodUnavailable):
            w3.eth.get_block_receipts("latest")
        block = w3.eth.get_block("latest")
        assert block.number == HEAD - 3
        assert w3.eth.syncing.highestBlock == HEAD
    assert "baseFeePerGas" not in block
    assert "withdrawals" not in block


def test_a_reorganisation_comes_between_two_requests(w3):
    faults = {"reorg_after": {"requests": 4, "depth": 64}}
    with sandbox(now=NOW, block_seconds=12, faults=faults) as server:
        w3.provider.endpoint_uri = server.rpc_url
        head = w3.eth.get_block("latest")
        parent = w3.eth.get_block(head.number - 63)
        ancestor = w3.eth.get_block(head.number - 64)
        assert w3.eth.get_block(head.number).hash != head.hash
        assert w3.eth.get_block(parent.number).hash != parent.hash
        assert w3.eth.get_block(parent.number).parentHash == ancestor.hash


def test_logs(w3):
    logs = w3.eth.get_logs({"fromBlock": 100, "toBlock": 110})
    assert logs
    one = logs[0]
    same = w3.eth.get_logs(
        {"fromBlock": 100, "toBlock": 110, "address": one.address, "topics": [one.topics[0]]}
    )
    assert same == [log for log in logs if log.address == one.address]
    assert w3.eth.get_logs({"blockHash": one.blockHash})[0] == one


def test_errors_arrive_as_web3_errors(w3):
    with pytest.raises(BlockNotFound):
        w3.eth.get_block(HEAD + 100)
    with pytest.raises(Web3RPCError, match="block range too large"):
        w3.eth.get_logs({"fromBlock": 0, "toBlock": "latest"})
    with pytest.raises(MethodUnavailable):
        _ = w3.eth.accounts


def test_a_reorganisation_replaces_the_newest_blocks(w3):
    with sandbox(now=NOW, block_seconds=60) as server:
        w3.provider.endpoint_uri = server.rpc_url
        head = w3.eth.block_number
        before = [w3.eth.get_block(head - back) for back in range(6)]
        answer = requests.post(f"{server.rpc_url}/reorg", json={"depth": 5}, timeout=10)
        assert answer.json() == {"first_replaced": head - 4, "head": head}
        after = [w3.eth.get_block(head - back) for back in range(6)]
    assert [a.hash == b.hash for a, b in zip(after, before, strict=True)] == [False] * 5 + [True]
    assert after[4].parentHash == before[5].hash


@pytest.mark.parametrize("body", [b"{", b"[]", b"{}", b'{"depth": "3"}', b'{"depth": 10000}'])
def test_an_impossible_reorganisation_is_refused(world, body):
    answer = requests.post(f"{world.rpc_url}/reorg", data=body, timeout=10)
    assert answer.status_code == 400
    assert "depth" in answer.json()["error"]


def test_answers_say_that_they_are_simulated(world):
    call = {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId"}
    answer = requests.post(world.rpc_url, json=call, timeout=10)
    assert answer.headers["X-Cryptoml-Source"] == "simulated"
