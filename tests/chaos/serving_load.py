"""Callers of a service, in a process of their own: every request and what became of it.

    python -m tests.chaos.serving_load ADDRESS FILE --rate 200

One JSON line for each request: when it was due and sent, how long it took, what came back. Requests
start at even instants whatever the answers do, so that a service which stands still is seen to.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import IO, Any

import httpx

SYMBOLS = ("BTC/USDT", "ETH/USDT", "SOL/USDT")
#: Connections that stay open; a request waits for none of them.
_CONNECTIONS = 64
_SECONDS = 15.0
#: Errors that say that nobody was there to take the request: it was never begun.
_NOBODY = (httpx.ConnectError, httpx.ConnectTimeout)


async def _ask(client: httpx.AsyncClient, number: int, due: float, out: IO[str]) -> None:
    told: dict[str, Any] = {"due": due, "symbol": SYMBOLS[number % len(SYMBOLS)]}
    began = time.time()
    try:
        answer = await client.post("/predict", json={"symbol": told["symbol"]})
    except _NOBODY:
        told["status"] = 0
    except httpx.TransportError as error:
        told |= {"status": -1, "error": repr(error)}
    else:
        told["status"] = answer.status_code
        body = answer.json()
        if answer.is_success:
            told |= {name: body[name] for name in ("model_version", "prediction")}
        else:
            told["error"] = body["type"]
    # From when it was due: a client that was late counts as a slow answer too.
    out.write(json.dumps({**told, "began": began, "seconds": time.time() - due}) + "\n")


async def _watch(client: httpx.AsyncClient, stopping: asyncio.Event) -> None:
    """As a load balancer does: nobody is sent to a service that is not ready."""
    while not stopping.is_set():
        answer = await client.get("/ready")
        if not answer.is_success:
            stopping.set()
        await asyncio.sleep(0.1)


async def _load(address: str, rate: float, *, fresh: bool, polite: bool, out: IO[str]) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    limits = httpx.Limits(
        max_connections=None, max_keepalive_connections=0 if fresh else _CONNECTIONS
    )
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            httpx.AsyncClient(base_url=address, limits=limits, timeout=_SECONDS, trust_env=False)
        )
        tasks: set[asyncio.Task[None]] = set()
        if polite:
            tasks.add(asyncio.create_task(_watch(client, stopping)))
        began, number = time.time(), 0
        while not stopping.is_set():
            due = began + number / rate
            await asyncio.sleep(max(0.0, due - time.time()))
            task = asyncio.create_task(_ask(client, number, due, out))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            number += 1
        await asyncio.gather(*tasks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("file", type=Path)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--fresh", action="store_true", help="a connection for every request")
    parser.add_argument("--polite", action="store_true", help="stop once /ready says so")
    given = parser.parse_args()
    with given.file.open("w", buffering=1) as out:
        load = _load(given.address, given.rate, fresh=given.fresh, polite=given.polite, out=out)
        asyncio.run(load)


if __name__ == "__main__":
    main()
