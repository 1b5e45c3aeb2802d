"""What the service asks of the operating system about its own processes and threads."""

from __future__ import annotations

import ctypes
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: ``linux/prctl.h``
_PR_SET_PDEATHSIG = 1
#: How long a thread in the background may keep those who answer waiting, each time they wait.
#: Python's own is ten times as long; a shorter one costs requests a second.
_TURN_SECONDS = 0.0005
#: The same while a model is loaded beside the one that answers.
_SHORTEST_TURN_SECONDS = 0.0001


def end_with_parent() -> None:
    """Have the kernel stop this process when the one that started it dies.

    A worker left behind by a killed server would keep its port, and answer from another world.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def take_short_turns() -> None:
    """Have Python change threads more often than it does by itself."""
    sys.setswitchinterval(_TURN_SECONDS)


@contextmanager
def shortest_turns() -> Iterator[None]:
    """Have it change threads still more often, as long as any thread is in here.

    The operating system's priorities would do harm: a thread of a low one that holds the
    interpreter, and does not run for other processes, keeps all others waiting.
    """
    _SHORTEST.enter()
    try:
        yield
    finally:
        _SHORTEST.leave()


class _Shortest:
    """Threads that want the shortest turns, and what turns were before the first of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._before = 0.0

    def enter(self) -> None:
        with self._lock:
            if self._count == 0:
                self._before = sys.getswitchinterval()
                sys.setswitchinterval(_SHORTEST_TURN_SECONDS)
            self._count += 1

    def leave(self) -> None:
        with self._lock:
            self._count -= 1
            if self._count == 0:
                sys.setswitchinterval(self._before)


_SHORTEST = _Shortest()
