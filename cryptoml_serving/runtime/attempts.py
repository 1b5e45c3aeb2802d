"""Doing what may fail at every turn: counted each time, told to callers, logged when it changes."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from cryptoml_serving.runtime.errors import ServingError
from cryptoml_serving.telemetry import event

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptoml_serving.runtime.state import Part, State
    from cryptoml_serving.telemetry import Metrics

_LOG = logging.getLogger(__name__)


class Attempts:
    """Attempts to keep the parts of a state current. Each step of a part belongs to one thread."""

    def __init__(self, state: State, metrics: Metrics) -> None:
        """Touch nothing yet.

        Args:
            state: told what keeps a part from being current, and when it last was.
            metrics: told of failures.
        """
        self._state = state
        self._metrics = metrics
        self._lock = threading.Lock()
        #: What is told of each part's steps that fail, and what was logged of them.
        self._failing: dict[Part, dict[str, str]] = {}
        self._logged: dict[tuple[Part, str], str] = {}

    def attempt(self, part: Part, refresh: Callable[[], None], step: str = "") -> None:
        """Call ``refresh``; whatever it raises is told, and the state left as it is.

        Args:
            part: of the state.
            refresh: keeps it current, or one step of that.
            step: name of a step beside the main one. A part is current once the main one succeeds
                and none fails.
        """
        try:
            refresh()
        except ServingError as error:
            self._failed(part, step, error, error.kind, error.summary)
        except Exception as error:  # noqa: BLE001 - the thread's end would freeze what is served
            self._failed(part, step, error, ServingError.kind, ServingError.summary)
        else:
            self._succeeded(part, step)

    def _succeeded(self, part: Part, step: str) -> None:
        with self._lock:
            failing = self._failing.setdefault(part, {})
            failing.pop(step, None)
            self._show(part)
            if not failing and not step:
                self._state.refreshed[part] = time.monotonic()
        if self._logged.pop((part, step), None) is not None:
            event(_LOG, logging.INFO, "recovered", f"{part} current again", part=part)

    def _show(self, part: Part) -> None:
        """Tell the first step that fails; the lock is held."""
        told = next(iter(self._failing[part].values()), None)
        if told is None:
            self._state.problems.pop(part, None)
        else:
            self._state.problems[part] = told

    def _failed(self, part: Part, step: str, error: Exception, kind: str, summary: str) -> None:
        self._metrics.refresh_errors.labels(kind).inc()
        with self._lock:
            self._failing.setdefault(part, {})[step] = summary
            self._show(part)
        if self._logged.get((part, step)) == str(error):
            return
        self._logged[part, step] = str(error)
        trace = None if isinstance(error, ServingError) else error
        event(_LOG, logging.ERROR, "error", str(error), error_type=kind, part=part, exc_info=trace)
