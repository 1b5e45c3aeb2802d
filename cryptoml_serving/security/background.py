"""Work that repeats beside the requests."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_STOP_SECONDS = 1.0


class Repeated:
    """Does one thing again and again in a thread of its own."""

    def __init__(self, name: str, work: Callable[[], float]) -> None:
        """Do nothing yet.

        Args:
            name: of the thread.
            work: done each time; returns the seconds until the next. Its errors are its own to
                report: one that escapes ends the thread.
        """
        self._work = work
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin, with the first time at once."""
        self._thread.start()

    def ask(self) -> None:
        """Have it done now; never waits."""
        self._wake.set()

    def stop(self) -> None:
        """Ask the thread to end, and wait a little for it. Harmless where it never began."""
        self._stop.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        while not self._stop.is_set():
            pause = self._work()
            self._wake.wait(pause)
            self._wake.clear()
