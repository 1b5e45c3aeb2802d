"""HEAD where GET is answered (RFC 9110, section 9.3.2), asked over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cryptoml_serving.app import create_app
from tests.serving_client import Client, serving, write_usual_features
from tests.serving_world import ServingWorld, build_templates


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    world = ServingWorld(
        tmp_path_factory.mktemp("head"), build_templates(tmp_path_factory.getbasetemp())
    )
    write_usual_features(world)
    world.publish()
    with serving(world) as client:
        yield client.wait_ready()


#: Whose answers have the same length at each time.
UNCHANGING = [
    "/health",
    "/docs",
    "/docs/start.js",
    "/docs/none.js",
    "/openapi.json",
    "/v2",
    "/v2/health/live",
    "/v2/health/ready",
    "/v2/models/cryptoml-return",
    "/predictions/none",
    "/nothing",
]


@pytest.mark.parametrize("path", [*UNCHANGING, "/", "/ready", "/metrics", "/models"])
def test_every_get_route_answers_head(steady: Client, path: str) -> None:
    asked, answer = steady.get(path), steady.head(path)
    assert (answer.status_code, answer.content) == (asked.status_code, b"")
    volatile = {"date", "x-request-id", *([] if path in UNCHANGING else ["content-length"])}
    headers = [
        {name: value for name, value in each.headers.items() if name not in volatile}
        for each in (asked, answer)
    ]
    assert headers[0] == headers[1]
    assert int(answer.headers["content-length"]) > 0
    # The connection is in order: it would have a body before the next answer.
    assert steady.get("/health").json() == {"status": "alive"}


def test_head_of_the_stream_begins_as_it_and_ends(steady: Client) -> None:
    answer = steady.head("/predictions/stream")
    assert (answer.status_code, answer.content) == (200, b"")
    with steady.stream("GET", "/predictions/stream") as asked:
        assert {*asked.headers} - {"transfer-encoding"} == {*answer.headers}
        assert asked.headers["content-type"] == answer.headers["content-type"]


def test_head_is_no_error(steady: Client) -> None:
    before = steady.metric("prediction_errors_total", error_type="http-405")
    for path in ("/health", "/ready", "/metrics", "/", "/docs", "/predictions/stream"):
        assert steady.head(path).status_code == 200
    assert steady.metric("prediction_errors_total", error_type="http-405") == before


def test_the_interface_does_not_list_it() -> None:
    paths = create_app().framework.openapi()["paths"]
    assert not [path for path, operations in paths.items() if "head" in operations]
