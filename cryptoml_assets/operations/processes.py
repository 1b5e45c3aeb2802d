"""Child processes of one command: started, watched until ready, and all stopped with it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import httpx

from cryptoml_assets.errors import CryptomlError

_STOP_SECONDS = 15.0
_POLL_SECONDS = 0.1
_TAIL_LINES = 25
_PROBE = 0  # the signal that is not sent: only asks whether somebody would get it


class ChildError(CryptomlError):
    """A child process ended by itself or never became ready; the message holds its last lines."""


class PortInUseError(CryptomlError):
    """Something else listens on a port the platform needs; the message names the setting."""


@dataclass(frozen=True)
class Child:
    """One running process and the file that takes its output."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

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
            _signal_group(child.process, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        for child in reversed(self._running):
            while _signal_group(child.process, _PROBE) and time.monotonic() < deadline:
                child.process.poll()
                time.sleep(_POLL_SECONDS)
            _signal_group(child.process, signal.SIGKILL)
            child.process.wait()
        self._running.clear()

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> Child:
        """Start ``command`` in a process group of its own, its output in ``<logs>/<name>.log``."""
        log = self._logs / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603  (our own command lines)
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        child = Child(name, process, log)
        self._running.append(child)
        return child

    def wait_ready(self, child: Child, url: str, seconds: float) -> httpx.Response:
        """Poll ``url`` until it answers 200.

        Raises:
            ChildError: when the child ends first or ``seconds`` pass.
        """
        deadline = time.monotonic() + seconds
        with httpx.Client(timeout=5.0, trust_env=False) as client:
            while time.monotonic() < deadline:
                if child.process.poll() is not None:
                    raise child.failure(f"ended with exit code {child.process.returncode}")
                try:
                    answer = client.get(url)
                except httpx.TransportError:
                    time.sleep(_POLL_SECONDS)
                    continue
                if answer.is_success:
                    return answer
                time.sleep(_POLL_SECONDS)
        raise child.failure(f"did not answer at {url} within {seconds:g} s")

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
    """A port on which nothing listens at this moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


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
