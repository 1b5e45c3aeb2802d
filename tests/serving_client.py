"""A running inference service and a client that reads its answers, problems and metrics."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from cryptoml_serving.app import create_app
from tests.sandbox_server import serve
from tests.serving_world import NOW, ServingWorld
from tests.waiting import until

FEATURE_TIME = NOW - timedelta(minutes=5)
ROWS = {"BTC/USDT": (0.1, 0.2, 0.3), "ETH/USDT": (0.0, -0.5, None), "SOL/USDT": (1.0, 0.0, 0.0)}


def write_usual_features(world: ServingWorld) -> None:
    """`ROWS`, five minutes old; on-chain features six hours."""
    world.write_features(ROWS, at=FEATURE_TIME, onchain_at=NOW - timedelta(hours=6))


wait = until


class Client(httpx.Client):
    """Speaks to one service."""

    def ask(self, symbol: object) -> httpx.Response:
        return self.post("/predict", json={"symbol": symbol})

    def metric(self, name: str, **labels: str) -> float:
        """Value of a sample, zero when there is none."""
        for family in text_string_to_metric_families(self.get("/metrics").text):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return sample.value
        return 0.0

    def wait_ready(self) -> Client:
        wait(lambda: self.get("/ready").status_code == 200)
        return self

    def wait_refused(self) -> Client:
        wait(lambda: self.metric("refresh_errors_total", error_type="model_refused") >= 1)
        return self


def problem(response: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    """Check that this is a complete problem of that type, and give its members."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    members: dict[str, Any] = response.json()
    assert {"type", "title", "status", "detail", "instance"} <= members.keys()
    assert members["type"] == (kind if ":" in kind else f"urn:cryptoml:problem:{kind}")
    assert members["status"] == status
    assert members["instance"] == response.request.url.path
    assert members["request_id"] == response.headers["x-request-id"]
    return members


@contextlib.contextmanager
def serving(world: ServingWorld, **settings: Any) -> Iterator[Client]:
    with serve(create_app(world.settings(**settings))) as url, Client(base_url=url) as client:
        yield client
