"""One server for many worlds: each schedule puts its own on stage, without a new socket."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

import httpx
import orjson

from cryptoml_sandbox.app import create_app
from cryptoml_sandbox.settings import Faults, SandboxSettings
from tests.sandbox_server import _clean_defaults, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from starlette.applications import Starlette
    from starlette.types import Message, Receive, Scope, Send

    from cryptoml_sandbox.faults import FaultSchedule

_CLOSE_MS = 6  # where a row of klines says when its bar ends


@dataclass(frozen=True)
class StagedWorld:
    """A world whose clock and faults are moved by hand."""

    app: Starlette

    @property
    def faults(self) -> FaultSchedule:
        schedule: FaultSchedule = self.app.user_middleware[0].kwargs["schedule"]
        return schedule

    def suffer(self, faults: Faults) -> None:
        self.faults.faults = faults

    def calm(self) -> None:
        """No more faults, storms that have begun included; what is gone stays gone."""
        self.suffer(Faults(limit=1, delisted_after=self.faults.faults.delisted_after))

    def move_to(self, at: datetime) -> None:
        self.app.state.clock.move_to(at)


class Stage:
    """An ASGI application that hands requests to whichever world is on.

    Attributes:
        url: where it listens.
        world: the world that is on.
        forming: pages of klines so far that held a bar still forming.
        generous: whether the venue heeds neither the end nor the number of bars it is asked for,
            as many do not, and so gives the forming bar to whoever asks for the newest closed ones.
    """

    def __init__(self) -> None:
        self.url = ""
        self.world = make_world()
        self.forming = 0
        self.generous = False

    @property
    def rpc_url(self) -> str:
        return f"{self.url}/rpc"

    def show(self, world: StagedWorld, *, generous: bool = False) -> StagedWorld:
        self.world, self.forming, self.generous = world, 0, generous
        return world

    def strikes(self) -> Counter[str]:
        """What really struck since the present world came on, by the sandbox's own names."""
        return Counter(self.world.faults.counts) + Counter(forming=self.forming)

    def reorganise(self, depth: int, *, shorter: int) -> None:
        asked = {"depth": depth, "shorter": shorter}
        httpx.post(f"{self.rpc_url}/reorg", json=asked).raise_for_status()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        world = self.world
        if scope.get("path", "").endswith("/klines"):
            send = self._counting_forming_bars(world, send)
            if self.generous:
                asked = dict(parse_qsl(scope["query_string"].decode()))
                asked.pop("endTime", None)
                scope = {**scope, "query_string": urlencode(asked | {"limit": 1000}).encode()}
        await world.app(scope, receive, send)

    def _counting_forming_bars(self, world: StagedWorld, send: Send) -> Send:
        async def count(message: Message) -> None:
            # Half a page is no JSON, and an error's answer has no rows.
            with contextlib.suppress(orjson.JSONDecodeError, KeyError, IndexError):
                now_ms = world.app.state.clock.now_ms()
                rows = orjson.loads(message.get("body", b""))
                self.forming += any(row[_CLOSE_MS] >= now_ms for row in (rows[0], rows[-1]))
            await send(message)

        return count


def make_world(**fields: Any) -> StagedWorld:
    settings = SandboxSettings.model_validate({**_clean_defaults(), **fields})
    return StagedWorld(create_app(settings))


@contextlib.contextmanager
def open_stage() -> Iterator[Stage]:
    stage = Stage()
    with serve(stage) as stage.url:
        yield stage
