"""What surrounds every request: its id, its size, and the end of the line for other errors."""

from __future__ import annotations

import logging
import re
from http import HTTPStatus
from typing import TYPE_CHECKING
from uuid import uuid4

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request

from cryptoml_serving.api.problems import ProblemError, ProblemType, respond
from cryptoml_serving.telemetry import event

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_ID_HEADER = "X-Request-ID"
#: Bytes of the largest body that is read.
MAX_BODY = 64 * 1024
_LOG = logging.getLogger(__name__)
#: A caller's own id is kept if it can stand in a header and a log line as it is.
_ACCEPTABLE = re.compile(r"[A-Za-z0-9._-]{1,128}")


class RequestMiddleware:
    """Gives each request an id and a largest size, and turns what escapes into a 500."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        request_id = given if _ACCEPTABLE.fullmatch(given) else uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def tell(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        try:
            await self._app(scope, _bounded(receive), tell)
        except Exception as error:
            # The process boundary: a caller gets no stack trace, the log gets all of it.
            event(
                _LOG,
                logging.ERROR,
                "error",
                f"{scope['method']} {scope['path']} failed: {error}",
                exc_info=error,
                request_id=request_id,
                error_type=ProblemType.INTERNAL.slug,
            )
            if started:
                raise
            internal = ProblemError(ProblemType.INTERNAL, "the failure was logged")
            await respond(Request(scope), internal)(scope, receive, tell)


def _bounded(receive: Receive) -> Receive:
    """A ``receive`` that refuses a body past ``MAX_BODY``, whatever length it announced."""
    size = 0

    async def bounded() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > MAX_BODY:
            # From where FastAPI reads a body it passes on no exception but its own.
            status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            raise HTTPException(status, f"a body has at most {MAX_BODY} bytes")
        return message

    return bounded
