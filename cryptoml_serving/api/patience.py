"""Gives up on requests whose bodies do not come.

One look now and then at all that wait, in place of a timer for each: setting and cancelling a timer
takes longer than everything else that ``POST /predict`` does.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable

_Result = TypeVar("_Result")
#: Looks within one deadline: a body is given up that much later at most.
_LOOKS = 8


class Patience:
    """Waits for so long, and no longer."""

    def __init__(self, seconds: float) -> None:
        """Wait for nothing yet.

        Args:
            seconds: longest wait; up to an eighth more passes before it is noticed.
        """
        self._seconds = seconds
        self._waiting: dict[asyncio.Task[Any], float] = {}
        self._given_up: set[asyncio.Task[Any]] = set()
        #: Whose timer is set; none: nobody's.
        self._loop: asyncio.AbstractEventLoop | None = None

    async def wait(self, what: Awaitable[_Result]) -> _Result:
        """What is awaited, by the current task.

        Raises:
            TimeoutError: it did not come in time.
        """
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("nobody can be told to stop waiting outside a task")
        self._waiting[task] = time.monotonic() + self._seconds
        if self._loop is not (loop := task.get_loop()):
            self._arm(loop)
        try:
            return await what
        except asyncio.CancelledError:
            if task not in self._given_up:
                raise
            task.uncancel()
            raise TimeoutError from None
        finally:
            del self._waiting[task]
            self._given_up.discard(task)

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        loop.call_later(self._seconds / _LOOKS, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = time.monotonic()
        for task, until in self._waiting.items():
            if until <= now and task not in self._given_up:
                self._given_up.add(task)
                task.cancel()
        self._loop = None
        if self._waiting:
            self._arm(loop)
