"""Bounded retries on named, transient errors; every attempt is logged."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from cryptoml_assets.errors import WorldUnreachableError

Result = TypeVar("Result")
#: Longest wait, in seconds, that an answer's Retry-After can ask for before the call gives up.
LONGEST_WAIT = 60.0
_log = logging.getLogger(__name__)


def call_with_retries(
    call: Callable[[], Result],
    *,
    transient: tuple[type[Exception], ...],
    delays: tuple[float, ...],
    what: str,
    sleep: Callable[[float], None] = time.sleep,
) -> Result:
    """Run ``call``, again after each of ``delays`` seconds while it raises one of ``transient``.

    ``what`` names the address and the work (partition, symbol) for the log and the error. An error
    with an attribute ``retry_after`` (seconds, or none) is waited out at least that long.

    Raises:
        WorldUnreachableError: after the last attempt, or when asked to wait longer than
            ``LONGEST_WAIT``, naming ``what`` and the last cause.
    """
    attempt = 0
    while True:
        try:
            return call()
        except transient as error:
            wait = _wait(error, attempt, delays, what)
        attempt += 1
        sleep(wait)


async def await_with_retries(
    call: Callable[[], Awaitable[Result]],
    *,
    transient: tuple[type[Exception], ...],
    delays: tuple[float, ...],
    what: str,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Result:
    """``call_with_retries`` for a coroutine function: the same policy, waiting without blocking."""
    attempt = 0
    while True:
        try:
            return await call()
        except transient as error:
            wait = _wait(error, attempt, delays, what)
        attempt += 1
        await sleep(wait)


def _wait(error: Exception, attempt: int, delays: tuple[float, ...], what: str) -> float:
    """Seconds to wait after attempt number ``attempt`` (from 0) failed with ``error``."""
    if attempt >= len(delays):
        message = f"{what}: still failing after {attempt + 1} attempts: {error!r}"
        raise WorldUnreachableError(message) from error
    asked: float | None = getattr(error, "retry_after", None)
    if asked is not None and asked > LONGEST_WAIT:
        message = f"{what}: asked to wait {asked:g} s, longer than {LONGEST_WAIT:g} s: {error!r}"
        raise WorldUnreachableError(message) from error
    wait = max(delays[attempt], asked or 0.0)
    _log.warning("%s: attempt %d failed: %r; next in %g s", what, attempt + 1, error, wait)
    return wait
