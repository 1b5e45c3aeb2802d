"""What is remembered and told beyond the newest snapshot: one object for an application."""

from __future__ import annotations

import asyncio
import signal
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cryptoml_serving.runtime.announcer import Announcer
from cryptoml_serving.runtime.lake_view import LakeView
from cryptoml_serving.runtime.recent import Recent

if TYPE_CHECKING:
    from types import FrameType

    from cryptoml_serving.runtime.state import State
    from cryptoml_serving.settings import ServingSettings
    from cryptoml_serving.telemetry import Metrics

_ENDS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class Chronicle:
    """What streams, the page and the look-up of predictions read.

    Attributes:
        announcer: whoever makes a snapshot publishes it here.
        recent: the predictions published lately.
        lake: what the lake says.
    """

    announcer: Announcer
    recent: Recent
    lake: LakeView

    @classmethod
    def of(cls, settings: ServingSettings, state: State, metrics: Metrics) -> Self:
        """Everything linked, and nothing started."""
        recent = Recent()
        return cls(
            announcer=Announcer(recent.add, answers=lambda: state.snapshot),
            recent=recent,
            lake=LakeView(settings, metrics, lambda: state.ready),
        )

    def start(self) -> None:
        """Begin reading the lake. Call it in the loop that serves, when that starts.

        A server that is told to stop waits for every open connection before it says so to its
        application, and a stream never ends by itself. So streams end at the signal.
        """
        self.lake.start()
        if threading.current_thread() is threading.main_thread():
            loop = asyncio.get_running_loop()
            for number in _ENDS:
                _also_at(number, loop, self.announcer)

    def stop(self) -> None:
        """End every stream, and the reading."""
        self.announcer.close()
        self.lake.stop()


def _also_at(number: signal.Signals, loop: asyncio.AbstractEventLoop, announcer: Announcer) -> None:
    """Close the announcer at a signal that the server handles, before the server does."""
    before = signal.getsignal(number)
    if not callable(before):
        return

    def handle(received: int, frame: FrameType | None) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(announcer.close)
        before(received, frame)

    signal.signal(number, handle)
