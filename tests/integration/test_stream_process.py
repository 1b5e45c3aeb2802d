"""The stream of a server process: it ends at SIGTERM, and who does not read holds up nobody."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from tests.sandbox_server import free_port
from tests.serving_client import wait
from tests.serving_world import NOW, ServingWorld, build_templates

COMMAND = [sys.executable, "-m", "cryptoml_serving"]
STREAM = b"GET /predictions/stream HTTP/1.1\r\nHost: here\r\n\r\n"


def test_streams_end_at_the_signal_and_slow_readers_hold_up_nobody(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    world = ServingWorld(tmp_path, build_templates(tmp_path_factory.getbasetemp()))
    world.write_features({"BTC/USDT": (0.1, 0.2, 0.3)}, at=NOW - timedelta(minutes=1))
    world.publish()
    port = free_port()
    environment = {**world.environment(port), "CRYPTOML_SERVING_REFRESH": "20ms"}
    server = subprocess.Popen(COMMAND, env=environment, stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            wait(lambda: _ready(client))
            # Connections that ask and never read.
            deaf = [socket.create_connection(("127.0.0.1", port)) for _ in range(8)]
            for each in deaf:
                each.sendall(STREAM)
            with client.stream("GET", "/predictions/stream") as answer:
                lines = answer.iter_lines()
                numbers = [int(line[4:]) for line, _ in zip(_ids(lines), range(20), strict=False)]
                assert numbers == sorted(set(numbers))
                began = time.monotonic()
                server.send_signal(signal.SIGTERM)
                for _ in lines:
                    pass
                assert server.wait(20) == 0
                # The server's patience with open connections is far longer.
                assert time.monotonic() - began < 8
            for each in deaf:
                each.close()
    finally:
        server.kill()
        server.wait()


def _ids(lines: object) -> object:
    return (line for line in lines if line.startswith("id: "))  # type: ignore[attr-defined]


def _ready(client: httpx.Client) -> bool:
    try:
        return client.get("/ready").is_success
    except httpx.TransportError:
        return False
