"""A node that is behind, that lacks things, and whose chain is reorganised at a request."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import httpx
import orjson
import pytest

from cryptoml_sandbox.app import create_app
from cryptoml_sandbox.chain import Chain, ChainParameters
from cryptoml_sandbox.ethereum import Node
from cryptoml_sandbox.faults import FaultSchedule
from cryptoml_sandbox.settings import Faults, SandboxSettings
from tests.sandbox_server import sandbox

GENESIS = datetime(2024, 1, 1, tzinfo=UTC)
NOW = GENESIS + timedelta(days=2, seconds=30)  # the head is two blocks past midnight
PARAMETERS = ChainParameters(
    seed=7,
    genesis=GENESIS,
    block_seconds=12,
    transactions_per_block=8,
    finalized_lag=timedelta(seconds=768),
)
HEAD = 2 * 7200 + 2


def make(**faults):
    schedule = FaultSchedule(Faults.model_validate(faults), seed=7)
    return Node(Chain(PARAMETERS), schedule), schedule


def ask(node, method, *params, now=NOW):
    call = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
    return node.answer(orjson.dumps(call), now)


def block(node, which, *, full=False, now=NOW):
    return ask(node, "eth_getBlockByNumber", which, full, now=now)["result"]


def number(node, tag, now=NOW):
    return int(block(node, tag, now=now)["number"], 16)


def integers(receipt, *names):
    return [int(receipt[name], 16) for name in names]


def test_receipts_agree_with_their_block():
    node, _ = make()
    for height in range(100, 160):
        found = block(node, hex(height), full=True)
        receipts = ask(node, "eth_getBlockReceipts", hex(height))["result"]
        used, base_fee = 0, int(found["baseFeePerGas"], 16)
        for transaction, receipt in zip(found["transactions"], receipts, strict=True):
            for name in ("blockHash", "blockNumber", "transactionIndex", "from", "to", "type"):
                assert receipt[name] == transaction[name]
            assert receipt["transactionHash"] == transaction["hash"]
            gas, cumulative, price = integers(
                receipt, "gasUsed", "cumulativeGasUsed", "effectiveGasPrice"
            )
            used += gas
            assert cumulative == used
            assert gas <= int(transaction["gas"], 16)
            most, tip = integers(transaction, "maxFeePerGas", "maxPriorityFeePerGas")
            assert price == base_fee + min(tip, most - base_fee)
            assert price == int(transaction["gasPrice"], 16)
            assert receipt["status"] == "0x1"
            assert receipt["contractAddress"] is None
        assert used == int(found["gasUsed"], 16)
        logs = ask(node, "eth_getLogs", {"blockHash": found["hash"]})["result"]
        assert [log for receipt in receipts for log in receipt["logs"]] == logs
        for receipt in receipts:
            assert (int(receipt["logsBloom"], 16) == 0) == (not receipt["logs"])


def test_receipts_are_found_by_number_tag_and_hash():
    node, _ = make()
    found = block(node, "finalized")
    by_tag, by_number, by_hash = (
        ask(node, "eth_getBlockReceipts", which)["result"]
        for which in ("finalized", found["number"], found["hash"])
    )
    assert by_tag == by_number == by_hash
    assert [r["transactionHash"] for r in by_tag] == found["transactions"]


@pytest.mark.parametrize("which", [hex(HEAD + 1), "0x" + "ab" * 32, "pending"])
def test_a_block_that_is_not_there_has_no_receipts(which):
    assert ask(make()[0], "eth_getBlockReceipts", which)["result"] is None


@pytest.mark.parametrize("which", ["newest", 7, "0x" + "zz" * 32])
def test_receipts_of_nonsense_are_refused(which):
    assert ask(make()[0], "eth_getBlockReceipts", which)["error"]["code"] == -32602


def test_a_node_that_is_behind_sees_what_was():
    node, schedule = make(node_behind=10)
    sound, _ = make()
    earlier = NOW - timedelta(seconds=120)
    for tag in ("latest", "safe", "finalized"):
        assert number(node, tag) == number(sound, tag) - 10
        assert block(node, tag, full=True) == block(sound, tag, full=True, now=earlier)
    assert ask(node, "eth_blockNumber")["result"] == hex(HEAD - 10)
    assert block(node, hex(HEAD - 9)) is None
    assert ask(node, "eth_syncing")["result"] == {
        "startingBlock": "0x0",
        "currentBlock": hex(HEAD - 10),
        "highestBlock": hex(HEAD),
    }
    assert schedule.counts == {"node_behind": 9}
    node, _ = make(node_behind=10 * HEAD)
    assert number(node, "latest") == 0, "no further back than the genesis"


def test_a_node_lacks_methods_and_fields():
    lacks = ("eth_getBlockReceipts", "baseFeePerGas", "withdrawals")
    node, schedule = make(lacks=lacks)
    sound, _ = make()
    assert ask(node, "eth_getBlockReceipts", "latest")["error"]["code"] == -32601
    for full in (True, False):
        here, there = block(node, "latest", full=full), block(sound, "latest", full=full)
        assert set(there) - set(here) == {"baseFeePerGas", "withdrawals"}
        assert here == {name: there[name] for name in here}
    assert "baseFeePerGas" not in block(node, "pending")
    assert schedule.counts == {"lacks": 4}


def chain_of(node, first, last, now=NOW):
    return [block(node, hex(height), full=True, now=now) for height in range(first, last + 1)]


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 17, 64])
def test_at_its_request_the_chain_is_reorganised_once_and_across_midnight(depth):
    node, schedule = make(reorg_after={"requests": 71, "depth": depth})
    sound, _ = make()
    first, midnight = HEAD - 69, int((GENESIS + timedelta(days=2)).timestamp())
    before = chain_of(node, first, HEAD)
    assert before == chain_of(sound, first, HEAD)
    after = chain_of(node, first, HEAD)
    assert [a == b for a, b in zip(before, after, strict=True)] == [
        height <= HEAD - depth for height in range(first, HEAD + 1)
    ]
    assert not {a["hash"] for a in after[-depth:]} & {b["hash"] for b in before}
    crosses = int(after[-depth]["timestamp"], 16) < midnight
    assert crosses == (depth > 3)
    later = NOW + timedelta(minutes=20)
    grown = chain_of(node, first, HEAD + 100, later)
    assert grown[:70] == after
    for parent, child in pairwise(grown):
        assert child["parentHash"] == parent["hash"]
        assert len({t["hash"] for t in child["transactions"]}) == len(child["transactions"])
    assert schedule.counts == {"reorg_after": 1}


def test_faults_can_be_changed_and_their_requests_count_from_there():
    settings = {"block_seconds": 12, "faults": {"cut": 1.0, "limit": 1}}
    call = {"id": 1, "method": "eth_getBlockByNumber", "params": ["latest", False]}
    with sandbox(now=NOW, **settings) as world, httpx.Client(base_url=world.url) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            client.post("/rpc", json=call)
        sound = [client.post("/rpc", json=call).json() for _ in range(3)]
        world.suffer(reorg_after={"requests": 2, "depth": 1}, unavailable=1.0, limit=1)
        assert client.post("/rpc", json=call).status_code == 503
        one, other = (client.post("/rpc", json=call).json() for _ in range(2))
    assert one == sound[0] == sound[-1] != other


def test_within_a_batch_the_chain_is_one():
    node, _ = make(reorg_after={"requests": 2, "depth": 20})
    calls = [
        {"id": n, "method": "eth_getBlockByNumber", "params": [hex(n), False]}
        for n in range(HEAD - 30, HEAD + 1)
    ]
    batches = [node.answer(orjson.dumps(calls), NOW) for _ in range(3)]
    assert batches[0] != batches[1] == batches[2]
    for answers in batches:
        for parent, child in pairwise(answers):
            assert child["result"]["parentHash"] == parent["result"]["hash"]


def test_a_new_chain_may_be_shorter_until_its_next_block():
    node, _ = make(reorg_after={"requests": 2, "depth": 5, "shorter": 3})
    old = block(node, "latest")
    assert number(node, "latest") == HEAD - 3
    assert block(node, hex(HEAD)) is None
    assert number(node, "finalized") == HEAD - 64
    later = NOW + timedelta(seconds=12)
    grown = chain_of(node, HEAD - 6, HEAD + 1, later)
    assert grown[-2]["hash"] != old["hash"]
    assert all(child["parentHash"] == parent["hash"] for parent, child in pairwise(grown))


def test_finalized_blocks_are_replaced_only_when_asked_for():
    wanted = {"requests": 1, "depth": 100}
    with pytest.raises(ValueError, match="reorg_after: depth=100: at most 64"):
        make(reorg_after=wanted)[0].check(NOW)
    node, _ = make(reorg_after=wanted | {"past_finality": True})
    sound, _ = make()
    node.check(NOW)
    assert block(node, "finalized") != block(sound, "finalized")
    assert block(node, hex(HEAD - 100)) == block(sound, hex(HEAD - 100))


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        ({"lacks": ["baseFee"]}, "lacks: baseFee: .*eth_getBlockReceipts.*baseFeePerGas"),
        ({"reorg_after": {"requests": 5, "depth": 3, "shorter": 3}}, "less than depth"),
        (
            {"reorg_after": {"requests": 5, "depth": 10**6, "past_finality": True}},
            "at most 288 blocks",
        ),
    ],
)
def test_faults_no_node_can_have_are_refused(faults, said):
    now = GENESIS + timedelta(days=2)
    with pytest.raises(ValueError, match=said):
        create_app(SandboxSettings(now=now, faults=faults))


def test_a_reorganisation_on_demand_meets_a_lagging_node():
    settings = {"block_seconds": 12, "faults": {"node_behind": 4}}
    with sandbox(now=NOW, **settings) as world, httpx.Client() as client:
        answer = client.post(f"{world.rpc_url}/reorg", json={"depth": 64, "shorter": 2})
        assert answer.json() == {"first_replaced": HEAD - 4 - 63, "head": HEAD - 6}
        for wrong in ({"depth": 3, "shorter": 3}, {"depth": 0}, {"depth": True}, {"deep": 3}):
            refused = client.post(f"{world.rpc_url}/reorg", json=wrong)
            assert refused.status_code == 400
            assert "depth" in refused.json()["error"]


def test_a_refused_request_to_the_node_says_when_to_ask_again():
    faults = {"rate_limited": 1.0, "limit": 1, "retry_after_seconds": 2, "node_behind": 1}
    with sandbox(now=NOW, faults=faults) as world, httpx.Client() as client:
        call = {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId"}
        refused, answered = (client.post(world.rpc_url, json=call) for _ in range(2))
        counts = client.get(f"{world.url}/faults").json()["counts"]
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "2")
    assert answered.json()["result"] == "0x1"
    assert counts == {"rate_limited": 1, "node_behind": 1}
