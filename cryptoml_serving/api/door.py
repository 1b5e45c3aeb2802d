"""What every request passes first and last: its id, its caller, its limits, its line in the log.

The outermost layer, around the framework::

    request ── id ── caller ── limits ──┬── POST /predict and /predict/features
                                        └── FastAPI: every other route
    answer  ── id and security headers ── line in the log
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException

from cryptoml_serving.api import features, predict
from cryptoml_serving.api.patience import Patience
from cryptoml_serving.api.problems import ProblemError, ProblemType, respond, respond_http
from cryptoml_serving.runtime.access_log import Requested
from cryptoml_serving.security.errors import RefusedError
from cryptoml_serving.security.headers import security_headers
from cryptoml_serving.security.roles import Role
from cryptoml_serving.telemetry import event

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import Message, Receive, Scope, Send

    from cryptoml_serving.api.service import Service
    from cryptoml_serving.tracing import Tracing

_LOG = logging.getLogger(__name__)
REQUEST_ID_HEADER = b"x-request-id"
#: Bytes of the largest body of ``POST /predict``, which names symbols.
MAX_BODY = 64 * 1024
#: A caller's own id is kept if it can stand in a header and a log line as it is.
_ACCEPTABLE = re.compile(rb"[A-Za-z0-9._-]{1,128}")
#: Asked by those who know no key: the kubelet, a load balancer. They are not logged either.
_PROBES = frozenset({"/health", "/ready", "/v2/health/live", "/v2/health/ready"})
_QUIET = _PROBES | {"/metrics"}
#: Answers that go on for as long as the caller listens.
_ENDLESS = frozenset({"/predictions/stream"})
_BODILESS = frozenset({"GET", "HEAD"})
#: Has the caller open another connection, elsewhere, instead of one that is about to be cut.
_LAST = (b"connection", b"close")
_JSON = (b"content-type", b"application/json")


@dataclass(slots=True)
class _Exchange:
    """One request and what is known of its answer.

    Attributes:
        request_id: as the answer's header has it.
        began: monotonic second.
        json: whether the body is JSON by its own word, or says nothing about itself.
        caller: who asked; empty until somebody was let in.
        status: answered; 0 before.
        received: whether the whole body has come.
    """

    request_id: str
    began: float
    json: bool = True
    caller: str = ""
    status: int = 0
    received: bool = False


class Door:
    """The ASGI application that a server calls.

    Attributes:
        framework: answers what is not answered here.
    """

    def __init__(self, app: FastAPI, service: Service, tracing: Tracing | None = None) -> None:
        """Wrap an application.

        Args:
            app: answers what is not answered here.
            service: with guard, limits and log.
            tracing: gets a span of every request; none: nothing is traced.
        """
        self.framework = app
        self._handle = self._enter if tracing is None else tracing.around(self._enter)
        self._service = service
        self._deadline = service.settings.serving_deadline.total_seconds()
        self._max_body = service.settings.serving_max_body
        tls = service.settings.serving_tls_certificate is not None
        self._headers = security_headers(tls=tls)
        self._admit = service.guard.admit
        self._patience = Patience(self._deadline)
        # Ids tell requests apart and are no secret; asking the kernel for each costs microseconds.
        self._random = random.Random().getrandbits  # noqa: S311 - see above

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        await self._handle(scope, receive, send)

    async def _enter(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.framework(scope, receive, send)
            return
        exchange = self._exchange(scope)
        path = scope["path"]
        try:
            if path not in _PROBES:
                client = scope.get("client")
                exchange.caller = self._admit(scope["headers"], Role.PREDICT, client).name
            if path == predict.PATH:
                body = await self._patience.wait(_posted(scope, receive, exchange, MAX_BODY))
                told = predict.predict(self._service, body, exchange.request_id, exchange.caller)
                await self._answer(send, exchange, told)
                # Each of its predictions has a line of its own.
                return
            if path == features.PATH:
                body = await self._patience.wait(_posted(scope, receive, exchange, self._max_body))
                until = exchange.began + self._deadline
                told = await features.predict_features(self._service, body, until)
                await self._answer(send, exchange, told)
            else:
                await self._pass_on(scope, receive, send, exchange)
        except RefusedError as error:
            await self._refuse(scope, receive, send, exchange, _refused(error))
        except (ProblemError, HTTPException) as error:
            await self._refuse(scope, receive, send, exchange, error)
        except Exception as error:  # noqa: BLE001 - the process boundary: told, and answered
            if isinstance(error, TimeoutError) and not exchange.status:
                await self._refuse(scope, receive, send, exchange, self._too_late(exchange))
            else:
                # A route's own timeout is one of these: the framework has answered it.
                await self._failed(scope, receive, send, exchange, error)
        if path not in _QUIET:
            self._note(scope, exchange)

    def _exchange(self, scope: Scope) -> _Exchange:
        """What the headers say of a request."""
        exchange = _Exchange("", time.monotonic())
        for name, value in scope["headers"]:
            if name == REQUEST_ID_HEADER:
                if _ACCEPTABLE.fullmatch(value):
                    exchange.request_id = value.decode()
            elif name == b"content-type":
                exchange.json = value[:16].lower() == _JSON[1]
        if not exchange.request_id:
            exchange.request_id = f"{self._random(128):032x}"
        return exchange

    async def _answer(self, send: Send, exchange: _Exchange, answer: bytes) -> None:
        exchange.status = HTTPStatus.OK
        headers = [
            _JSON,
            (b"content-length", b"%d" % len(answer)),
            (REQUEST_ID_HEADER, exchange.request_id.encode()),
            *self._headers,
        ]
        if self._service.state.draining:
            headers.append(_LAST)
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    async def _pass_on(
        self, scope: Scope, receive: Receive, send: Send, exchange: _Exchange
    ) -> None:
        """Have the framework answer, in time; to HEAD as to GET, whose body is not sent then."""
        bounded = _bounded(receive, self._max_body, exchange)
        tell = self._telling(scope, send, exchange)
        _describe(scope, exchange, self._deadline)
        exchange.received = scope["method"] in _BODILESS
        endless = scope["path"] in _ENDLESS
        asked = {**scope, "method": "GET"} if scope["method"] == "HEAD" and not endless else scope
        try:
            async with asyncio.timeout(None if endless else self._deadline):
                await self.framework(asked, bounded, tell)
        finally:
            # Traces are named by it.
            scope["route"] = asked.get("route")

    def _too_late(self, exchange: _Exchange) -> ProblemError:
        seconds = f"{self._deadline:g} s"
        if exchange.received:
            detail = f"the answer took longer than {seconds}"
            return ProblemError(ProblemType.DEADLINE, detail, headers=self._service.retry_after())
        detail = f"the request was not there after {seconds}"
        return ProblemError(ProblemType.TOO_SLOW, detail, headers={"Connection": "close"})

    async def _failed(
        self, scope: Scope, receive: Receive, send: Send, exchange: _Exchange, error: Exception
    ) -> None:
        """Log what nobody foresaw, and answer it unless the framework has."""
        event(
            _LOG,
            logging.ERROR,
            "error",
            f"{scope['method']} {scope['path']} failed: {error}",
            exc_info=error,
            request_id=exchange.request_id,
            error_type=ProblemType.INTERNAL.slug,
        )
        internal = ProblemError(ProblemType.INTERNAL, "the failure was logged")
        await self._refuse(scope, receive, send, exchange, internal)

    async def _refuse(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        exchange: _Exchange,
        error: ProblemError | HTTPException,
    ) -> None:
        if exchange.status:
            # The answer has begun: all that can be done is to end it.
            return
        _describe(scope, exchange, self._deadline)
        if isinstance(error, HTTPException):
            answer = respond_http(self._service, scope, error)
        else:
            answer = respond(self._service, scope, error)
        await answer(scope, receive, self._telling(scope, send, exchange))

    def _telling(self, scope: Scope, send: Send, exchange: _Exchange) -> Send:
        """A ``send`` that adds the headers of every answer, and sends no body where HEAD asks."""
        bodiless = scope["method"] == "HEAD"

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                own = {name for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    (REQUEST_ID_HEADER, exchange.request_id.encode()),
                    *(header for header in self._headers if header[0] not in own),
                ]
                if self._service.state.draining:
                    message["headers"].append(_LAST)
            elif bodiless:
                message = {**message, "body": b""}
            await send(message)

        return tell

    def _note(self, scope: Scope, exchange: _Exchange) -> None:
        self._service.access_log.add(
            Requested(
                at=time.time(),
                request_id=exchange.request_id,
                caller=exchange.caller,
                method=scope["method"],
                path=scope["path"],
                status=exchange.status,
                seconds=time.monotonic() - exchange.began,
            )
        )


def _describe(scope: Scope, exchange: _Exchange, deadline: float) -> None:
    """Tell the routes and problems of this request what the door knows of it."""
    scope["state"] = {
        **scope.get("state", {}),
        "request_id": exchange.request_id,
        "caller": exchange.caller,
        "deadline": exchange.began + deadline,
    }


def _refused(error: RefusedError) -> ProblemError:
    return ProblemError(ProblemType.named(error.slug), error.detail, headers=error.headers)


async def _posted(scope: Scope, receive: Receive, exchange: _Exchange, most: int) -> bytes:
    """The whole body of a request that the door answers itself.

    Raises:
        HTTPException: it is not sent by POST.
        ProblemError: it is no JSON by its own word, or larger than ``most`` bytes.
    """
    if scope["method"] != "POST":
        raise HTTPException(HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": "POST"})
    if not exchange.json:
        raise predict.not_json()
    parts: list[bytes] = []
    size = 0
    while True:
        message: Any = await receive()
        if message["type"] == "http.disconnect":
            raise ProblemError(ProblemType.TOO_SLOW, "the caller went away", counted=False)
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            raise ProblemError(ProblemType.TOO_LARGE, _past(most))
        if not message.get("more_body", False):
            exchange.received = True
            return parts[0] if len(parts) == 1 else b"".join(parts)


def _bounded(receive: Receive, most: int, exchange: _Exchange) -> Receive:
    """A ``receive`` that refuses a body past its size, whatever length it announced."""
    size = 0

    async def bounded() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > most:
            # From where FastAPI reads a body it passes on no exception but its own.
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _past(most))
        if not message.get("more_body", False):
            exchange.received = True
        return message

    return bounded


def _past(most: int) -> str:
    return f"a body has at most {most} bytes"
