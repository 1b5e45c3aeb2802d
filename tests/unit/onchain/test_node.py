"""The node client against real servers: the sandbox with faults, and one that misbehaves."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from cryptoml_assets.errors import UnusableAnswerError, WorldUnreachableError
from cryptoml_assets.onchain.blocks import read_blocks
from cryptoml_assets.onchain.node import open_node
from tests.sandbox_server import free_port, sandbox, serve

NOW = "2024-01-03T00:00:00Z"
DAY = datetime(2024, 1, 2, tzinfo=UTC)
CALLS = [("eth_blockNumber", []), ("eth_chainId", [])]


def client(address, *, delays=(0.0, 0.0), timeout=5.0):
    return open_node(
        address,
        work="onchain_blocks 2024-01-02",
        source="live",
        timeout=timedelta(seconds=timeout),
        retry_delays=delays,
    )


def test_answers_come_in_the_order_of_the_calls():
    with sandbox(now=NOW) as world, client(world.rpc_url) as node:
        assert [a["result"] for a in node.ask(CALLS)] == [hex(288), "0x1"]
        assert node.source == "simulated"


def test_a_node_that_declares_no_source_has_the_one_of_the_world():
    with client("http://127.0.0.1:1") as node:
        assert node.source == "live"


@pytest.mark.parametrize("fault", ["rate_limited", "server_error", "unavailable", "truncated"])
def test_a_passing_fault_is_survived_and_logged(fault, caplog):
    with (
        caplog.at_level(logging.WARNING),
        sandbox(now=NOW, faults={fault: 1.0, "limit": 2}) as world,
        client(world.rpc_url) as node,
    ):
        read = read_blocks(node, DAY, DAY + timedelta(days=1), chain_id=1)
    assert read.height == 144
    assert caplog.text.count("onchain_blocks 2024-01-02: attempt") == 2


@pytest.mark.parametrize("fault", ["rate_limited", "unavailable", "truncated"])
def test_a_lasting_fault_names_address_and_partition(fault):
    with (
        sandbox(now=NOW, faults={fault: 1.0}) as world,
        client(world.rpc_url) as node,
        pytest.raises(WorldUnreachableError, match="failing after 3 attempts") as failure,
    ):
        node.ask(CALLS)
    assert f"POST {world.rpc_url}: onchain_blocks 2024-01-02" in str(failure.value)


def test_a_node_that_stalls_is_given_up():
    with (
        sandbox(now=NOW, faults={"stall": 1.0, "stall_seconds": 2.0}) as world,
        client(world.rpc_url, delays=(), timeout=0.3) as node,
        pytest.raises(WorldUnreachableError, match="ReadTimeout"),
    ):
        node.ask(CALLS)


def test_nobody_listening_is_unreachable():
    with (
        client(f"http://127.0.0.1:{free_port()}") as node,
        pytest.raises(WorldUnreachableError, match="Connection refused"),
    ):
        node.ask(CALLS)


def test_a_refusal_is_not_repeated(caplog):
    with (
        caplog.at_level(logging.WARNING),
        sandbox(now=NOW, faults={"banned": 1.0}) as world,
        client(world.rpc_url) as node,
        pytest.raises(UnusableAnswerError, match="refused with HTTP 418"),
    ):
        node.ask(CALLS)
    assert "attempt" not in caplog.text


@pytest.mark.parametrize("body", ['{"error": {"code": -32005, "message": "too many"}}', "[]", "7"])
def test_an_answer_to_another_question_is_refused(body):
    async def answer(_request):
        return PlainTextResponse(body, media_type="application/json")

    with (
        serve(Starlette(routes=[Route("/", answer, methods=["POST"])])) as url,
        client(url) as node,
        pytest.raises(UnusableAnswerError, match="a batch of 2 calls was answered with"),
    ):
        node.ask(CALLS)


def test_the_same_span_read_twice_is_the_same():
    with sandbox(now=NOW, transactions_per_block=60) as world, client(world.rpc_url) as node:
        once = read_blocks(node, DAY, DAY + timedelta(days=1), chain_id=1)
        again = read_blocks(node, DAY, DAY + timedelta(days=1), chain_id=1)
    assert once.equals(again)
    assert once["transaction_count"].mean() == pytest.approx(60, abs=5)
