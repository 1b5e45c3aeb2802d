from __future__ import annotations

from datetime import UTC, datetime, timedelta

import orjson
import pytest

from cryptoml_sandbox.chain import Chain, ChainParameters
from cryptoml_sandbox.ethereum import BATCH_LIMIT, Node
from cryptoml_sandbox.ethereum_view import LOG_RANGE
from cryptoml_sandbox.ethereum_wire import TRANSFER_TOPIC
from cryptoml_sandbox.faults import FaultSchedule
from cryptoml_sandbox.settings import Faults

GENESIS = datetime(2024, 1, 1, tzinfo=UTC)
NOW = GENESIS + timedelta(days=30)


@pytest.fixture(scope="module")
def node():
    return Node(
        Chain(
            ChainParameters(
                seed=7, genesis=GENESIS, block_seconds=600, transactions_per_block=8, chain_id=5
            )
        ),
        FaultSchedule(Faults(), seed=7),
    )


def ask(node, method, *params):
    call = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
    return node.answer(orjson.dumps(call), NOW)


def block(node, which, *, full=False, by="Number"):
    return ask(node, f"eth_getBlockBy{by}", which, full)["result"]


@pytest.mark.parametrize(
    ("method", "result"),
    [
        ("eth_chainId", "0x5"),
        ("net_version", "5"),
        ("eth_blockNumber", hex(30 * 144)),
        ("eth_syncing", False),
        ("web3_clientVersion", "cryptoml-sandbox/1.0.0"),
    ],
)
def test_plain_questions(node, method, result):
    assert ask(node, method) == {"jsonrpc": "2.0", "id": 1, "result": result}


def test_tags_name_blocks(node):
    numbers = {
        tag: int(block(node, tag)["number"], 16)
        for tag in ("earliest", "finalized", "safe", "latest", "pending")
    }
    assert numbers == {
        "earliest": 0,
        "finalized": 4318,
        "safe": 4319,
        "latest": 4320,
        "pending": 4321,
    }


def test_a_block_by_number_and_by_hash_is_the_same(node):
    by_number = block(node, "0x10", full=True)
    by_hash = block(node, by_number["hash"], full=True, by="Hash")
    assert by_number == by_hash
    short = block(node, by_number["hash"], by="Hash")
    assert short["transactions"] == [t["hash"] for t in by_number["transactions"]]


def test_what_does_not_exist_is_null(node):
    assert block(node, "0xffffff") is None
    assert block(node, "0x" + "00" * 32, full=False, by="Hash") is None


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("eth_sendMoney", [], -32601),
        ("eth_getBlockByNumber", [], -32602),
        ("eth_getBlockByNumber", ["newest", False], -32602),
        ("eth_getBlockByNumber", [7, False], -32602),
        ("eth_getBlockByNumber", ["latest", "yes"], -32602),
        ("eth_getBlockByHash", ["0x12", False], -32602),
        ("eth_getLogs", [[]], -32602),
        ("eth_getLogs", [{"address": "0x12"}], -32602),
        ("eth_getLogs", [{"topics": "0x12"}], -32602),
        ("eth_getLogs", [{"fromBlock": "0x9", "toBlock": "0x1"}], -32602),
        ("eth_getLogs", [{"blockHash": "0x" + "00" * 32}], -32602),
        ("eth_getLogs", [{"fromBlock": "0x0", "toBlock": hex(LOG_RANGE)}], -32005),
    ],
)
def test_what_cannot_be_answered_has_its_error_code(node, method, params, code):
    assert ask(node, method, *params)["error"]["code"] == code


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", -32700),
        (b"[]", -32600),
        (b"7", -32600),
        (b'{"id": 1}', -32600),
        (b'{"method": "eth_chainId", "id": ' + b"[" * 300 + b"]" * 300 + b"}", -32600),
        (b"[" + b",".join([b"{}"] * (BATCH_LIMIT + 1)) + b"]", -32600),
    ],
)
def test_what_is_no_request_has_its_error_code(node, body, code):
    assert node.answer(body, NOW)["error"]["code"] == code


def test_a_batch_keeps_its_order_and_skips_notifications(node):
    batch = [
        {"id": "b", "method": "eth_chainId"},
        {"method": "eth_chainId"},
        {"id": "a", "method": "nonsense"},
        {"id": 3, "method": "net_version", "params": []},
    ]
    answers = node.answer(orjson.dumps(batch), NOW)
    assert [a["id"] for a in answers] == ["b", "a", 3]
    assert node.answer(b'[{"method": "eth_chainId"}]', NOW) is None


def logs(node, **wanted):
    return ask(node, "eth_getLogs", wanted)["result"]


def test_logs_are_the_token_transfers_of_the_blocks(node):
    events = logs(node, fromBlock="0x64", toBlock="0x77")
    assert events
    expected = []
    for number in range(0x64, 0x78):
        found = block(node, hex(number), full=True)
        expected += [
            (found["hash"], t["hash"], t["to"])
            for t in found["transactions"]
            if t["input"].startswith("0xa9059cbb")
        ]
    assert [(x["blockHash"], x["transactionHash"], x["address"]) for x in events] == expected
    assert all(log["topics"][0] == TRANSFER_TOPIC for log in events)


def test_logs_are_filtered_by_address_topic_and_block(node):
    everything = logs(node, fromBlock="0x64", toBlock="0x77")
    one = everything[3]
    by_address = logs(node, fromBlock="0x64", toBlock="0x77", address=[one["address"]])
    assert by_address == [x for x in everything if x["address"] == one["address"]]
    by_sender = logs(node, fromBlock="0x64", toBlock="0x77", topics=[None, one["topics"][1]])
    assert by_sender == [x for x in everything if x["topics"][1] == one["topics"][1]]
    by_block = logs(node, blockHash=one["blockHash"])
    assert by_block == [x for x in everything if x["blockHash"] == one["blockHash"]]
    assert logs(node, fromBlock="0x64", toBlock="0x77", topics=["0x" + "ab" * 32]) == []
    assert logs(node, fromBlock="0x64", toBlock="0x77", topics=[[]] * 4) == []


def test_the_bloom_filter_rules_no_log_out(node):
    for number in range(100):
        found = block(node, hex(number), full=True)
        with_logs = any(t["input"] != "0x" for t in found["transactions"])
        assert (int(found["logsBloom"], 16) == 0) == (not with_logs)
