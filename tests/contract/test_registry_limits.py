"""A registry that hangs, drips or has lost its files is one that does not answer, and soon."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from cryptoml_serving.runtime import registry_limits
from cryptoml_serving.runtime.errors import RegistryUnavailableError
from cryptoml_serving.runtime.registry_client import connect
from cryptoml_serving.runtime.registry_limits import LimitedRegistry
from cryptoml_serving.runtime.registry_sqlite import SqliteRegistry
from tests.serving_client import wait
from tests.serving_world import MODEL
from tests.talking_server import answering, saying


def test_a_database_that_is_silent_is_given_up_and_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Silent:
        asked = 0

        def __init__(self) -> None:
            self.goes_on = threading.Event()

        def model(self, _: str) -> None:
            Silent.asked += 1
            self.goes_on.wait(20)

    silent = Silent()
    monkeypatch.setattr(registry_limits, "connect", lambda _: silent)
    monkeypatch.setattr(registry_limits, "_ANSWER_SECONDS", 0.1)
    registry = LimitedRegistry("postgresql://u:p@h/d")
    began = time.monotonic()
    with pytest.raises(RegistryUnavailableError, match=r"nothing within 0\.1 s"):
        registry.model(MODEL)
    # While that one hangs, the next costs no thread.
    with pytest.raises(RegistryUnavailableError, match="1 questions to it hang"):
        registry.model(MODEL)
    assert Silent.asked == 1
    assert time.monotonic() - began < 10
    silent.goes_on.set()
    wait(lambda: not registry._looks._hanging[0].is_alive())
    registry.model(MODEL)
    assert Silent.asked == 2


def test_headers_without_end_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_limits, "_ANSWER_SECONDS", 0.5)

    def drip(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\n")
        for number in range(100):
            request.wfile.write(b"X-%d: a\r\n" % number)
            time.sleep(0.05)

    with answering(drip) as url:
        began = time.monotonic()
        with pytest.raises(RegistryUnavailableError, match=r"nothing within 0\.5 s"):
            LimitedRegistry(url).model(MODEL)
        # All headers take five seconds.
        assert time.monotonic() - began < 4


def test_what_keeps_a_client_from_being_made_is_a_registry_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(tmp_path / "nothing.pem"))
    with pytest.raises(RegistryUnavailableError, match="FileNotFoundError"):
        LimitedRegistry("https://127.0.0.1:1").model(MODEL)
    with pytest.raises(RegistryUnavailableError, match="File name too long"):
        SqliteRegistry(tmp_path / ("x" * 300)).model(MODEL)


def test_a_proxy_whose_store_is_not_mounted_does_not_answer() -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        run = b'{"run": {"info": {"artifact_uri": "mlflow-artifacts:/1/r/artifacts"}}}'
        saying(200, run if "runs/get" in request.path else b"{}")(request)

    with answering(answer) as url:
        artifacts = connect(url).artifacts("r")
        with pytest.raises(RegistryUnavailableError, match="nothing of the run"):
            artifacts.names("approval")
