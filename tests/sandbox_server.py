"""A sandbox world on a free loopback port, for tests that talk to it with real clients.

    from tests.sandbox_server import sandbox, venue_client_options

    with sandbox(now="2024-03-01T00:00:00Z", seed=7) as world:
        world.url                       # http://127.0.0.1:PORT: venue, metrics, GET /world
        world.rpc_url                   # the same with /rpc: Ethereum JSON-RPC
        world.suffer(cut=0.1)           # other faults from here on
        world.move_to(datetime(...))    # only where the clock is frozen (now=...)
        exchange = ccxt.binance(venue_client_options(world.url))
        exchange.fetch_ohlcv("BTC/USDT", "5m", since=..., limit=1000)
        Web3(Web3.HTTPProvider(world.rpc_url))

Keyword arguments are the fields of `SandboxSettings` (names, not variables): now, seed, signal,
genesis, symbols, block_seconds, transactions_per_block, reorg_depth, world, replay,
rate_limit_weight, listings={"SOL/USDT": {"from": ..., "until": ...}}, outages=[[from, until]],
faults={"rate_limited": 1.0, "limit": 2}, ... Settings from the environment are not read.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import uvicorn

from cryptoml_assets.operations import processes
from cryptoml_sandbox.app import create_app
from cryptoml_sandbox.clock import FrozenClock
from cryptoml_sandbox.settings import Faults, SandboxSettings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from starlette.applications import Starlette


def venue_client_options(base_url: str) -> dict[str, Any]:
    """What a real `ccxt.binance` (sync or async) is made with to talk to `base_url`."""
    return {
        "enableRateLimit": False,
        "options": {"fetchMarkets": {"types": ["spot"]}, "fetchCurrencies": False},
        "urls": {"api": {"public": f"{base_url}/api/v3"}},
    }


@dataclass(frozen=True)
class SandboxServer:
    """A running world."""

    url: str
    app: Starlette
    settings: SandboxSettings

    @property
    def rpc_url(self) -> str:
        return f"{self.url}/rpc"

    def suffer(self, **faults: Any) -> None:
        """Other faults from here on, their limit and their requests counted anew."""
        self.app.state.schedule.suffer(Faults.model_validate(faults))

    def move_to(self, at: datetime) -> None:
        clock = self.app.state.clock
        if not isinstance(clock, FrozenClock):
            message = "only a frozen clock can be moved: start the sandbox with now=..."
            raise TypeError(message)
        clock.move_to(at)


def free_port() -> int:
    return processes.free_port("127.0.0.1")


@contextlib.contextmanager
def sandbox(**settings: Any) -> Iterator[SandboxServer]:
    """Serve one world while the block runs."""
    world = SandboxSettings.model_validate({**_clean_defaults(), **settings})
    app = create_app(world)
    with serve(app) as url:
        yield SandboxServer(url, app, world)


@contextlib.contextmanager
def serve(app: Any) -> Iterator[str]:
    """Serve any ASGI app from a thread; yields its base URL, stops it afterwards."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = uvicorn.Config(app, log_level="error", lifespan="on", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            message = "the server did not start"
            raise RuntimeError(message)
        time.sleep(0.005)
    try:
        yield url
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        listener.close()


def _clean_defaults() -> dict[str, Any]:
    """Every field's own default, so that no variable of the environment gets in."""
    return {
        name: field.get_default(call_default_factory=True)
        for name, field in SandboxSettings.model_fields.items()
    }
