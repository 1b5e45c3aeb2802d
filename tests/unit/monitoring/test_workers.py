"""A name in CRYPTOML_INFERENCE_ADMIN_URLS stands for a worker at each of its addresses."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest

from cryptoml_assets.errors import ServiceMetricsError
from cryptoml_assets.monitoring.scrape import look
from cryptoml_assets.monitoring.serving_sensors import tell_serving
from cryptoml_assets.monitoring.workers import Worker, workers
from cryptoml_assets.settings import Settings, settings
from tests.certificates import self_signed

NAME = "inference-admin"
METRICS = "service_ready 1\nprediction_requests_total 20\nprediction_answers_total 19\n"
Asked = list[tuple[str, str, str | None]]
Known = Callable[..., None]


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Known:
    """Have the resolver know a name by some addresses, and no other name."""

    def at(name: str, *addresses: str) -> None:
        def resolve(host: str | bytes | None, *rest: Any, **more: Any) -> Any:
            family = rest[1] if len(rest) > 1 else more.get("family", 0)
            if host != name:
                return real(host, *rest, **more)
            kinds = {each: socket.AF_INET6 if ":" in each else socket.AF_INET for each in addresses}
            found = [each for each, kind in kinds.items() if family in (0, kind)]
            if not found:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            # The resolver tells an address once for each way to reach it, in any order.
            return [(kinds[each], socket.SOCK_STREAM, 6, "", (each, 0)) for each in found * 2][::-1]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)

    real = socket.getaddrinfo
    return at


@pytest.fixture
def pods() -> Iterator[tuple[str, Asked]]:
    """A worker at each of two addresses and the same port, and what they were asked."""
    asked: Asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(200, METRICS.encode())

        def do_POST(self) -> None:
            self._answer(202, b"")

        def _answer(self, status: int, body: bytes) -> None:
            asked.append((self.server.server_address[0], self.path, self.headers["Host"]))  # type: ignore[arg-type]
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None: ...

    first = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    port = first.server_address[1]
    servers = [first, ThreadingHTTPServer(("127.0.0.2", port), Handler)]
    threads = [
        threading.Thread(target=each.serve_forever, kwargs={"poll_interval": 0.01})
        for each in servers
    ]
    for thread in threads:
        thread.start()
    yield f"http://{NAME}:{port}", asked
    for server, thread in zip(servers, threads, strict=True):
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_figures_are_those_of_every_pod(pods: tuple[str, Asked], known: Known) -> None:
    url, asked = pods
    known(NAME, "127.0.0.1", "127.0.0.2")
    told = look(Settings(inference_admin_urls=(url,)))
    assert told.requests == 40
    assert told.error_rate == pytest.approx(0.05)
    assert sorted(asked) == [("127.0.0.1", "/metrics", NAME), ("127.0.0.2", "/metrics", NAME)]
    known(NAME, "127.0.0.2", "127.0.0.3")
    with pytest.raises(ServiceMetricsError, match=r"ADMIN_URLS: http://127\.0\.0\.3:.*no metrics"):
        look(Settings(inference_admin_urls=(url,)))


def test_every_pod_is_told_of_a_decision(
    pods: tuple[str, Asked], known: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, asked = pods
    known(NAME, "127.0.0.1", "127.0.0.2")
    monkeypatch.setenv("CRYPTOML_INFERENCE_ADMIN_URLS", url)
    settings.cache_clear()
    with dg.DagsterInstance.ephemeral() as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization("validated_deployment"))
        with dg.build_sensor_context(instance=instance) as context:
            done = tell_serving.evaluate_tick(context)
    assert done.skip_message == "the inference service was told"
    reload = "/admin/reload"
    assert sorted(asked) == [("127.0.0.1", reload, NAME), ("127.0.0.2", reload, NAME)]


def test_a_pod_that_is_known_twice_is_one_worker(known: Known) -> None:
    known(NAME, "10.0.0.2", "10.0.0.1", "fd00::1", "fd00::2")
    assert workers(["http://inference-admin:8001", "http://10.0.0.9:8001"]) == [
        Worker("http://10.0.0.1:8001", NAME),
        Worker("http://10.0.0.2:8001", NAME),
        Worker("http://10.0.0.9:8001"),
    ]
    known(NAME, "fd00::2", "fd00::1")
    assert [each.url for each in workers(["https://u:p@inference-admin:8001/"])] == [
        "https://u:p@[fd00::1]:8001/",
        "https://u:p@[fd00::2]:8001/",
    ]


@pytest.mark.parametrize("url", ["http://inference-admin:8001", "http://[::1", "", "nonsense"])
def test_what_is_not_found_stands_for_itself(url: str, known: Known) -> None:
    known(NAME)
    assert workers([url]) == [Worker(url)]


def test_one_address_keeps_its_name(known: Known) -> None:
    known(NAME, "10.0.0.1")
    assert workers(["http://inference-admin:8001"]) == [Worker("http://inference-admin:8001")]


def test_a_certificate_is_asked_for_by_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, request=request)

    real = httpx.Client
    monkeypatch.setattr(
        httpx, "Client", lambda **how: real(transport=httpx.MockTransport(answer), **how)
    )
    Worker("https://10.0.0.1:8001", NAME).ask("GET", "/metrics", key="cml_x", timeout=1.0)
    (request,) = seen
    assert request.extensions["sni_hostname"] == NAME
    assert (request.headers["Host"], request.headers["X-API-Key"]) == (NAME, "cml_x")
    assert str(request.url) == "https://10.0.0.1:8001/metrics"


@pytest.fixture
def encrypted(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A service that speaks TLS, and the authority of its certificate."""
    certificate, key = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}", certificate
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_private_authority_is_trusted_where_it_is_named(
    encrypted: tuple[str, Path], tmp_path: Path
) -> None:
    url, authority = encrypted
    other, _ = self_signed(tmp_path, "other")
    (named,) = workers([url], str(authority))
    assert named.ask("GET", "/metrics", key="", timeout=30.0).status_code == 204
    for stranger in ("", str(other)):
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            Worker(url, authority=stranger).ask("GET", "/metrics", key="", timeout=30.0)


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_an_authority_that_cannot_be_read_is_named(content: str | None, tmp_path: Path) -> None:
    file = tmp_path / "ca.crt"
    if content is not None:
        file.write_text(content)
    with pytest.raises(httpx.ConnectError, match=r"CRYPTOML_INFERENCE_CA_FILE=.*a PEM file"):
        Worker("https://127.0.0.1:1", authority=str(file)).ask("GET", "/", key="", timeout=1.0)
