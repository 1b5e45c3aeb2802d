"""The admin port: a server of its own, over sockets."""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from cryptoml_serving.api.listener import AdminListener
from cryptoml_serving.api.service import Service
from cryptoml_serving.runtime.state import State
from cryptoml_serving.security.guard import Guard
from cryptoml_serving.security.keys import add_key
from cryptoml_serving.security.roles import ANONYMOUS, Caller, Role
from cryptoml_serving.settings import ServingSettings
from cryptoml_serving.telemetry import Metrics
from tests.certificates import self_signed
from tests.sandbox_server import free_port
from tests.waiting import until

NOW = datetime(2024, 3, 1, tzinfo=UTC)


@contextmanager
def administered(
    looks: list[None], **settings: Any
) -> Iterator[tuple[httpx.Client, ServingSettings]]:
    """A client of the admin routes of a service that has nothing else."""
    port = settings.pop("serving_admin_port", None) or free_port()
    configured = ServingSettings(serving_admin_port=port, **settings)
    service = Service(
        settings=configured,
        metrics=Metrics("model"),
        state=State(),
        look=lambda: looks.append(None),
        guard=Guard.of(configured),
        batcher=None,  # type: ignore[arg-type] # no admin route predicts
        access_log=None,  # type: ignore[arg-type]
    )
    listener = AdminListener.of(service)
    assert listener is not None
    listener.start()
    certificate = configured.serving_tls_certificate
    scheme = "http" if certificate is None else "https"
    verify = ssl.create_default_context(cafile=certificate)
    try:
        with httpx.Client(base_url=f"{scheme}://127.0.0.1:{port}", verify=verify) as client:
            until(lambda: answers(client))
            yield client, configured
    finally:
        listener.stop()


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/health").is_success
    except httpx.TransportError:
        return False


def test_on_this_machine_anybody_may_ask_for_a_look() -> None:
    looks: list[None] = []
    with administered(looks) as (client, configured):
        with pytest.raises(OSError, match=r"refused|unreachable|assign"):
            socket.create_connection(("127.0.0.2", configured.serving_admin_port), 5)
        answer = client.post("/admin/reload")
        assert (answer.status_code, answer.json()) == (202, {"status": "asked"})
        assert looks == [None]
        assert "service_ready" not in client.get("/metrics").text
        assert "prediction_requests_total" in client.get("/metrics").text


def test_a_look_takes_the_role_admin(tmp_path: Path) -> None:
    path, looks = tmp_path / "keys.json", list[None]()
    keys = {
        role: add_key(path, role, roles=[role], rate=None, now=NOW)
        for role in (Role.PREDICT, Role.ADMIN)
    }
    with administered(looks, serving_keys=path) as (client, _):

        def statuses(method: str, url: str) -> list[int]:
            tried = [{}, *({"Authorization": f"Bearer {key}"} for key in keys.values())]
            return [client.request(method, url, headers=each).status_code for each in tried]

        assert statuses("POST", "/admin/reload") == [401, 403, 202]
        assert looks == [None]
        assert statuses("GET", "/metrics") == [401, 200, 200]
        assert statuses("GET", "/health") == [200, 200, 200]
        # Nothing is told to strangers, not even what there is not.
        assert statuses("GET", "/other") == [401, 403, 404]
        assert statuses("GET", "/admin/reload") == [401, 403, 405]
        refused = client.post("/admin/reload")
    members = refused.json()
    assert members["type"] == "urn:cryptoml:problem:unauthorized"
    assert members["request_id"] == refused.headers["x-request-id"]
    assert refused.headers["www-authenticate"].startswith("Bearer")
    assert refused.headers["x-content-type-options"] == "nosniff"
    assert "server" not in refused.headers


def test_head_is_answered_where_get_is() -> None:
    with administered([]) as (client, _):
        for path in ("/health", "/metrics"):
            asked, answer = client.get(path), client.head(path)
            assert (answer.status_code, answer.content) == (200, b"")
            assert answer.headers["content-type"] == asked.headers["content-type"]
            assert int(answer.headers["content-length"]) > 0
        refused = client.post("/health")
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
        refused = client.head("/admin/reload")
        assert (refused.status_code, refused.headers["allow"]) == (405, "POST")


def test_an_address_that_a_caller_claims_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    def admit(_: Guard, headers: object, role: Role, client: tuple[str, int]) -> Caller:
        told.append(client[0])
        return ANONYMOUS

    monkeypatch.setattr(Guard, "admit", admit)
    with administered([]) as (client, _):
        client.get("/metrics", headers={"X-Forwarded-For": "192.0.2.9"})
    assert told == ["127.0.0.1"]


def test_a_failure_is_logged_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(list[None]):
        def append(self, _: None) -> None:
            raise RuntimeError("secret detail")

    with administered(Broken()) as (client, _), caplog.at_level(logging.ERROR):
        answer = client.post("/admin/reload")
    assert answer.status_code == 500
    assert "secret detail" not in answer.text
    assert any("secret detail" in record.getMessage() for record in caplog.records)


def test_nobody_is_handed_a_socket(caplog: pytest.LogCaptureFixture) -> None:
    wanted = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
    }
    with administered([]) as (client, _), caplog.at_level(logging.ERROR):
        assert client.get("/health", headers=wanted).status_code == 200
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_each_worker_takes_the_first_free_port() -> None:
    first = _two_free_ports()
    settings = {"serving_admin_port": first, "serving_workers": 2}
    with administered([], **settings), _client(first + 1) as second:
        assert not answers(second)
        with administered([], **settings):
            until(lambda: answers(second))


def test_a_worker_waits_for_the_port_of_the_one_before() -> None:
    port = free_port()
    mine, other = list[None](), list[None]()
    with ExitStack() as before:
        before.enter_context(administered(mine, serving_admin_port=port))
        with administered(other, serving_admin_port=port) as (client, _):
            # Both have been started: the first answers still.
            assert client.post("/admin/reload").status_code == 202
            assert (len(mine), len(other)) == (1, 0)
            before.close()
            until(lambda: answers(client))
            assert client.post("/admin/reload").status_code == 202
    assert (len(mine), len(other)) == (1, 1)


def test_the_admin_routes_speak_tls_where_the_service_does(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    settings = {"serving_tls_certificate": certificate, "serving_tls_key": key}
    with administered([], **settings) as (client, configured):
        assert client.get("/health").headers["strict-transport-security"]
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{configured.serving_admin_port}/health")
        old = ssl.create_default_context(cafile=certificate)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(httpx.ConnectError, match=r"(?i)protocol"):
            httpx.get(str(client.base_url), verify=old)


def _client(port: int) -> httpx.Client:
    return httpx.Client(base_url=f"http://127.0.0.1:{port}")


def _two_free_ports() -> int:
    while True:
        first = free_port()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", first + 1)) != 0:
                return first
