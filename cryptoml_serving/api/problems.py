"""Errors as RFC 9457 problem details, for every status this service answers with."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from cryptoml_serving.api.open_inference import errors as open_inference

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.types import Scope

    from cryptoml_serving.api.service import Service

PROBLEM_JSON = "application/problem+json"
_URN = "urn:cryptoml:problem:"
#: Reasons told for one body; a hostile one can give thousands.
MOST_REASONS = 8
#: Characters told of a place or a reason: keys, and messages about values, are of the caller.
_MOST_CHARACTERS = 200


class ProblemType(Enum):
    """Every type of problem: its name, its status and its title."""

    UNKNOWN_SYMBOL = ("unknown-symbol", HTTPStatus.NOT_FOUND, "Symbol not served")
    INVALID_REQUEST = (
        "invalid-request",
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "Request body not understood",
    )
    UNAUTHORIZED = ("unauthorized", HTTPStatus.UNAUTHORIZED, "Not authenticated")
    FORBIDDEN = ("forbidden", HTTPStatus.FORBIDDEN, "Not allowed")
    UNKNOWN_MODEL = ("unknown-model", HTTPStatus.NOT_FOUND, "Model not served")
    UNKNOWN_VERSION = ("unknown-version", HTTPStatus.NOT_FOUND, "Version not served")
    UNKNOWN_PREDICTION = ("unknown-prediction", HTTPStatus.NOT_FOUND, "No such prediction")
    TOO_LARGE = ("too-large", HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "Too large")
    TOO_MANY_REQUESTS = (
        "too-many-requests",
        HTTPStatus.TOO_MANY_REQUESTS,
        "Too many requests",
    )
    TOO_SLOW = ("too-slow", HTTPStatus.REQUEST_TIMEOUT, "Request sent too slowly")
    ISSUER_UNREAD = (
        "issuer-unread",
        HTTPStatus.SERVICE_UNAVAILABLE,
        "Tokens cannot be verified yet",
    )
    DEADLINE = ("deadline", HTTPStatus.SERVICE_UNAVAILABLE, "Not done in time")
    OVERLOADED = ("overloaded", HTTPStatus.SERVICE_UNAVAILABLE, "Too much to do")
    NOT_READY = ("not-ready", HTTPStatus.SERVICE_UNAVAILABLE, "Not ready")
    NO_PREDICTION = ("no-prediction", HTTPStatus.SERVICE_UNAVAILABLE, "No prediction for it yet")
    STALE_FEATURES = ("stale-features", HTTPStatus.SERVICE_UNAVAILABLE, "Features too old")
    INTERNAL = ("internal", HTTPStatus.INTERNAL_SERVER_ERROR, "Internal error")

    def __init__(self, slug: str, status: HTTPStatus, title: str) -> None:
        self.slug = slug
        self.status = status
        self.title = title

    @property
    def uri(self) -> str:
        """The problem's ``type`` member."""
        return _URN + self.slug

    @classmethod
    def named(cls, slug: str) -> ProblemType:
        """The type of that name."""
        return next(each for each in cls if each.slug == slug)


class Problem(BaseModel):
    """RFC 9457 problem details. Some types add members of their own."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(
        description="URN of the problem's type; about:blank when the status says it all",
        examples=[ProblemType.UNKNOWN_SYMBOL.uri],
    )
    title: str = Field(description="the type in words")
    status: int = Field(description="the HTTP status", examples=[404])
    detail: str = Field(description="what happened this time")
    instance: str = Field(description="path of the request", examples=["/predict"])
    request_id: str = Field(description="the answer's X-Request-ID, as the log has it")


@dataclass
class ProblemError(Exception):
    """Raised by a route to answer with a problem.

    Attributes:
        problem: its type.
        detail: what happened this time.
        members: further members of the answer.
        headers: further headers of the answer.
        counted: whether it is an error of the service; a probe's 503 before readiness is none.
    """

    problem: ProblemType
    detail: str
    members: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    counted: bool = True


def invalid_request(reasons: Sequence[tuple[str, str]]) -> ProblemError:
    """A body that cannot be used.

    Args:
        reasons: where in it, and why. What they repeat of it is cut, and so is their number.
    """
    told = [{"location": _cut(place), "reason": _cut(why)} for place, why in reasons[:MOST_REASONS]]
    detail = "; ".join(f"{each['location']}: {each['reason']}" for each in told)
    return ProblemError(ProblemType.INVALID_REQUEST, detail, {"errors": told})


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 3]}..."


def respond(service: Service, scope: Scope, error: ProblemError) -> Response:
    """Count a problem where it counts, and render it."""
    problem = error.problem
    if error.counted:
        service.metrics.errors.labels(problem.slug).inc()
    return _response(
        scope,
        type_uri=problem.uri,
        title=problem.title,
        status=problem.status,
        detail=error.detail,
        members=error.members,
        headers=error.headers,
    )


def respond_http(service: Service, scope: Scope, error: HTTPException) -> Response:
    """Count an error that its status says all about, and render it."""
    service.metrics.errors.labels(f"http-{error.status_code}").inc()
    return _response(
        scope,
        type_uri="about:blank",
        title=HTTPStatus(error.status_code).phrase,
        status=error.status_code,
        detail=f"{scope['method']} {scope['path']}: {error.detail}",
        headers=error.headers,
    )


def _response(
    scope: Scope,
    *,
    type_uri: str,
    title: str,
    status: int,
    detail: str,
    members: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    if open_inference.covers(scope["path"]):
        return open_inference.render(status, detail, headers or {})
    problem = Problem(
        type=type_uri,
        title=title,
        status=status,
        detail=detail,
        instance=scope["path"],
        request_id=scope["state"]["request_id"],
        **(members or {}),
    )
    return Response(
        problem.model_dump_json(),
        status_code=status,
        headers=dict(headers or {}),
        media_type=PROBLEM_JSON,
    )


async def _on_problem(request: Request, error: Exception) -> Response:
    if not isinstance(error, ProblemError):
        raise error
    return respond(request.app.state.service, request.scope, error)


async def _on_validation(request: Request, error: Exception) -> Response:
    """A request that does not parse; what was sent is not repeated in the answer."""
    if not isinstance(error, RequestValidationError):
        raise error
    reasons = [("/".join(map(str, item["loc"])), item["msg"]) for item in error.errors()]
    return respond(request.app.state.service, request.scope, invalid_request(reasons))


async def _on_http(request: Request, error: Exception) -> Response:
    """What the framework itself refuses: no such route, wrong method, unparsable body."""
    if not isinstance(error, HTTPException):
        raise error
    service = request.app.state.service
    if error.headers is not None and error.headers.get("Allow") == "GET":
        # The door has every route that answers GET answer HEAD.
        error.headers = {**error.headers, "Allow": "GET, HEAD"}
    if error.status_code == HTTPStatus.BAD_REQUEST:
        # FastAPI's answer to a body its parser gives up on: to a caller, one more invalid body.
        return respond(service, request.scope, invalid_request([("body", error.detail)]))
    if error.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        too_large = ProblemError(ProblemType.TOO_LARGE, error.detail)
        return respond(service, request.scope, too_large)
    return respond_http(service, request.scope, error)


async def _on_failure(request: Request, _: Exception) -> Response:
    """What nobody foresaw: a caller gets no stack trace, the door logs all of it."""
    failed = ProblemError(ProblemType.INTERNAL, "the failure was logged")
    return respond(request.app.state.service, request.scope, failed)


def install(app: FastAPI) -> None:
    """Answer every error of this application with a problem."""
    app.add_exception_handler(ProblemError, _on_problem)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_failure)
