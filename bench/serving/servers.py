"""The servers under load: processes with ports of their own, checked before they are measured."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

HOST = "127.0.0.1"
_START_SECONDS = 120.0
_STOP_SECONDS = 20.0


class ServerError(Exception):
    """A server that did not start, or answers something else than it should."""


@dataclass(frozen=True)
class Side:
    """What is asked of one server.

    Attributes:
        name: for a person.
        port: of ``HOST``.
        path: of the requests.
        method: of HTTP.
        bodies: sent in turns; none where it is a GET.
        headers: beside the content type.
        check: raises for the answer to the first body that is not right.
    """

    name: str
    port: int
    path: str
    method: str = "POST"
    bodies: tuple[str, ...] = ("",)
    headers: Mapping[str, str] = field(default_factory=dict)
    check: Callable[[bytes], None] = lambda _: None

    @property
    def url(self) -> str:
        """Where the requests go."""
        return f"http://{HOST}:{self.port}{self.path}"

    def ask(self) -> bytes:
        """The answer to the first body.

        Raises:
            OSError: there is none, or it is an error.
        """
        data = self.bodies[0].encode() or None
        headers = {"Content-Type": "application/json", **self.headers}
        request = urllib.request.Request(  # noqa: S310 - a loopback address
            self.url, data, headers, method=self.method
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return bytes(answer.read())


@contextmanager
def running(
    name: str, command: Sequence[str | Path], variables: Mapping[str, str], folder: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A server in a process group of its own; what it says goes to ``folder/NAME.log``."""
    log = folder / f"{name}.log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            command, env=dict(variables), stdout=said, stderr=said, start_new_session=True
        )
    try:
        yield process
    except BaseException:  # interrupted too: what the server said last is in a file that goes
        sys.stderr.write(f"{name} said last:\n{log.read_text(errors='replace')[-2000:]}\n")
        raise
    finally:
        _end(process)


def await_answer(side: Side, process: subprocess.Popen[bytes]) -> None:
    """Wait until the server answers, and check what.

    Raises:
        ServerError: it ended, or it did not answer in time.
    """
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            answer = side.ask()
            break
        except OSError as error:
            if process.poll() is not None:
                message = f"{side.name} ended with {process.returncode}"
                raise ServerError(message) from None
            if time.monotonic() > deadline:
                told = error.read() if isinstance(error, urllib.error.HTTPError) else error
                message = f"{side.name} does not answer: {told!r}"
                raise ServerError(message) from None
            time.sleep(0.1)
    side.check(answer)


class Servers:
    """Those that are up, until the end of the ``with`` block."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.environment = environment
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._stack.__exit__(*raised)  # type: ignore[arg-type]

    def start(
        self,
        name: str,
        command: Sequence[str | Path],
        side: Side,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """Start one, and return once it gives the right answer."""
        began = time.monotonic()
        everything = {**self.environment, **(variables or {})}
        process = self._stack.enter_context(running(name, command, everything, self.folder))
        await_answer(side, process)
        print(f"  {name} answers after {time.monotonic() - began:.1f} s", flush=True)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a server and whatever it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            continue
    process.wait()
