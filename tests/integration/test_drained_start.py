"""The service is told to stop while it still starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.sandbox_server import free_port
from tests.waiting import until

COMMAND = [sys.executable, "-m", "cryptoml_serving"]


@pytest.mark.skipif(sys.platform != "linux", reason="ignored signals are inherited as on Linux")
def test_a_worker_that_still_starts_survives_to_say_that_it_is_about_to_stop(
    tmp_path: Path,
) -> None:
    port, log = free_port(), tmp_path / "log"
    environment = {
        **os.environ,
        "CRYPTOML_HOME": str(tmp_path),
        "CRYPTOML_SERVING_PORT": str(port),
        "CRYPTOML_SERVING_ADMIN_PORT": "0",
        "CRYPTOML_SERVING_DRAIN": "60s",
    }
    with log.open("w") as stderr:
        server = subprocess.Popen(COMMAND, env=environment, stderr=stderr)
    try:
        until(lambda: "Spawning worker-1" in log.read_text(), 60)
        server.send_signal(signal.SIGTERM)
        until(lambda: _says_it_stops(port), 60)
        # The second time ends it at once.
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
    finally:
        server.kill()
        server.wait()
    assert "Unexpected exit" not in log.read_text()


def _says_it_stops(port: int) -> bool:
    try:
        answer = httpx.get(f"http://127.0.0.1:{port}/health")
    except httpx.TransportError:
        return False
    return bool(answer.headers.get("connection") == "close")
