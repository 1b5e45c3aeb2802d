"""SIGTERM with the drain that the chart gives a pod: whatever was begun by then is answered."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.sandbox_server import free_port
from tests.serving_world import FEATURES, NOW, REPOSITORY, ServingWorld, build_templates
from tests.waiting import until

COMMAND = [sys.executable, "-m", "cryptoml_serving"]
SECONDS = 60.0
CALLERS = 4
ONE = json.dumps({"symbol": "BTC/USDT"}).encode()
COLUMNS = [each.name for each in FEATURES]
#: As many rows as one request may bring.
MANY = json.dumps({"columns": COLUMNS, "matrix": [[0.1, 0.2, 0.3]] * 512}).encode()
BODIES = {"/predict": ONE, "/predict/features": MANY}


def charted_drain() -> float:
    """Seconds of the chart's own values."""
    values = (REPOSITORY / "helm" / "cryptoml" / "values.yaml").read_text()
    (found,) = re.findall(r"^  drainSeconds: (\d+)", values, re.MULTILINE)
    return float(found)


@dataclass
class Tally:
    """Requests that were begun, and what became of those that were not answered.

    Attributes:
        begun: how many.
        answered: how many of them, with what they asked for.
        dropped: why not, of each other.
    """

    begun: int = 0
    answered: int = 0
    dropped: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def one(self) -> Iterator[None]:
        """Count what happens within as one request."""
        with self.lock:
            self.begun += 1
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever it is, the request was dropped
            with self.lock:
                self.dropped.append(repr(error))
        else:
            with self.lock:
                self.answered += 1


class Half:
    """A request on a connection that is kept, of which half the body was sent."""

    def __init__(self, port: int, path: str) -> None:
        self.body = BODIES[path]
        self.connection = HTTPConnection("127.0.0.1", port, timeout=SECONDS)
        whole(self.connection, path)
        self.connection.putrequest("POST", path)
        self.connection.putheader("Content-Type", "application/json")
        self.connection.putheader("Content-Length", str(len(self.body)))
        self.connection.endheaders(self.body[: len(self.body) // 2])

    def finish(self) -> None:
        with closing(self.connection):
            self.connection.send(self.body[len(self.body) // 2 :])
            read(self.connection)


def whole(connection: HTTPConnection, path: str) -> bool:
    """Ask on a connection; says whether the service wants it closed."""
    headers = {"Content-Type": "application/json"}
    connection.request("POST", path, BODIES[path], headers)
    return read(connection)


def read(connection: HTTPConnection) -> bool:
    answer = connection.getresponse()
    told = answer.read()
    assert answer.status == 200, told
    assert json.loads(told)
    return answer.getheader("connection") == "close"


def ask(port: int, path: str, tally: Tally, stop: threading.Event) -> None:
    """Ask without a pause, on one connection for as long as the service keeps it."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=SECONDS)) as connection:
        while not stop.is_set():
            with tally.one():
                if whole(connection, path):
                    connection.close()


@contextmanager
def asking(port: int, tally: Tally) -> Iterator[None]:
    """Have callers ask meanwhile."""
    stop = threading.Event()
    callers = [
        threading.Thread(target=ask, args=(port, path, tally, stop), daemon=True)
        for path in (*["/predict"] * CALLERS, "/predict/features")
    ]
    for each in callers:
        each.start()
    try:
        yield
    finally:
        stop.set()
        for each in callers:
            each.join(SECONDS)


def about_to_stop(port: int) -> bool:
    with closing(HTTPConnection("127.0.0.1", port, timeout=SECONDS)) as connection:
        connection.request("GET", "/ready")
        return connection.getresponse().status == 503


def refuses(port: int) -> bool:
    """Whether it takes no connection any more."""
    with socket.socket() as probe:
        probe.settimeout(SECONDS)
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.timeout(300)
def test_nothing_that_was_begun_is_dropped(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    world = ServingWorld(tmp_path, build_templates(tmp_path_factory.getbasetemp()))
    world.write_features({"BTC/USDT": (0.1, 0.2, 0.3)}, at=NOW - timedelta(minutes=1))
    world.publish()
    port, drain, tally = free_port(), charted_drain(), Tally()
    environment = {
        **world.environment(port),
        "CRYPTOML_SERVING_DRAIN": f"{drain:g}s",
        # Bodies are held back for longer than anybody's would be.
        "CRYPTOML_SERVING_DEADLINE": f"{SECONDS:g}s",
    }
    server = subprocess.Popen(COMMAND, env=environment, stderr=subprocess.DEVNULL)
    try:
        until(lambda: not refuses(port), SECONDS)
        until(lambda: not about_to_stop(port), 2 * SECONDS)
        early, late = ([Half(port, path) for path in BODIES for _ in range(4)] for _ in range(2))
        with asking(port, tally):
            until(lambda: tally.begun > 50)
            server.send_signal(signal.SIGTERM)
            told = time.monotonic()
            until(lambda: about_to_stop(port), drain / 2)
            before = tally.begun
            # Nobody is polite: also those go on to ask whose connection was closed.
            until(lambda: time.monotonic() > told + drain / 4 and tally.begun > before + 50)
            for half in early:
                with tally.one():
                    half.finish()
        assert time.monotonic() < told + drain, "the machine is too slow to say"
        until(lambda: refuses(port), SECONDS)
        # The listener is gone; what was begun is answered still.
        for half in late:
            with tally.one():
                half.finish()
        assert server.wait(SECONDS) == 0
    finally:
        server.kill()
        server.wait()
    assert tally.dropped == []
    assert tally.answered == tally.begun
