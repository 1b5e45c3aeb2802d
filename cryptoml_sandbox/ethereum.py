"""The simulated chain behind Ethereum JSON-RPC: ``POST /rpc``, single calls and batches.

``POST /rpc/reorg`` with ``{"depth": n}`` is the sandbox's own control: it replaces the newest ``n``
blocks. Blocks have the post-merge shape; logs are the ERC-20 transfers of the simulated tokens.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import ValidationError
from starlette.responses import Response
from starlette.routing import Route

from cryptoml_sandbox.chain import Chain, ChainParameters, ReorgTooDeepError
from cryptoml_sandbox.ethereum_view import METHODS, View
from cryptoml_sandbox.ethereum_wire import (
    INVALID_REQUEST,
    PARSE_ERROR,
    RpcError,
    block_object,
    failure,
)
from cryptoml_sandbox.settings import Reorganisation

if TYPE_CHECKING:
    from starlette.requests import Request

    from cryptoml_sandbox.clock import Clock
    from cryptoml_sandbox.faults import FaultSchedule
    from cryptoml_sandbox.settings import SandboxSettings

#: Calls one batch may hold.
BATCH_LIMIT = 1_000


def routes(settings: SandboxSettings, clock: Clock, schedule: FaultSchedule) -> list[Route]:
    """The chain's addresses for the sandbox application.

    Raises:
        ValueError: settings no chain or no node can have.
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
    node = Node(Chain(parameters), schedule)
    node.check(clock.now())

    async def rpc(request: Request) -> Response:
        return _json(node.answer(await request.body(), clock.now()))

    async def reorg(request: Request) -> Response:
        return _reorg(node, await request.body(), clock.now())

    return [
        Route("/rpc", rpc, methods=["POST"]),
        Route("/rpc/reorg", reorg, methods=["POST"]),
    ]


def _json(payload: Any, status: int = 200) -> Response:
    body = b"" if payload is None else orjson.dumps(payload)
    headers = {"X-Cryptoml-Source": "simulated"}
    return Response(body, status, media_type="application/json", headers=headers)


def _reorg(node: Node, body: bytes, now: datetime) -> Response:
    accepted = 'a JSON object like {"depth": 3}, optionally with "past_finality" and "shorter"'
    try:
        asked = orjson.loads(body)
        wanted = Reorganisation.model_validate({"requests": 1, **asked}, strict=True)
    except (orjson.JSONDecodeError, TypeError, ValidationError):
        return _json({"error": accepted}, 400)
    try:
        first = node.reorganise(wanted, now)
    except ReorgTooDeepError as error:
        return _json({"error": str(error)}, 400)
    return _json({"first_replaced": first, "head": node.view(now).head})


class Node:
    """Answers JSON-RPC requests about a chain as of an instant.

    Args:
        chain: the chain it follows.
        schedule: how far it lags, what it lacks, and when its chain is reorganised.
    """

    def __init__(self, chain: Chain, schedule: FaultSchedule) -> None:
        self.chain = chain
        self._schedule = schedule

    def check(self, now: datetime) -> None:
        """Refuse faults this node cannot have.

        Raises:
            ValueError: naming the fault and what is accepted.
        """
        faults, parameters = self._schedule.faults, self.chain.parameters
        genesis = self.chain.header(0, now)
        fields = set() if genesis is None else set(block_object(genesis, (), (), chain_id=None))
        if unknown := [name for name in faults.lacks if name not in {*METHODS, *fields}]:
            message = (
                f"CRYPTOML_SANDBOX_FAULTS.lacks: {', '.join(unknown)}: a node can lack the methods "
                f"{', '.join(METHODS)} and the fields {', '.join(sorted(fields))}"
            )
            raise ValueError(message)
        if (wanted := faults.reorg_after) is None:
            return
        young = parameters.finalized_lag // timedelta(seconds=parameters.block_seconds)
        deepest = self.view(now).head if wanted.past_finality else min(young, self.view(now).head)
        if wanted.depth > deepest or wanted.shorter >= wanted.depth:
            message = (
                f"CRYPTOML_SANDBOX_FAULTS.reorg_after: depth={wanted.depth}: at most {deepest} "
                f"blocks can be replaced; shorter={wanted.shorter}: less than depth"
            )
            raise ValueError(message)

    def view(self, now: datetime) -> View:
        """What this node sees at ``now``; one that is behind sees what was."""
        lag = timedelta(seconds=self.chain.parameters.block_seconds)
        return View(self.chain, now - self._schedule.faults.node_behind * lag, self._schedule)

    def reorganise(self, wanted: Reorganisation, now: datetime) -> int:
        """Reorganise the chain as asked; returns the number of the first block replaced.

        Raises:
            ReorgTooDeepError: see `Chain.reorganise`.
        """
        return self.chain.reorganise(
            wanted.depth,
            self.view(now).now,
            past_finality=wanted.past_finality,
            shorter=wanted.shorter,
        )

    def answer(self, body: bytes, now: datetime) -> Any:
        """The JSON-RPC response to a request body; none where only notifications were sent."""
        self._suffer(now)
        try:
            request = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            return failure(None, RpcError(PARSE_ERROR, f"parse error: {error}"))
        view = self.view(now)
        if not isinstance(request, list):
            return view.answer(request)
        if not request:
            return failure(None, RpcError(INVALID_REQUEST, "empty batch"))
        if len(request) > BATCH_LIMIT:
            message = f"batch too large: {len(request)} calls, at most {BATCH_LIMIT}"
            return failure(None, RpcError(INVALID_REQUEST, message))
        answers = [view.answer(call) for call in request]
        return [answer for answer in answers if answer is not None] or None

    def _suffer(self, now: datetime) -> None:
        """Count a request, and let happen what is told to happen at it."""
        self._schedule.node_requests += 1
        faults = self._schedule.faults
        if faults.node_behind:
            self._schedule.count("node_behind")
        wanted = faults.reorg_after
        if wanted is not None and self._schedule.node_requests == wanted.requests:
            self.reorganise(wanted, now)
            self._schedule.count("reorg_after")
