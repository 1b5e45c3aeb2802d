"""Faults of a connection: answers that are refused, come late, or break off in the middle."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from cryptoml_sandbox.faults import FaultSchedule

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
_BROKEN_BODIES = ("truncated", "cut", "stall_mid_page")
_SERVER_LOG = logging.getLogger("uvicorn.error")
_BROKEN_OFF = "ASGI callable returned without completing response."


def _is_no_surprise(record: logging.LogRecord) -> bool:
    """Whether the server's log says anything but that an answer broke off, as told to."""
    return record.msg != _BROKEN_OFF


class FaultMiddleware:
    """Refuses, stalls, truncates or breaks off answers of the world as its schedule says."""

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
        refusal = "rate_limited" if schedule.storms() else None
        refusal = refusal or next((kind for kind in _REFUSALS if schedule.strikes(kind)), None)
        broken = None
        if refusal is None:
            broken = next((kind for kind in _BROKEN_BODIES if schedule.strikes(kind)), None)
        if stalls:
            await asyncio.sleep(schedule.faults.stall_seconds)
        if refusal is not None:
            await _refuse(send, refusal, schedule.faults.retry_after_seconds)
        elif broken == "truncated":
            await self._app(scope, receive, _truncating(send))
        elif broken is not None:
            seconds = schedule.faults.stall_seconds if broken == "stall_mid_page" else 0.0
            await self._app(scope, receive, _breaking_off(send, seconds))
        else:
            await self._app(scope, receive, send)


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

    async def truncate(start: Message, message: Message) -> None:
        body = _half(message)
        kept = [(k, v) for k, v in start["headers"] if k.lower() != b"content-length"]
        headers = [*kept, (b"content-length", str(len(body)).encode())]
        await send({**start, "headers": headers})
        await send({**message, "body": body})

    return _with_whole_answer(truncate)


def _breaking_off(send: Send, seconds: float) -> Send:
    """A ``send`` that gives half of what the length promises and never the rest.

    Returning so makes the server close the connection.
    """

    async def break_off(start: Message, message: Message) -> None:
        _SERVER_LOG.addFilter(_is_no_surprise)
        await send(start)
        await send({"type": "http.response.body", "body": _half(message), "more_body": True})
        await asyncio.sleep(seconds)

    return _with_whole_answer(break_off)


def _with_whole_answer(answer: Callable[[Message, Message], Awaitable[None]]) -> Send:
    """A ``send`` that calls ``answer`` with both messages of an answer at once."""
    start: Message = {}

    async def collect(message: Message) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
        else:
            await answer(start, message)

    return collect


def _half(message: Message) -> bytes:
    body: bytes = message.get("body", b"")
    return body[: len(body) // 2]
