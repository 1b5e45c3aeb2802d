"""The world a command runs against: its sandbox, its clock, its symbols."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from cryptoml_assets.errors import (
    CryptomlError,
    UnusableAnswerError,
    WorldUnreachableError,
)
from cryptoml_assets.operations.processes import Children, address_parts, free_port, port_is_free
from cryptoml_assets.resources.venue import connect_venue
from cryptoml_assets.settings import Settings, settings
from cryptoml_serving.contract.settings import World

_READY_SECONDS = 60.0
_HOST = "127.0.0.1"


class WorldChangedError(CryptomlError):
    """The home folder holds rows of another simulated world; the message says what differs."""


@dataclass(frozen=True)
class RunningWorld:
    """A world that answers: what it says of itself, and what it cannot give from recordings."""

    source: str
    now: datetime
    symbols: tuple[str, ...]
    simulated_parts: tuple[str, ...]


def set_environment(variables: Mapping[str, str]) -> Settings:
    """Set variables for this process and its children, and read the settings again."""
    os.environ.update(variables)
    settings.cache_clear()
    return settings()


def choose_port(preferred: int) -> int:
    """``preferred`` where it is free, else any free port: a demo should not fail for a port."""
    return preferred if port_is_free(_HOST, preferred) else free_port(_HOST)


def start_sandbox(children: Children, *, frozen: datetime | None, port: int) -> RunningWorld:
    """Start the sandbox process, wait until it answers, and point this process at it.

    ``frozen`` stops its clock at that instant; a replay stops at the end of its recording.

    Raises:
        ChildError: when it does not come up.
        WorldChangedError: when the home folder belongs to another simulated world.
    """
    variables = {
        "CRYPTOML_SANDBOX_PORT": str(port),
        "CRYPTOML_SANDBOX_URL": f"http://{_HOST}:{port}",
    }
    if frozen is not None:
        variables["CRYPTOML_NOW"] = frozen.isoformat()
    configured = set_environment(variables)
    child = children.start("sandbox", [sys.executable, "-m", "cryptoml_sandbox"], {})
    answer = children.wait_ready(child, f"{configured.sandbox_url}/world", _READY_SECONDS)
    return _join(configured, answer.json())


def join_sandbox(configured: Settings) -> RunningWorld:
    """Point this process at a sandbox that somebody else runs.

    Raises:
        WorldUnreachableError: when none answers at ``CRYPTOML_SANDBOX_URL``.
        WorldChangedError: when the home folder belongs to another simulated world.
    """
    url = f"{configured.sandbox_url}/world"
    timeout = configured.request_timeout.total_seconds()
    try:
        # The sandbox is on this machine: no proxy of the environment stands before it.
        answer = httpx.get(url, timeout=timeout, trust_env=False).raise_for_status()
    except httpx.HTTPError as error:
        raise WorldUnreachableError(
            f"no sandbox world at {url} ({error}): start one with `cryptoml sandbox` or `cryptoml "
            "up`, or set CRYPTOML_SANDBOX_URL"
        ) from error
    return _join(configured, answer.json())


def _join(configured: Settings, description: Mapping[str, Any]) -> RunningWorld:
    _check_same_world(configured, description)
    world = RunningWorld(
        source=description["source"],
        now=datetime.fromisoformat(description["now"]).astimezone(UTC),
        symbols=tuple(description["symbols"]),
        simulated_parts=tuple(description["simulated_parts"]),
    )
    if configured.world is World.REPLAY:
        _follow_recording(configured, world)
    return world


def _follow_recording(configured: Settings, world: RunningWorld) -> None:
    """A recording fixes the present and the symbols, unless the user has set them."""
    variables = {}
    if configured.now is None:
        variables["CRYPTOML_NOW"] = world.now.isoformat()
    if "CRYPTOML_SYMBOLS" not in os.environ:
        variables["CRYPTOML_SYMBOLS"] = ",".join(world.symbols)
    set_environment(variables)


def _check_same_world(configured: Settings, description: Mapping[str, object]) -> None:
    """Refuse to mix two simulated worlds in one lake."""
    identity = {
        key: description[key] for key in ("source", "seed", "signal", "genesis", "block_seconds")
    }
    identity |= {"venue": configured.venue, "timeframe": configured.timeframe}
    if description["regimes"]:
        identity["regimes"] = description["regimes"]
    home = configured.home_path
    file = home / "world.json"
    if not file.exists():
        home.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(identity, indent=2, sort_keys=True) + "\n")
        return
    stored = json.loads(file.read_text())
    changed = sorted(k for k in identity.keys() | stored.keys() if identity.get(k) != stored.get(k))
    if changed:
        differences = ", ".join(f"{k}: {stored.get(k)!r} → {identity.get(k)!r}" for k in changed)
        raise WorldChangedError(
            f"{home} holds rows of another world ({differences}); "
            "set CRYPTOML_HOME to another folder, or remove this one"
        )


def frozen_instant(configured: Settings) -> datetime:
    """The instant at which a demo's world stands still: the one set, or that of the first demo.

    Standing still is what makes a second demo find exactly the rows of the first.
    """
    if configured.now is not None:
        return configured.now
    file = _instant_file(configured)
    if file.exists():
        return datetime.fromisoformat(file.read_text().strip())
    instant = datetime.now(UTC).replace(microsecond=0)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(instant.isoformat() + "\n")
    return instant


def forget_frozen_instant(configured: Settings) -> None:
    """Let the next demo stand still at its own present: this home's world has moved on."""
    _instant_file(configured).unlink(missing_ok=True)


def _instant_file(configured: Settings) -> Path:
    return configured.home_path / "demo-instant"


def reachable(configured: Settings) -> dict[str, str | None]:
    """Ask each outside part of the world one cheap question, once.

    Returns:
        Part and its address → what went wrong, or none.
    """
    node = configured.chain_address
    question = {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []}
    api = f"{configured.metrics_address}/v4/timeseries/asset-metrics"
    sample = f"{api}?assets=btc&metrics=PriceUSD&page_size=1"
    timeout = configured.request_timeout.total_seconds()
    return {
        f"venue {configured.venue_address or configured.venue}": _ask_venue(configured),
        f"chain node {node}": _ask("POST", node, question, timeout),
        f"network metrics {configured.metrics_address}": _ask("GET", sample, None, timeout),
    }


def _ask(method: str, url: str, body: object, timeout: float) -> str | None:
    try:
        answer = httpx.request(method, url, json=body, timeout=timeout)
    except httpx.TransportError as error:
        return f"{type(error).__name__}: {error}"
    return None if answer.is_success else f"HTTP {answer.status_code}"


def _ask_venue(configured: Settings) -> str | None:
    once = configured.model_copy(update={"retry_delays": ()})

    async def ask() -> None:
        async with connect_venue(once) as exchange:
            await exchange.clock("a look whether it answers")

    try:
        asyncio.run(ask())
    except (WorldUnreachableError, UnusableAnswerError) as error:
        return str(error)
    return None


def sandbox_port(configured: Settings) -> int:
    """The port the sandbox is asked to listen on."""
    return address_parts(configured.sandbox_url)[1]
