"""The health checks of the images, against servers that are well, unwell, silent and gone."""

from __future__ import annotations

import contextlib
import http.server
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from tests.certificates import self_signed
from tests.sandbox_server import free_port

HEALTH = Path(__file__).parents[2] / "docker" / "health"


def check(script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", HEALTH / script, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **variables},
    )


class Answers(http.server.BaseHTTPRequestHandler):
    """Alive, and not ready."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@contextlib.contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield str(server.server_port)
        finally:
            server.shutdown()
            thread.join()


def test_a_service_that_lives_is_well_before_it_is_ready() -> None:
    with serving() as port:
        alive = check("service.py", CRYPTOML_SERVING_PORT=port)
        ready = check("service.py", "/ready", CRYPTOML_SERVING_PORT=port)
    assert (alive.returncode, alive.stdout) == (0, "/health: 200\n")
    assert (ready.returncode, ready.stdout) == (1, "/ready: 503\n")


def test_a_service_with_tls_is_asked_over_tls(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with serving(context) as port:
        own = {"CRYPTOML_SERVING_PORT": port, "CRYPTOML_SERVING_TLS_CERTIFICATE": str(certificate)}
        assert check("service.py", **own).returncode == 0
        assert check("service.py", CRYPTOML_SERVING_PORT=port).returncode == 1


def test_a_service_that_is_gone_or_silent_is_not_well() -> None:
    gone = check("service.py", CRYPTOML_SERVING_PORT=str(free_port()))
    assert gone.returncode == 1
    assert "ConnectionRefusedError" in gone.stderr
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = str(silent.getsockname()[1])
        found = check("service.py", CRYPTOML_SERVING_PORT=port)
    assert found.returncode == 1
    assert "TimeoutError" in found.stderr


@pytest.fixture
def code_server() -> Iterator[tuple[health.HealthServicer, str]]:
    servicer = health.HealthServicer()
    server = grpc.server(futures.ThreadPoolExecutor(1))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer, str(port)
    server.stop(None).wait()


def test_a_code_server_says_itself_whether_it_is_well(
    code_server: tuple[health.HealthServicer, str],
) -> None:
    servicer, port = code_server
    status = health_pb2.HealthCheckResponse
    servicer.set("DagsterApi", status.SERVING)
    well = check("code_server.py", port)
    assert (well.returncode, well.stdout) == (0, f"{port}: SERVING\n")
    servicer.set("DagsterApi", status.NOT_SERVING)
    assert check("code_server.py", port).returncode == 1


def test_a_code_server_that_is_another_or_gone_is_not_well(
    code_server: tuple[health.HealthServicer, str],
) -> None:
    assert "NOT_FOUND" in check("code_server.py", code_server[1]).stderr
    gone = check("code_server.py", str(free_port()))
    assert gone.returncode == 1
    assert "UNAVAILABLE" in gone.stderr
