"""Routes for those who run the service, on a port that callers do not reach."""

from __future__ import annotations

import logging
import os
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import orjson
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.responses import Response

from cryptoml_serving.api.problems import ProblemError, ProblemType, respond, respond_http
from cryptoml_serving.security.errors import RefusedError
from cryptoml_serving.security.headers import security_headers
from cryptoml_serving.security.roles import Role
from cryptoml_serving.telemetry import event

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from cryptoml_serving.api.service import Service

_LOG = logging.getLogger(__name__)
_RELOAD, _METRICS, _HEALTH = "/admin/reload", "/metrics", "/health"
#: Method of each path, and the role it takes; none: anybody may ask.
ROUTES: Final[Mapping[str, tuple[str, Role | None]]] = {
    _RELOAD: ("POST", Role.ADMIN),
    _METRICS: ("GET", Role.PREDICT),
    _HEALTH: ("GET", None),
}


def admin_app(service: Service) -> ASGIApp:
    """The application of the admin port.

    ``POST /admin/reload`` takes the role admin and has the registry looked at at once, though no
    sooner than a second after the last look. ``GET /metrics`` is there because several workers
    share the public port, where nobody can tell which one answers; it takes the role predict as
    on that port. ``GET /health`` takes no role.

    Args:
        service: what the routes reach for.
    """
    return _Admin(service)


class _Admin:
    """Lets in, answers, and tells errors as the public port does."""

    def __init__(self, service: Service) -> None:
        self._service = service
        tls = service.settings.serving_tls_certificate is not None
        self._headers = security_headers(tls=tls)
        self._answers: dict[str, Callable[[str], Response]] = {
            _RELOAD: self._reload,
            _METRICS: self._metrics,
            _HEALTH: self._health,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; nothing here reads a body or waits."""
        request_id = os.urandom(16).hex()
        scope.setdefault("state", {})["request_id"] = request_id

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = (b"x-request-id", request_id.encode())
                message["headers"] = [*message["headers"], own, *self._headers]
            await send(message)

        await self._answer(scope, request_id)(scope, receive, tell)

    def _answer(self, scope: Scope, request_id: str) -> Response:
        try:
            return self._route(scope)
        except RefusedError as error:
            problem = ProblemType.named(error.slug)
            refused = ProblemError(problem, error.detail, headers=error.headers)
            return respond(self._service, scope, refused)
        except HTTPException as error:
            return respond_http(self._service, scope, error)
        except Exception as error:  # noqa: BLE001 - the process boundary: told, and answered
            message = f"{scope['method']} {scope['path']} failed: {error}"
            event(
                _LOG,
                logging.ERROR,
                "error",
                message,
                exc_info=error,
                request_id=request_id,
                error_type=ProblemType.INTERNAL.slug,
            )
            failed = ProblemError(ProblemType.INTERNAL, "the failure was logged")
            return respond(self._service, scope, failed)

    def _route(self, scope: Scope) -> Response:
        path = scope["path"]
        # Before a path is looked up: a stranger does not learn which there are.
        method, role = ROUTES.get(path, ("", Role.ADMIN))
        caller = "" if role is None else self._admitted(scope, role)
        if not method:
            raise HTTPException(HTTPStatus.NOT_FOUND, "Not Found")
        # The server sends no body where HEAD asks.
        allowed = ("GET", "HEAD") if method == "GET" else (method,)
        if scope["method"] not in allowed:
            headers = {"Allow": ", ".join(allowed)}
            raise HTTPException(HTTPStatus.METHOD_NOT_ALLOWED, "Method Not Allowed", headers)
        return self._answers[path](caller)

    def _admitted(self, scope: Scope, role: Role) -> str:
        return self._service.guard.admit(scope["headers"], role, scope.get("client")).name

    def _reload(self, caller: str) -> Response:
        self._service.look()
        event(_LOG, logging.INFO, "reload_asked", "a look at the registry", caller=caller)
        return _json({"status": "asked"}, HTTPStatus.ACCEPTED)

    def _metrics(self, _: str) -> Response:
        return Response(self._service.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)

    def _health(self, _: str) -> Response:
        return _json({"status": "alive"}, HTTPStatus.OK)


def _json(content: dict[str, str], status: HTTPStatus) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")
