"""A JSON line for every request, written in batches by a thread of its own.

A request only puts a tuple into a queue; making a line of it and writing that would cost as much as
the answer. Lines are a twentieth of a second late, and those of a killed process are lost. What the
queue has no room for, because nobody reads the output, is dropped and counted, and so is what
cannot be made into a line or written.
"""

from __future__ import annotations

import io
import logging
import os
import select
import stat
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, TextIO

import orjson

from cryptoml_serving.telemetry import event

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptoml_serving.runtime.answers import Answer
    from cryptoml_serving.telemetry import Metrics

_LOG = logging.getLogger(__name__)
_PAUSE_SECONDS = 0.05
_STOP_SECONDS = 2.0
#: Bytes that one write to a pipe keeps together; lines are ASCII, or hardly longer than it.
_PIPE_BYTES = select.PIPE_BUF
#: Lines made in one go, which takes less than a millisecond.
_AT_ONCE = 100
#: Requests that wait to be written, at most.
MOST_WAITING = 50_000
#: Longest path told; a hostile one has any length.
_PATH_CHARACTERS = 200


class Answered(NamedTuple):
    """A prediction that was answered; a tuple, because one is made for every answer.

    Attributes:
        at: POSIX second.
        request_id: of the request.
        caller: who asked.
        answer: what was answered.
        age: seconds its features were old.
    """

    at: float
    request_id: str
    caller: str
    answer: Answer
    age: float

    def line(self) -> bytes:
        """Its JSON object: the event, and the answer's own members."""
        return b'{%b,%b,"request_id":%b,"caller":%b,%b' % (
            _time(self.at),
            _predicted(self.answer.prediction.symbol),
            orjson.dumps(self.request_id),
            _quoted(self.caller),
            self.answer.body(self.age)[1:],
        )


@dataclass(frozen=True, slots=True)
class Requested:
    """Any other request.

    Attributes:
        at: POSIX second.
        request_id: of the request.
        caller: who asked; empty where nobody was let in.
        method: of HTTP.
        path: without its query, which may hold what is nobody's business.
        status: answered.
        seconds: until the answer had been sent.
    """

    at: float
    request_id: str
    caller: str
    method: str
    path: str
    status: int
    seconds: float

    def line(self) -> bytes:
        """Its JSON object."""
        path = self.path[:_PATH_CHARACTERS]
        members = {
            **_common("request", f"{self.method} {path} {self.status}"),
            "request_id": self.request_id,
            "caller": self.caller,
            "method": self.method,
            "path": path,
            "status": self.status,
            "seconds": round(self.seconds, 6),
        }
        return b"{%b,%b" % (_time(self.at), orjson.dumps(members)[1:])


class AccessLog:
    """Takes what happened, and writes it a little later."""

    def __init__(
        self,
        metrics: Metrics,
        write: Callable[[str], object] | None = None,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        """Write nothing yet; ``start`` begins.

        Args:
            metrics: told of lines that were dropped.
            write: takes whole lines; standard error when absent.
            most_waiting: requests that wait at most.
        """
        self._metrics = metrics
        self._write = write or _to_standard_error
        self._most = most_waiting
        self._queue: deque[Answered | Requested] = deque()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        #: What failed, of which each is told once.
        self._told: set[str] = set()

    def start(self) -> None:
        """Begin writing."""
        self._thread.start()

    def stop(self) -> None:
        """Write what waits, and end."""
        self._stopping.set()
        if self._thread.is_alive():
            # Where nobody reads the output, writing it waits for ever.
            self._thread.join(_STOP_SECONDS)

    def add(self, entry: Answered | Requested) -> None:
        """Have a request written; never waits."""
        if len(self._queue) >= self._most:
            self._metrics.access_log_dropped.inc()
            return
        self._queue.append(entry)

    def flush(self) -> None:
        """Write what waits now."""
        while self._queue:
            some = min(len(self._queue), _AT_ONCE)
            lines = [line for _ in range(some) if (line := self._line()) is not None]
            if lines:
                self._put(lines)
            # Whoever answers meanwhile goes first.
            time.sleep(0)

    def _line(self) -> bytes | None:
        """The next one that waits; none where it cannot be made, which is told and counted."""
        try:
            return self._queue.popleft().line()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is of one request alone
            self._metrics.access_log_dropped.inc()
            self._tell("a request is not logged", error)
            return None

    def _put(self, lines: list[bytes]) -> None:
        try:
            self._write((b"\n".join(lines) + b"\n").decode())
        except Exception as error:  # noqa: BLE001 - whatever it is, the next ones are tried
            self._metrics.access_log_dropped.inc(len(lines))
            self._tell("requests are not logged", error)

    def _run(self) -> None:
        while True:
            last = self._stopping.wait(_PAUSE_SECONDS)
            self.flush()
            if last:
                return

    def _tell(self, what: str, error: Exception) -> None:
        if what not in self._told:
            message = f"{what}: {error}"
            event(_LOG, logging.ERROR, "error", message, error_type="access_log")
        self._told.add(what)


def _time(at: float) -> bytes:
    """The first member of each line."""
    second, microsecond = divmod(round(at * 1e6), 1_000_000)
    return b'"time":"%b.%06d+00:00"' % (_second(second), microsecond)


@lru_cache(maxsize=4)
def _second(second: int) -> bytes:
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}".encode()


def _common(name: str, message: str) -> dict[str, object]:
    return {"level": "info", "logger": __name__, "event": name, "message": message}


# What is the same in line after line is serialised once.
@lru_cache(maxsize=1024)
def _predicted(symbol: str) -> bytes:
    return orjson.dumps(_common("prediction", f"predicted {symbol}"))[1:-1]


@lru_cache(maxsize=1024)
def _quoted(caller: str) -> bytes:
    return orjson.dumps(caller)


def _to_standard_error(lines: str) -> None:
    """Write whole lines, in parts that the kernel keeps together.

    Workers share it. A file keeps together whatever is written at once; a pipe mixes what is longer
    with other workers' lines. Each further part has the answering thread give way once more.
    """
    if _is_whole(sys.stderr):
        _write_out([lines])
        return
    part: list[str] = []
    size = 0
    for line in lines.splitlines(keepends=True):
        if size + len(line) > _PIPE_BYTES:
            _write_out(part)
            part, size = [], 0
        part.append(line)
        size += len(line)
    _write_out(part)


def _is_whole(stream: TextIO) -> bool:
    """Whether what is written to ``stream`` at once stays together: it is a file, or memory."""
    try:
        descriptor = stream.fileno()
    except io.UnsupportedOperation:
        return True
    return stat.S_ISREG(os.fstat(descriptor).st_mode)


def _write_out(lines: list[str]) -> None:
    sys.stderr.write("".join(lines))
    sys.stderr.flush()
