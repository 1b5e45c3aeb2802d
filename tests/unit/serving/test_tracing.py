"""One span a request: its name, its parent, its status; and nothing at all when off."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from cryptoml_serving.api.door import Door
from cryptoml_serving.api.service import Service
from cryptoml_serving.app import framework
from cryptoml_serving.contract.settings import SettingsError
from cryptoml_serving.runtime.access_log import AccessLog
from cryptoml_serving.runtime.batcher import Batcher
from cryptoml_serving.runtime.chronicle import Chronicle
from cryptoml_serving.runtime.state import State
from cryptoml_serving.security.guard import Guard
from cryptoml_serving.settings import ServingSettings
from cryptoml_serving.telemetry import Metrics
from cryptoml_serving.tracing import Tracing

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.fixture
def app() -> FastAPI:
    made = FastAPI(telemetry={"tracing": False, "metrics": False, "logs": False})

    @made.get("/predictions/{name}")
    async def prediction(name: str) -> str:
        return name

    @made.get("/broken")
    async def broken() -> None:
        message = "it broke"
        raise RuntimeError(message)

    @made.get("/health")
    async def health() -> None:
        return None

    return made


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


def run(coroutine: Any) -> None:
    # In a thread: where Chromium is driven in this process, its main thread has a loop already.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, coroutine).result()


class Caller:
    """Asks an application in this process."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def ask(self, path: str, method: str = "GET", headers: dict[str, str] | None = None) -> None:
        transport = httpx.ASGITransport(app=self._app, raise_app_exceptions=False)

        async def play() -> None:
            async with httpx.AsyncClient(transport=transport, base_url="http://it") as client:
                await client.request(method, path, headers=headers)

        run(play())


@pytest.fixture
def client(app: FastAPI, spans: InMemorySpanExporter) -> Caller:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return Caller(Tracing(provider).around(app))


def test_a_request_is_a_span_of_its_callers_trace(
    client: Caller, spans: InMemorySpanExporter
) -> None:
    client.ask("/predictions/abc", headers={"traceparent": PARENT})
    (span,) = spans.get_finished_spans()
    assert span.name == "GET /predictions/{name}"
    assert span.kind is SpanKind.SERVER
    assert span.context is not None
    assert f"{span.context.trace_id:032x}" == TRACE
    assert span.attributes is not None
    assert span.attributes["http.response.status_code"] == 200
    assert span.attributes["http.route"] == "/predictions/{name}"
    assert span.status.is_unset


def test_failures_are_errors_and_refusals_are_none(
    client: Caller, spans: InMemorySpanExporter
) -> None:
    client.ask("/broken")
    client.ask("/nowhere")
    client.ask("/predictions/abc", "BREW")
    failed, refused, odd = spans.get_finished_spans()
    assert not failed.status.is_ok
    assert not failed.status.is_unset
    assert refused.status.is_unset
    # A word of the caller's makes no name of its own.
    assert refused.name == "GET"
    assert odd.name.startswith("HTTP")


def test_probes_are_not_traced(client: Caller, spans: InMemorySpanExporter) -> None:
    client.ask("/health")
    assert not spans.get_finished_spans()


@pytest.fixture
def door(spans: InMemorySpanExporter) -> Door:
    """The service's own door, with nothing loaded behind it."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    settings, state, metrics = ServingSettings(), State(), Metrics("m")
    service = Service(
        settings=settings,
        metrics=metrics,
        state=state,
        look=lambda: None,
        guard=Guard.of(settings),
        batcher=Batcher(state, settings, metrics),
        access_log=AccessLog(metrics),
    )

    @asynccontextmanager
    async def nothing(_: FastAPI) -> AsyncIterator[None]:
        yield

    chronicle = Chronicle.of(settings, state, metrics)
    return Door(framework(service, chronicle, nothing), service, Tracing(provider))


@pytest.mark.parametrize(
    ("asked", "name", "statuses"),
    [
        (("POST", "/predict"), "POST /predict", [422, 200]),
        (("POST", "/predict/features"), "POST /predict/features", [422, 200]),
        (("GET", "/v2/models/m"), "GET /v2/models/{name}", [404, 404]),
    ],
)
def test_a_span_names_the_route_and_the_request_whoever_answers(
    door: Door,
    spans: InMemorySpanExporter,
    asked: tuple[str, str],
    name: str,
    statuses: list[int],
) -> None:
    method, path = asked
    Caller(door).ask(path, method, {"x-request-id": "r1"})
    with pytest.MonkeyPatch.context() as patched:
        # What a model makes of it is of no interest here.
        patched.setattr("cryptoml_serving.api.predict.predict", lambda *_: b"{}")
        patched.setattr("cryptoml_serving.api.features.predict_features", _nothing)
        Caller(door).ask(path, method, {"x-request-id": "r1"})
    told = [(span.name, dict(span.attributes or {})) for span in spans.get_finished_spans()]
    assert [each for each, _ in told] == [name, name]
    for _, attributes in told:
        assert f"{method} {attributes['http.route']}" == name
        assert attributes["cryptoml.request_id"] == "r1"
    assert [attributes["http.response.status_code"] for _, attributes in told] == statuses


async def _nothing(*_: Any) -> bytes:
    return b"{}"


@pytest.fixture
def collector() -> Iterator[tuple[str, list[bytes]]]:
    got: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/traces", got
    server.shutdown()
    thread.join()
    server.server_close()


def test_spans_reach_the_collector_named_in_the_settings(
    app: FastAPI, collector: tuple[str, list[bytes]], tmp_path: Path
) -> None:
    address, got = collector
    tracing = Tracing.of(ServingSettings(home=tmp_path, serving_traces=address))
    assert tracing is not None
    Caller(tracing.around(app)).ask("/predictions/abc")
    tracing.stop()
    assert any(b"GET /predictions/{name}" in each for each in got)
    assert any(b"cryptoml-inference" in each for each in got)


def test_off_means_that_nothing_of_the_sdk_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys; import cryptoml_serving.app; from cryptoml_serving.tracing import Tracing; "
        "from cryptoml_serving.settings import ServingSettings; "
        f"assert Tracing.of(ServingSettings(home={str(tmp_path)!r})) is None; "
        "assert not [m for m in sys.modules "
        "if m.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("address", ["localhost:4318", "ftp://a/b", "http://host", "http://a b/c"])
def test_an_address_that_is_none_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYPTOML_SERVING_TRACES", address)
    with pytest.raises(SettingsError, match="CRYPTOML_SERVING_TRACES"):
        ServingSettings.load()
