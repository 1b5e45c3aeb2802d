from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import dagster as dg
import polars as pl
import pytest

from cryptoml_assets.monitoring.serving_sensors import tell_serving
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import settings


@pytest.fixture
def service(
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[list[tuple[str, str | None]], list[int]]]:
    """What a service was asked, and the statuses it answers with, the last for good."""
    asked, statuses = list[tuple[str, str | None]](), [202]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append((self.path, self.headers["X-API-Key"]))
            self.send_response(statuses.pop(0) if len(statuses) > 1 else statuses[0])
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}/"
    monkeypatch.setenv("CRYPTOML_INFERENCE_ADMIN_URLS", address)
    monkeypatch.setenv("CRYPTOML_INFERENCE_KEY", "cml_sensor")
    settings.cache_clear()
    yield asked, statuses
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_service_is_told_of_each_decision_until_it_has_heard(
    service: tuple[list[tuple[str, str | None]], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, statuses = service
    # The service is our own: no proxy stands before it.
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    cursor: str | None = None
    with dg.DagsterInstance.ephemeral() as instance:

        def tick() -> str:
            nonlocal cursor
            with dg.build_sensor_context(instance=instance, cursor=cursor) as context:
                done = tell_serving.evaluate_tick(context)
            cursor = done.cursor or cursor
            return str(done.skip_message)

        assert tick() == "nothing new to serve"
        statuses[:] = [503, 202]
        instance.report_runless_asset_event(dg.AssetMaterialization("validated_deployment"))
        assert tick() == "the inference service did not answer: told next time"
        assert tick() == "the inference service was told"
        assert tick() == "nothing new to serve"
        Lake(settings().lake_uri).overwrite("deployments", pl.DataFrame({"sequence": [0]}))
        assert tick() == "the inference service was told"
        assert tick() == "nothing new to serve"
    assert asked == [("/admin/reload", "cml_sensor")] * 3


def test_every_worker_has_to_hear(
    service: tuple[list[tuple[str, str | None]], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, statuses = service
    one = settings().inference_admin_urls[0]
    monkeypatch.setenv("CRYPTOML_INFERENCE_ADMIN_URLS", f"{one},{one}")
    settings.cache_clear()
    statuses[:] = [202, 403, 202]
    with dg.DagsterInstance.ephemeral() as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization("validated_deployment"))
        told = []
        for _ in range(2):
            with dg.build_sensor_context(instance=instance) as context:
                done = tell_serving.evaluate_tick(context)
            told.append((done.skip_message, done.cursor is not None))
    assert told == [
        ("the inference service did not answer: told next time", False),
        ("the inference service was told", True),
    ]
    assert len(asked) == 4
