"""The simulated chain behind Ethereum JSON-RPC: ``POST /rpc``, single calls and batches.

``POST /rpc/reorg`` with ``{"depth": n}`` is the sandbox's own control: it replaces the newest ``n``
blocks. Blocks have the post-merge shape; logs are the ERC-20 transfers of the simulated tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import orjson
from starlette.responses import Response
from starlette.routing import Route

from cryptoml_sandbox.chain import Chain, ChainParameters, ReorgTooDeepError, next_base_fee
from cryptoml_sandbox.ethereum_wire import (
    HASH_BYTES,
    INVALID_PARAMS,
    INVALID_REQUEST,
    LIMIT_EXCEEDED,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    RpcError,
    block_object,
    fixed_bytes,
    log_filter,
    pending_object,
    quantity,
    transfer_logs,
)

if TYPE_CHECKING:
    from starlette.requests import Request

    from cryptoml_sandbox.chain_content import Header
    from cryptoml_sandbox.clock import Clock
    from cryptoml_sandbox.settings import SandboxSettings

#: Blocks one ``eth_getLogs`` may span, and calls one batch may hold.
LOG_RANGE, BATCH_LIMIT = 2_000, 1_000

_TAGS = ("earliest", "finalized", "safe", "latest", "pending")


def routes(settings: SandboxSettings, clock: Clock) -> list[Route]:
    """The chain's addresses for the sandbox application.

    Raises:
        ValueError: settings no chain can have.
    """
    parameters = ChainParameters(
        seed=settings.seed,
        genesis=settings.genesis,
        block_seconds=settings.block_seconds,
        transactions_per_block=settings.transactions_per_block,
        chain_id=settings.chain_id,
        finalized_lag=timedelta(seconds=settings.finality_seconds),
        safe_lag=timedelta(seconds=settings.safe_seconds),
        reorg_depth=settings.reorg_depth,
    )
    node = Node(Chain(parameters))

    async def rpc(request: Request) -> Response:
        return _json(node.answer(await request.body(), clock.now()))

    async def reorg(request: Request) -> Response:
        return _reorg(node.chain, await request.body(), clock.now())

    return [
        Route("/rpc", rpc, methods=["POST"]),
        Route("/rpc/reorg", reorg, methods=["POST"]),
    ]


def _json(payload: Any, status: int = 200) -> Response:
    body = b"" if payload is None else orjson.dumps(payload)
    headers = {"X-Cryptoml-Source": "simulated"}
    return Response(body, status, media_type="application/json", headers=headers)


def _reorg(chain: Chain, body: bytes, now: datetime) -> Response:
    accepted = 'a JSON object like {"depth": 3}, optionally with "past_finality": true'
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError:
        return _json({"error": accepted}, 400)
    if not isinstance(asked, dict) or not isinstance(asked.get("depth"), int):
        return _json({"error": accepted}, 400)
    past_finality = asked.get("past_finality") is True
    try:
        first = chain.reorganise(asked["depth"], now, past_finality=past_finality)
    except ReorgTooDeepError as error:
        return _json({"error": str(error)}, 400)
    return _json({"first_replaced": first, "head": chain.head(now)})


class Node:
    """Answers JSON-RPC requests about a chain as of an instant."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain

    def answer(self, body: bytes, now: datetime) -> Any:
        """The JSON-RPC response to a request body; none where only notifications were sent."""
        try:
            request = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            return _failure(None, RpcError(PARSE_ERROR, f"parse error: {error}"))
        view = View(self.chain, now)
        if not isinstance(request, list):
            return view.answer(request)
        if not request:
            return _failure(None, RpcError(INVALID_REQUEST, "empty batch"))
        if len(request) > BATCH_LIMIT:
            message = f"batch too large: {len(request)} calls, at most {BATCH_LIMIT}"
            return _failure(None, RpcError(INVALID_REQUEST, message))
        answers = [view.answer(call) for call in request]
        return [answer for answer in answers if answer is not None] or None


def _failure(call_id: Any, error: RpcError) -> dict[str, Any]:
    return {
        "jsonrpc": "2.0",
        "id": call_id,
        "error": {"code": error.code, "message": str(error)},
    }


@dataclass(frozen=True)
class View:
    """A chain at an instant, as one request sees it."""

    chain: Chain
    now: datetime

    def answer(self, call: Any) -> dict[str, Any] | None:
        """Answer one call; none to a notification."""
        if not isinstance(call, dict) or not isinstance(call.get("method"), str):
            return _failure(None, RpcError(INVALID_REQUEST, "a call is an object with a method"))
        call_id = call.get("id")
        if isinstance(call_id, dict | list | bool):
            return _failure(None, RpcError(INVALID_REQUEST, "an id is a string, a number or null"))
        try:
            result = self._call(call["method"], call.get("params") or [])
        except RpcError as error:
            return None if "id" not in call else _failure(call_id, error)
        return {"jsonrpc": "2.0", "id": call_id, "result": result} if "id" in call else None

    def _call(self, method: str, params: Any) -> Any:
        known = _METHODS.get(method)
        if known is None:
            message = f"the method {method} does not exist/is not available"
            raise RpcError(METHOD_NOT_FOUND, message)
        function, least, most = known
        if not isinstance(params, list) or not least <= len(params) <= most:
            wanted = f"{least}" if least == most else f"{least} to {most}"
            raise RpcError(INVALID_PARAMS, f"{method} takes a list of {wanted} parameters")
        return function(self, *params)

    def chain_id(self) -> str:
        """Answer ``eth_chainId``."""
        return hex(self.chain.parameters.chain_id)

    def net_version(self) -> str:
        """Answer ``net_version``, the chain id in decimal."""
        return str(self.chain.parameters.chain_id)

    def client_version(self) -> str:
        """Answer ``web3_clientVersion``."""
        return "cryptoml-sandbox/1.0.0"

    def syncing(self) -> bool:
        """Answer ``eth_syncing``: this node is never behind its own chain."""
        return False

    def block_number(self) -> str:
        """Answer ``eth_blockNumber``."""
        return hex(self.chain.head(self.now))

    def block_by_number(self, block: Any, full: Any = False) -> dict[str, Any] | None:
        """Answer ``eth_getBlockByNumber``; null where the chain has no such block."""
        if block == "pending":
            return self._pending()
        return self._block(self.chain.header(self._number(block), self.now), full)

    def block_by_hash(self, block_hash: Any, full: Any = False) -> dict[str, Any] | None:
        """Answer ``eth_getBlockByHash``; null where no block of the chain has that hash."""
        number = self.chain.number_of(fixed_bytes(block_hash, HASH_BYTES), self.now)
        return self._block(None if number is None else self.chain.header(number, self.now), full)

    def logs(self, wanted: Any) -> list[dict[str, Any]]:
        """Answer ``eth_getLogs``: token transfers of a block or a bounded range of blocks."""
        if not isinstance(wanted, dict):
            raise RpcError(INVALID_PARAMS, "eth_getLogs takes one filter object")
        matches = log_filter(wanted)
        return [
            log
            for header in self._log_blocks(wanted)
            for log in transfer_logs(header, self.chain.content.transactions(header))
            if matches(log)
        ]

    def _log_blocks(self, wanted: dict[str, Any]) -> Iterator[Header]:
        if "blockHash" in wanted:
            if "fromBlock" in wanted or "toBlock" in wanted:
                raise RpcError(INVALID_PARAMS, "blockHash excludes fromBlock and toBlock")
            number = self.chain.number_of(fixed_bytes(wanted["blockHash"], HASH_BYTES), self.now)
            if number is None:
                raise RpcError(INVALID_PARAMS, "unknown block")
            first = last = number
        else:
            first = self._number(wanted.get("fromBlock") or "latest")
            last = min(self._number(wanted.get("toBlock") or "latest"), self.chain.head(self.now))
        if first > last and "toBlock" in wanted:
            raise RpcError(INVALID_PARAMS, "invalid block range: fromBlock is after toBlock")
        if last - first >= LOG_RANGE:
            message = f"block range too large: {last - first + 1} blocks, at most {LOG_RANGE}"
            raise RpcError(LIMIT_EXCEEDED, message)
        for number in range(first, last + 1):
            header = self.chain.header(number, self.now)
            if header is not None:
                yield header

    def _number(self, block: Any) -> int:
        match block:
            case "earliest":
                return 0
            case "finalized":
                return self.chain.finalized(self.now)
            case "safe":
                return self.chain.safe(self.now)
            case "latest" | "pending":
                return self.chain.head(self.now)
            case str():
                return quantity(block)
        message = f"a block is a 0x… number or one of {', '.join(_TAGS)}"
        raise RpcError(INVALID_PARAMS, message)

    def _block(self, header: Header | None, full: Any) -> dict[str, Any] | None:
        if not isinstance(full, bool):
            raise RpcError(INVALID_PARAMS, "the second parameter is true or false")
        if header is None:
            return None
        content = self.chain.content
        return block_object(
            header,
            content.transactions(header),
            content.withdrawals(header),
            chain_id=self.chain.parameters.chain_id if full else None,
        )

    def _pending(self) -> dict[str, Any] | None:
        head = self.chain.header(self.chain.head(self.now), self.now)
        if head is None:
            return None
        base_fee = next_base_fee(head.base_fee, head.gas_used)
        return pending_object(head, self.chain.timestamp(head.number + 1), base_fee)


_METHODS: dict[str, tuple[Callable[..., Any], int, int]] = {
    "eth_chainId": (View.chain_id, 0, 0),
    "eth_blockNumber": (View.block_number, 0, 0),
    "eth_getBlockByNumber": (View.block_by_number, 1, 2),
    "eth_getBlockByHash": (View.block_by_hash, 1, 2),
    "eth_getLogs": (View.logs, 1, 1),
    "eth_syncing": (View.syncing, 0, 0),
    "net_version": (View.net_version, 0, 0),
    "web3_clientVersion": (View.client_version, 0, 0),
}
