"""Callers of a service, in a process of their own: every request and what became of it.

    python -m tests.chaos.serving_load ADDRESS FILE --model M --columns a,b,c --rate 200

One JSON line for each request: when it was due and sent, how long it took, what came back. Requests
start at even instants whatever the answers do, so that a service which stands still is seen to.
Most name a symbol; some bring its features themselves, and some of those name the version.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx

#: By symbol, the features that the store has and that callers send, in the model's order.
ROWS = {"BTC/USDT": (0.1, 0.2, 0.3), "ETH/USDT": (0.0, -0.5, 0.1), "SOL/USDT": (1.0, 0.0, 0.5)}
#: Of so many requests three are none for a symbol: no multiple of the number of symbols.
_ROUND = 8
#: Connections that stay open; a request waits for none of them.
_CONNECTIONS = 64
_SECONDS = 15.0
#: Errors that say that nobody was there to take the request: it was never begun.
_NOBODY = (httpx.ConnectError, httpx.ConnectTimeout)
#: What the Open Inference Protocol's statuses mean here.
_KINDS = {404: "urn:cryptoml:problem:unknown-version", 503: "urn:cryptoml:problem:not-ready"}


@dataclass
class _Callers:
    """Ask a service for predictions.

    Attributes:
        client: of the service.
        model: its name.
        columns: of the model, in its order.
        out: gets a line for each request.
        version: that answered for a symbol last; empty: none has yet.
    """

    client: httpx.AsyncClient
    model: str
    columns: tuple[str, ...]
    out: IO[str]
    version: str = ""

    async def ask(self, number: int, due: float) -> None:
        symbol = tuple(ROWS)[number % len(ROWS)]
        way, asked, path, body = self._request(number, symbol)
        told: dict[str, Any] = {"due": due, "symbol": symbol, "way": way, "asked": asked}
        began = time.time()
        try:
            answer = await self.client.post(path, json=body)
        except _NOBODY:
            told["status"] = 0
        except httpx.TransportError as error:
            told |= {"status": -1, "error": repr(error)}
        else:
            told |= {"status": answer.status_code, **_read(answer)}
            if way == "symbol":
                self.version = told.get("model_version", self.version)
        # From when it was due: a client that was late counts as a slow answer too.
        line = {**told, "began": began, "seconds": time.time() - due}
        self.out.write(json.dumps(line) + "\n")

    def _request(self, number: int, symbol: str) -> tuple[str, str, str, dict[str, Any]]:
        """Which way of asking, the version asked for if one is, the path, and the body."""
        row = ROWS[symbol]
        table = {"name": "features", "shape": [1, len(row)], "datatype": "FP32", "data": row}
        inference = {"inputs": [table], "outputs": [{"name": "expected_return"}]}
        matrix = {"columns": self.columns, "matrix": [row]}
        match number % _ROUND:
            case 3:
                return "rows", "", "/predict/features", matrix
            case 5:
                return "infer", "", f"/v2/models/{self.model}/infer", inference
            case 7 if self.version:
                path = f"/v2/models/{self.model}/versions/{self.version}/infer"
                return "version", self.version, path, inference
            case _:
                return "symbol", "", "/predict", {"symbol": symbol}


def _read(answer: httpx.Response) -> dict[str, Any]:
    """Version and prediction of an answer; of a refusal its type."""
    body = answer.json()
    if answer.is_success:
        if "outputs" in body:
            prediction = body["outputs"][0]["data"][0]
        elif "predictions" in body:
            prediction = body["predictions"][0]["prediction"]
        else:
            prediction = body["prediction"]
        return {"model_version": body["model_version"], "prediction": prediction}
    # The protocol's errors are sentences, and have no type.
    kind = _KINDS.get(answer.status_code, body.get("error"))
    return {"error": body.get("type", kind), "detail": body.get("detail", body.get("error"))}


async def _watch(client: httpx.AsyncClient, stopping: asyncio.Event) -> None:
    """As a load balancer does: nobody is sent to a service that is not ready."""
    while not stopping.is_set():
        answer = await client.get("/ready")
        if not answer.is_success:
            stopping.set()
        await asyncio.sleep(0.1)


async def _load(given: argparse.Namespace, out: IO[str]) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    limits = httpx.Limits(
        max_connections=None, max_keepalive_connections=0 if given.fresh else _CONNECTIONS
    )
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            httpx.AsyncClient(
                base_url=given.address, limits=limits, timeout=_SECONDS, trust_env=False
            )
        )
        callers = _Callers(client, given.model, tuple(given.columns.split(",")), out)
        tasks: set[asyncio.Task[None]] = set()
        if given.polite:
            tasks.add(asyncio.create_task(_watch(client, stopping)))
        began, number = time.time(), 0
        while not stopping.is_set():
            due = began + number / given.rate
            await asyncio.sleep(max(0.0, due - time.time()))
            task = asyncio.create_task(callers.ask(number, due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            number += 1
        await asyncio.gather(*tasks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("file", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--columns", required=True, help="of the model, separated by commas")
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--fresh", action="store_true", help="a connection for every request")
    parser.add_argument("--polite", action="store_true", help="stop once /ready says so")
    given = parser.parse_args()
    with given.file.open("w", buffering=1) as out:
        asyncio.run(_load(given, out))


if __name__ == "__main__":
    main()
