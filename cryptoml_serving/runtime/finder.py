"""One thread for work that may hang: it takes one caller with it, and never the process's end."""

from __future__ import annotations

import logging
import queue
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from cryptoml_serving.runtime.errors import LakeUnavailableError
from cryptoml_serving.telemetry import event

if TYPE_CHECKING:
    from collections.abc import Callable

_LOG = logging.getLogger(__name__)
#: Callers that may wait for their turn.
MOST_WAITING = 16
_Found = TypeVar("_Found")


class Finder:
    """Does what it is given in order. An executor's threads would hold up the process's end."""

    def __init__(self) -> None:
        """Nothing runs before ``start``."""
        self._waiting: queue.Queue[tuple[Future[Any], Callable[[], Any]] | None]
        self._waiting = queue.Queue(MOST_WAITING)
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="lake-find", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def submit(self, function: Callable[..., _Found], *arguments: Any) -> Future[_Found]:
        """Call ``function`` when it is its turn; a caller that gave up is passed over.

        Raises:
            LakeUnavailableError: as many wait as may, or this was stopped.
        """
        future: Future[_Found] = Future()
        if self._stopped:
            raise LakeUnavailableError("the service ends")
        try:
            self._waiting.put_nowait((future, lambda: function(*arguments)))
        except queue.Full as error:
            raise LakeUnavailableError(f"{MOST_WAITING} wait for the lake already") from error
        return future

    def stop(self) -> None:
        """Take nothing more, and give up what waits; what is being done is not waited for."""
        self._stopped = True
        while True:
            try:
                waiting = self._waiting.get_nowait()
            except queue.Empty:
                break
            if waiting is not None:
                waiting[0].cancel()
        self._waiting.put_nowait(None)

    def _run(self) -> None:
        while (work := self._waiting.get()) is not None:
            future, call = work
            if not future.set_running_or_notify_cancel():
                continue
            try:
                found = call()
            except Exception as error:  # noqa: BLE001 - it is the caller's to handle
                future.set_exception(error)
            except BaseException as error:  # noqa: BLE001 - a panic of deltalake's Rust
                why = f"{type(error).__name__}: {error}"
                event(_LOG, logging.ERROR, "error", f"lake: {why}", error_type="lake", part="lake")
                failed = LakeUnavailableError(why)
                failed.__cause__ = error
                future.set_exception(failed)
            else:
                future.set_result(found)
