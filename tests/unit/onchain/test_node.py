"""The node client against real servers: the sandbox with faults, and one that misbehaves."""

from __future__ import annotations

import logging
from datetime import timedelta

import orjson
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from cryptoml_assets.errors import UnusableAnswerError, WorldUnreachableError
from cryptoml_assets.onchain.node import open_node
from tests.sandbox_server import free_port, sandbox, serve

NOW = "2024-01-03T00:00:00Z"
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


@pytest.mark.parametrize(
    "fault", ["rate_limited", "server_error", "unavailable", "truncated", "cut"]
)
def test_a_passing_fault_is_survived_and_logged(fault, caplog):
    with (
        caplog.at_level(logging.WARNING),
        sandbox(now=NOW, faults={fault: 1.0, "limit": 2, "retry_after_seconds": 0}) as world,
        client(world.rpc_url) as node,
    ):
        assert [a["result"] for a in node.ask(CALLS)] == [hex(288), "0x1"]
    assert caplog.text.count("onchain_blocks 2024-01-02: attempt") == 2


@pytest.mark.parametrize("fault", ["rate_limited", "unavailable", "truncated"])
def test_a_lasting_fault_names_address_and_partition(fault):
    with (
        sandbox(now=NOW, faults={fault: 1.0, "retry_after_seconds": 0}) as world,
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


@pytest.mark.parametrize("body", ['{"error": {"code": -32000, "message": "no"}}', "[]", "7"])
def test_an_answer_to_another_question_is_refused(body):
    async def answer(_request):
        return PlainTextResponse(body, media_type="application/json")

    with (
        serve(Starlette(routes=[Route("/", answer, methods=["POST"])])) as url,
        client(url) as node,
        pytest.raises(UnusableAnswerError, match="a batch of 2 calls was answered with"),
    ):
        node.ask(CALLS)


class OwnNode:
    """Answers each call with its number, or the batch with what ``refuse`` gives for it, if any."""

    def __init__(self, refuse):
        self.refuse = refuse
        self.sizes = []

    async def answer(self, request):
        calls = orjson.loads(await request.body())
        self.sizes.append(len(calls))
        refused = self.refuse(calls)
        if refused is not None:
            return refused
        return JSONResponse([{"id": c["id"], "result": c["params"][0]} for c in reversed(calls)])

    def serve(self):
        return serve(Starlette(routes=[Route("/", self.answer, methods=["POST"])]))


def error(code, message):
    return {"error": {"code": code, "message": message}}


TOO_LARGE = {
    "geth, too many calls": lambda _: JSONResponse(error(-32600, "batch too large")),
    "geth, too large an answer": lambda calls: JSONResponse(
        [{"id": c["id"], **error(-32003, "response too large")} for c in calls]
    ),
    "a proxy": lambda _: PlainTextResponse("", status_code=413),
}


@pytest.mark.parametrize("kind", TOO_LARGE)
def test_batches_are_halved_until_the_node_takes_them(kind):
    own = OwnNode(lambda calls: TOO_LARGE[kind](calls) if len(calls) > 20 else None)
    with own.serve() as url, client(url) as node:
        calls = [("echo", [number]) for number in range(230)]
        assert [a["result"] for a in node.ask(calls)] == list(range(230))
        assert own.sizes[:4] == [100, 50, 25, 13]
        assert max(own.sizes[4:]) == node.room == 13


@pytest.mark.parametrize("kind", TOO_LARGE)
def test_a_single_call_that_is_too_large_is_refused(kind):
    own = OwnNode(TOO_LARGE[kind])
    with (
        own.serve() as url,
        client(url) as node,
        pytest.raises(UnusableAnswerError, match=r"onchain_blocks 2024-01-02: "),
    ):
        node.ask([("echo", [number]) for number in range(4)])
    assert own.sizes == [4, 2, 1]


def test_large_answers_leave_room_for_fewer_calls():
    def fill(calls):
        return JSONResponse([{"id": c["id"], "result": "x" * 1_000_000} for c in calls])

    with OwnNode(fill).serve() as url, client(url) as node:
        assert node.room == 100
        node.ask([("echo", [number]) for number in range(4)])
        assert node.room == 15


@pytest.mark.parametrize("code", [-32005, 429])
def test_calls_refused_for_their_rate_are_asked_again(code, caplog):
    refusals = [code]

    def refuse(calls):
        if not refusals:
            return None
        refused = error(refusals.pop(), "request rate limited")
        return JSONResponse([{"id": calls[0]["id"], **refused}, {"id": 1, "result": 1}])

    with caplog.at_level(logging.WARNING), OwnNode(refuse).serve() as url, client(url) as node:
        assert [a["result"] for a in node.ask([("echo", [0]), ("echo", [1])])] == [0, 1]
    assert "request rate limited" in caplog.text


def test_a_node_that_asks_to_wait_is_waited_for(caplog):
    waits = [PlainTextResponse("", status_code=429, headers={"Retry-After": "1"})]
    own = OwnNode(lambda _: waits.pop() if waits else None)
    with caplog.at_level(logging.WARNING), own.serve() as url, client(url) as node:
        assert node.ask([("echo", [7])])[0]["result"] == 7
    assert "next in 1 s" in caplog.text


def test_a_node_that_asks_to_wait_too_long_is_given_up():
    def refuse(_calls):
        return PlainTextResponse("", status_code=429, headers={"Retry-After": "3600"})

    with (
        OwnNode(refuse).serve() as url,
        client(url) as node,
        pytest.raises(WorldUnreachableError, match="asked to wait 3600 s"),
    ):
        node.ask([("echo", [7])])
