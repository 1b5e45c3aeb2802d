"""The door on its own: what it does where real servers and clients cannot easily lead it."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from cryptoml_serving.api.door import MAX_BODY, Door
from cryptoml_serving.api.service import Service
from cryptoml_serving.app import framework
from cryptoml_serving.runtime.access_log import AccessLog, Requested
from cryptoml_serving.runtime.batcher import Batcher
from cryptoml_serving.runtime.chronicle import Chronicle
from cryptoml_serving.runtime.state import State
from cryptoml_serving.security.errors import TooManyError
from cryptoml_serving.security.guard import Guard
from cryptoml_serving.security.roles import Role
from cryptoml_serving.settings import ServingSettings
from cryptoml_serving.telemetry import Metrics
from tests.token_issuer import bearer, judge, token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import Message, Scope

from contextlib import asynccontextmanager

CLIENT = ("192.0.2.1", 4000)


@asynccontextmanager
async def _nothing(_: Any) -> AsyncIterator[None]:
    yield


class Kept(AccessLog):
    """Keeps what it is given."""

    @property
    def entries(self) -> list[Any]:
        return list(self._queue)


def door(guard: Any = None, **settings: Any) -> tuple[Door, Kept]:
    configured = ServingSettings(**{"serving_deadline": timedelta(milliseconds=60), **settings})
    state, metrics = State(), Metrics("m")
    log = Kept(metrics)
    service = Service(
        settings=configured,
        metrics=metrics,
        state=state,
        look=lambda: None,
        guard=guard or Guard(None, None),
        batcher=Batcher(state, configured, metrics),
        access_log=log,
    )
    chronicle = Chronicle.of(configured, state, metrics)
    return Door(framework(service, chronicle, _nothing), service), log


def ask(
    app: Door, path: str, *parts: bytes, method: str = "POST", stalls: bool = False
) -> tuple[int, dict[str, str], Any]:
    """Status, headers and JSON of an answer to a body in parts; one that stalls never ends."""
    scope: Scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
        "client": CLIENT,
    }
    waiting = list(parts) or [b""]
    sent: list[Message] = []

    async def receive() -> Message:
        if not waiting:
            await asyncio.sleep(30)
        part = waiting.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(waiting) or stalls}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    (start, *bodies) = sent
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    body = b"".join(each["body"] for each in bodies)
    return start["status"], headers, json.loads(body) if body else None


def test_a_body_that_never_ends_is_given_up() -> None:
    app, _ = door()
    status, headers, told = ask(app, "/predict", b'{"symbol":', stalls=True)
    assert (status, told["type"]) == (408, "urn:cryptoml:problem:too-slow")
    assert headers["connection"] == "close"


def test_a_route_that_takes_too_long_is_given_up() -> None:
    app, log = door()

    async def slow() -> None:
        await asyncio.sleep(30)

    app.framework.add_api_route("/slow", slow)
    status, headers, told = ask(app, "/slow", method="GET")
    assert (status, told["type"]) == (503, "urn:cryptoml:problem:deadline")
    assert int(headers["retry-after"]) >= 1
    assert [each.status for each in log.entries] == [503]


def test_a_body_in_parts_is_one_body() -> None:
    app, _ = door()
    whole = b'{"symbol": "BTC/USDT"}'
    status, _, told = ask(app, "/predict", whole[:3], whole[3:])
    assert (status, told["type"]) == (503, "urn:cryptoml:problem:not-ready")


def test_a_body_past_its_size_is_not_read_on() -> None:
    app, _ = door()
    status, _, told = ask(app, "/predict", b" " * MAX_BODY, b" ", stalls=True)
    assert (status, told["type"]) == (413, "urn:cryptoml:problem:too-large")


def test_who_asks_too_fast_is_told_when_to_come_back() -> None:
    def admit(*_: Any) -> None:
        raise TooManyError("slower", 2.5)

    app, log = door(guard=SimpleNamespace(admit=admit))
    status, headers, told = ask(app, "/predict", b"{}")
    assert (status, told["type"]) == (429, "urn:cryptoml:problem:too-many-requests")
    assert headers["retry-after"] == "3"
    assert [each.status for each in log.entries] == [429]
    # A probe asks without a key.
    assert ask(app, "/health", method="GET")[0] == 200


@pytest.mark.parametrize("path", ["/predict", "/models"])
def test_the_guard_is_told_where_a_request_comes_from(path: str) -> None:
    told: list[Any] = []

    def admit(_: Any, role: Role, client: Any) -> Any:
        told.append((role, client))
        return SimpleNamespace(name="desk")

    app, _ = door(guard=SimpleNamespace(admit=admit))
    ask(app, path, b"{}", method="POST" if path == "/predict" else "GET")
    assert told == [(Role.PREDICT, CLIENT)]


def test_a_name_that_cannot_be_written_is_refused_and_logged() -> None:
    guard = Guard(None, judge())
    headers = bearer(token(sub="\ud800", roles=[]))
    app, log = door(guard=SimpleNamespace(admit=lambda _, *more: guard.admit(headers, *more)))
    assert ask(app, "/predict", b"{}")[0] == 401
    assert [json.loads(each.line())["status"] for each in log.entries] == [401]


def test_the_line_of_a_request_names_it_and_no_query() -> None:
    app, log = door()
    _, headers, _ = ask(app, "/nothing", method="GET")
    (entry,) = log.entries
    assert isinstance(entry, Requested)
    line = json.loads(entry.line())
    assert line["request_id"] == headers["x-request-id"]
    assert (line["status"], line["path"], line["caller"]) == (404, "/nothing", "anonymous")
    assert line["seconds"] >= 0


def test_probes_leave_no_line() -> None:
    app, log = door()
    for path in ("/health", "/ready"):
        ask(app, path, method="GET")
    assert log.entries == []


@pytest.mark.parametrize("error", [RuntimeError("inside"), TimeoutError("a route's own")])
def test_a_failure_is_answered_and_logged_once(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    app, _ = door()

    async def broken() -> None:
        raise error

    app.framework.add_api_route("/broken", broken)
    status, _, told = ask(app, "/broken", method="GET")
    assert (status, told["type"]) == (500, "urn:cryptoml:problem:internal")
    assert [record.levelname for record in caplog.records] == ["ERROR"]


@pytest.mark.parametrize("path", ["/health", "/ready", "/v2/health/live", "/nothing"])
def test_head_is_answered_as_get_without_the_body(path: str) -> None:
    app, log = door()
    (status, asked, told), (same, headers, nothing) = (
        ask(app, path, method=method) for method in ("GET", "HEAD")
    )
    assert (status, told is None) == (same, False)
    assert nothing is None
    assert asked.pop("x-request-id") != headers.pop("x-request-id")
    assert headers == asked
    assert [each.method for each in log.entries] == (["GET", "HEAD"] if status == 404 else [])


def test_head_of_what_takes_a_post_is_refused() -> None:
    app, _ = door()
    status, headers, nothing = ask(app, "/predict", method="HEAD")
    assert (status, headers["allow"], nothing) == (405, "POST", None)
    assert int(headers["content-length"]) > 0


def test_another_method_is_told_of_head_too() -> None:
    app, _ = door()
    status, headers, _ = ask(app, "/models", method="DELETE")
    assert (status, headers["allow"]) == (405, "GET, HEAD")


def test_a_service_told_to_stop_says_so_and_lets_connections_go() -> None:
    app, _ = door()
    state = app.framework.state.service.state
    state.snapshot, state.deployment = SimpleNamespace(predictions={"S": 1}), SimpleNamespace()
    state.draining = True
    status, headers, told = ask(app, "/ready", method="GET")
    assert (status, told["detail"]) == (503, "the service is about to stop")
    assert headers["connection"] == "close"
