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

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI
    from starlette.requests import Request

PROBLEM_JSON = "application/problem+json"
_URN = "urn:cryptoml:problem:"
#: Reasons told for one body; a hostile one can give thousands.
_MOST_REASONS = 8


class ProblemType(Enum):
    """Every type of problem: its name, its status and its title."""

    UNKNOWN_SYMBOL = ("unknown-symbol", HTTPStatus.NOT_FOUND, "Symbol not served")
    INVALID_REQUEST = (
        "invalid-request",
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "Request body not understood",
    )
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


def problem_response(
    request: Request,
    *,
    type_uri: str,
    title: str,
    status: int,
    detail: str,
    members: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Render a problem for this request."""
    problem = Problem(
        type=type_uri,
        title=title,
        status=status,
        detail=detail,
        instance=request.url.path,
        request_id=request.state.request_id,
        **(members or {}),
    )
    return Response(
        problem.model_dump_json(),
        status_code=status,
        headers=dict(headers or {}),
        media_type=PROBLEM_JSON,
    )


def respond(request: Request, error: ProblemError) -> Response:
    """Count a problem where it counts, and render it."""
    problem = error.problem
    if error.counted:
        request.app.state.service.metrics.errors.labels(problem.slug).inc()
    return problem_response(
        request,
        type_uri=problem.uri,
        title=problem.title,
        status=problem.status,
        detail=error.detail,
        members=error.members,
        headers=error.headers,
    )


async def _on_problem(request: Request, error: Exception) -> Response:
    if not isinstance(error, ProblemError):
        raise error
    return respond(request, error)


async def _on_validation(request: Request, error: Exception) -> Response:
    """A body that does not parse; what was sent is not repeated in the answer."""
    if not isinstance(error, RequestValidationError):
        raise error
    reasons = [
        {"location": "/".join(map(str, item["loc"])), "reason": item["msg"]}
        for item in error.errors()[:_MOST_REASONS]
    ]
    detail = "; ".join(f"{reason['location']}: {reason['reason']}" for reason in reasons)
    invalid = ProblemError(ProblemType.INVALID_REQUEST, detail, {"errors": reasons})
    return respond(request, invalid)


async def _on_http(request: Request, error: Exception) -> Response:
    """What the framework itself refuses: no such route, wrong method, unparsable body."""
    if not isinstance(error, HTTPException):
        raise error
    if error.status_code == HTTPStatus.BAD_REQUEST:
        # FastAPI's answer to a body its parser gives up on: to a caller, one more invalid body.
        reasons = [{"location": "body", "reason": error.detail}]
        invalid = ProblemError(ProblemType.INVALID_REQUEST, error.detail, {"errors": reasons})
        return respond(request, invalid)
    request.app.state.service.metrics.errors.labels(f"http-{error.status_code}").inc()
    title = HTTPStatus(error.status_code).phrase
    return problem_response(
        request,
        type_uri="about:blank",
        title=title,
        status=error.status_code,
        detail=f"{request.method} {request.url.path}: {error.detail}",
        headers=error.headers,
    )


def install(app: FastAPI) -> None:
    """Answer every error of this application with a problem."""
    app.add_exception_handler(ProblemError, _on_problem)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
