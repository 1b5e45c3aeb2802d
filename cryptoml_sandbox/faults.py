"""Faults a real venue has, by a seeded schedule: the same requests fail in the same way."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from cryptoml_sandbox.streams import stream, uniform

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from cryptoml_sandbox.bars import Bars
    from cryptoml_sandbox.settings import Faults

_WORLD_PATHS = ("/api/", "/v4/")
_NODE_PATH = "/rpc"
_JSON, _HTML = "application/json", "text/html"
_REFUSALS: Mapping[str, tuple[int, str, bytes]] = {
    "rate_limited": (
        429,
        _JSON,
        b'{"code":-1003,"msg":"Too many requests; current limit is 6000 weight per minute."}',
    ),
    "banned": (418, _JSON, b'{"code":-1003,"msg":"Way too many requests; IP banned."}'),
    "server_error": (500, _JSON, b'{"code":-1000,"msg":"An unknown error occurred."}'),
    # What stands before a venue answers so, and it does not speak the venue's language.
    "unavailable": (503, _HTML, b"<html><body>503 Service Temporarily Unavailable</body></html>"),
}
_LEAST_BARS = 2


class FaultSchedule:
    """Decides which request suffers which fault, and counts.

    Args:
        faults: rates and limits.
        seed: seed of the schedule.
    """

    def __init__(self, faults: Faults, seed: int) -> None:
        self.faults = faults
        self.counts: Counter[str] = Counter()
        self.requests = 0
        self._seed = seed

    def strikes(self, kind: str) -> bool:
        """Whether the present request suffers ``kind``; counted when it does."""
        rate = getattr(self.faults, kind)
        if not rate or 0 < self.faults.limit <= self.counts.total():
            return False
        if uniform(self._seed, "fault", kind, self.requests) >= rate:
            return False
        self.counts[kind] += 1
        return True

    def disturb(self, bars: Bars, now_ms: int, interval_ms: int) -> Bars:
        """``bars`` of one page as a faulty venue gives them."""
        if len(bars) < _LEAST_BARS:
            return bars
        random = stream(self._seed, "fault", "bars", self.requests)
        rows = np.arange(len(bars))
        if self.strikes("missing_bars"):
            rows = rows[random.random(len(rows)) >= 0.1]  # noqa: PLR2004 - a tenth goes missing
        if self.strikes("late_bars"):
            rows = rows[bars.open_time[rows] + 2 * interval_ms <= now_ms]
        if self.strikes("duplicate_bars"):
            rows = np.sort(np.concatenate([rows, rows[random.random(len(rows)) < 0.1]]))  # noqa: PLR2004
        if self.strikes("descending_bars"):
            rows = rows[::-1]
        changed = _revised(bars, random) if self.strikes("revised_bars") else bars
        return changed.take(rows)


def _revised(bars: Bars, random: np.random.Generator) -> Bars:
    """One bar with a close and a volume that a later answer corrects."""
    row = int(random.integers(len(bars)))
    volume, close = bars.volume.copy(), bars.close.copy()
    volume[row] -= volume[row] // 10
    close[row] = bars.low[row] if close[row] == bars.high[row] else bars.high[row]
    return replace(bars, volume=volume, close=close)


class FaultMiddleware:
    """Refuses, stalls or truncates answers of the world as its schedule says."""

    def __init__(self, app: ASGIApp, schedule: FaultSchedule) -> None:
        self._app = app
        self._schedule = schedule

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        path = scope.get("path", "")
        if not (path == _NODE_PATH or path.startswith(_WORLD_PATHS)):
            await self._app(scope, receive, send)
            return
        schedule = self._schedule
        schedule.requests += 1
        # All decided before the first wait, during which other requests come.
        stalls = schedule.strikes("stall")
        refusal = next((kind for kind in _REFUSALS if schedule.strikes(kind)), None)
        truncated = refusal is None and schedule.strikes("truncated")
        if stalls:
            await asyncio.sleep(schedule.faults.stall_seconds)
        if refusal is not None:
            await _refuse(send, refusal, schedule.faults.retry_after_seconds)
            return
        await self._app(scope, receive, _truncating(send) if truncated else send)


async def _refuse(send: Send, kind: str, retry_after: int) -> None:
    status, media, body = _REFUSALS[kind]
    headers = [(b"content-type", media.encode())]
    headers.append((b"content-length", str(len(body)).encode()))
    if kind in {"rate_limited", "banned"}:
        headers.append((b"retry-after", str(retry_after).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _truncating(send: Send) -> Send:
    """A ``send`` that cuts the one body message of an answer in half, lengths agreeing."""
    start: Message = {}

    async def cut(message: Message) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
            return
        body = message.get("body", b"")[: len(message.get("body", b"")) // 2]
        kept = [(k, v) for k, v in start["headers"] if k.lower() != b"content-length"]
        headers = [*kept, (b"content-length", str(len(body)).encode())]
        await send({**start, "headers": headers})
        await send({**message, "body": body})

    return cut
