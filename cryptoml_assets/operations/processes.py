"""Child processes of one command: started, watched until ready, and all stopped with it."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import urlsplit

import httpx

from cryptoml_assets.errors import CryptomlError

Answer = TypeVar("Answer")
_STOP_SECONDS = 15.0
_POLL_SECONDS = 0.1
_TAIL_LINES = 25
# Ports to choose from: above the well-known, below what Linux (32768) and others give away.
_FIRST_PORT, _PORTS = 12_000, 20_000
_APART = 211  # no divisor of the ports: processes next to each other begin elsewhere
_STEP = 7  # room above a port for the ones that a server of several workers takes after it
_TRIED_PORTS = 200
_GIVEN = itertools.count()
_PROBE = 0  # the signal that is not sent: only asks whether somebody would get it


class ChildError(CryptomlError):
    """A child process ended by itself or never became ready; the message holds its last lines."""


class PortInUseError(CryptomlError):
    """Something else listens on a port the platform needs; the message names the setting."""


@dataclass(frozen=True)
class Child:
    """One running process, the file that takes its output, and the signal that stops it."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    stop: signal.Signals = signal.SIGTERM

    def failure(self, what: str) -> ChildError:
        """An error that says ``what`` happened and shows the end of the child's output."""
        lines = self.log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        tail = "\n".join(f"    {line}" for line in lines)
        return ChildError(f"{self.name} {what}; the end of {self.log}:\n{tail}")


class Children:
    """The processes of one command; leaving the context stops them all, newest first."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: list[Child] = []

    def __enter__(self) -> Self:
        self._logs.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for child in reversed(self._running):
            _signal_group(child.process, child.stop)
        deadline = time.monotonic() + _STOP_SECONDS
        for child in reversed(self._running):
            while _signal_group(child.process, _PROBE) and time.monotonic() < deadline:
                child.process.poll()
                time.sleep(_POLL_SECONDS)
            _signal_group(child.process, signal.SIGKILL)
            child.process.wait()
        self._running.clear()

    def start(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        stop: signal.Signals = signal.SIGTERM,
        user: int | None = None,
    ) -> Child:
        """Start ``command`` in a process group of its own, its output in ``<logs>/<name>.log``.

        Args:
            name: of the child.
            command: program and arguments.
            environment: variables besides this process's own.
            stop: signal that ends it in order.
            user: number of the user and of the group it runs as; ours when not given.
        """
        log = self._logs / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603  (our own command lines)
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,
                user=user,
                group=user,
                extra_groups=None if user is None else [],
            )
        child = Child(name, process, log, stop)
        self._running.append(child)
        return child

    def wait_ready(self, child: Child, url: str, seconds: float) -> httpx.Response:
        """Poll ``url`` until it answers 200.

        Raises:
            ChildError: when the child ends first or ``seconds`` pass.
        """
        with httpx.Client(timeout=5.0, trust_env=False) as client:

            def ask() -> httpx.Response | None:
                with suppress(httpx.TransportError):
                    answer = client.get(url)
                    return answer if answer.is_success else None
                return None

            return self.wait_until(child, ask, seconds, f"did not answer at {url}")

    def wait_until(
        self, child: Child, ask: Callable[[], Answer | None], seconds: float, trouble: str
    ) -> Answer:
        """Call ``ask`` until it gives an answer, which is returned.

        Raises:
            ChildError: when the child ends first, or ``seconds`` pass: then it says ``trouble``.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if child.process.poll() is not None:
                raise child.failure(f"ended with exit code {child.process.returncode}")
            answer = ask()
            if answer is not None:
                return answer
            time.sleep(_POLL_SECONDS)
        raise child.failure(f"{trouble} within {seconds:g} s")

    def watch(self) -> None:
        """Block while every child runs.

        Raises:
            ChildError: as soon as one ends.
        """
        while True:
            for child in self._running:
                if child.process.poll() is not None:
                    raise child.failure(f"ended with exit code {child.process.returncode}")
            time.sleep(_POLL_SECONDS * 5)


def _signal_group(process: subprocess.Popen[bytes], number: int) -> bool:
    """Signal a child and all it started; false when none of them is left."""
    # The group outlives its leader: a server may have left workers behind.
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return False
    return True


def port_is_free(host: str, port: int) -> bool:
    """Whether a server could listen on ``host:port`` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port(host: str) -> int:
    """A port on which nothing listens, and that stays so until the caller's server has it.

    It lies below the ports that the system gives to outgoing connections and to servers without
    a wish, and processes begin to look for one at different places: a server may start long after
    its port was chosen.

    Raises:
        PortInUseError: where every port looked at is taken.
    """
    for _ in range(_TRIED_PORTS):
        port = _FIRST_PORT + (os.getpid() * _APART + next(_GIVEN) * _STEP) % _PORTS
        if port_is_free(host, port):
            return port
    message = f"{host}: each of {_TRIED_PORTS} ports looked at from {_FIRST_PORT} on is in use"
    raise PortInUseError(message)


def require_port(variable: str, host: str, port: int) -> None:
    """Check that ``port`` can be listened on.

    Raises:
        PortInUseError: naming the variable that moves it.
    """
    if not port_is_free(host, port):
        message = f"{variable}={port}: another process listens on {host}:{port}; choose a free port"
        raise PortInUseError(message)


def address_parts(url: str) -> tuple[str, int]:
    """Host and port of an http address."""
    parts = urlsplit(url)
    return parts.hostname or "127.0.0.1", parts.port or (443 if parts.scheme == "https" else 80)
