"""The parts of the OpenAPI document that FastAPI does not write by itself."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from cryptoml_serving.api.problems import PROBLEM_JSON, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fastapi import FastAPI

_TEMPLATE = "#/components/schemas/{model}"
_SCHEMA = {"$ref": _TEMPLATE.format(model=Problem.__name__)}
_REFUSALS = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS)
_WAITS = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}


@dataclass(frozen=True)
class Operation:
    """A route that the door answers itself, as the document tells it.

    Attributes:
        path: of the route.
        tag: under which it stands.
        summary: in a few words.
        description: in more.
        body: what is sent.
        answers: what comes back, one of them.
        statuses: of the problems that come back otherwise.
    """

    path: str
    tag: str
    summary: str
    description: str
    body: type[BaseModel]
    answers: tuple[type[BaseModel], ...]
    statuses: tuple[int, ...]

    def item(self) -> dict[str, Any]:
        """Its path item."""
        refs = [{"$ref": _TEMPLATE.format(model=each.__name__)} for each in self.answers]
        answer = refs[0] if len(refs) == 1 else {"anyOf": refs}
        sent = {"$ref": _TEMPLATE.format(model=self.body.__name__)}
        return {
            "post": {
                "tags": [self.tag],
                "summary": self.summary,
                "description": self.description,
                "operationId": f"post{self.path.replace('/', '_')}",
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": sent}},
                },
                "responses": {
                    "200": {
                        "description": "Answered",
                        "content": {"application/json": {"schema": answer}},
                    },
                    **{str(status): told for status, told in problems(*self.statuses).items()},
                },
            }
        }


def problems(*statuses: int, asks: bool = True) -> dict[int | str, dict[str, Any]]:
    """A route's error responses, as FastAPI's ``responses`` wants them.

    Args:
        statuses: its own, beside 500 and those of who is not let in.
        asks: whether it asks for a credential where authentication is configured.
    """
    answers: dict[int | str, dict[str, Any]] = {}
    refusals = _REFUSALS if asks else ()
    for status in sorted({*statuses, *refusals, HTTPStatus.INTERNAL_SERVER_ERROR}):
        answers[int(status)] = {
            "description": HTTPStatus(status).phrase,
            "content": {PROBLEM_JSON: {"schema": _SCHEMA}},
        }
        if status in _WAITS:
            answers[int(status)]["headers"] = {
                "Retry-After": {
                    "description": "seconds after which to ask again",
                    "schema": {"type": "integer"},
                }
            }
    return answers


def document(app: FastAPI, operations: Iterable[Operation]) -> Callable[[], dict[str, Any]]:
    """FastAPI's document, with the schema of problems and the door's own operations; made once."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
            )
            schemas = schema.setdefault("components", {}).setdefault("schemas", {})
            schemas[Problem.__name__] = Problem.model_json_schema()
            for each in operations:
                schema["paths"][each.path] = each.item()
                schemas.update(_schemas(each))
            app.openapi_schema = schema
        return app.openapi_schema

    return openapi


def _schemas(operation: Operation) -> dict[str, Any]:
    models: list[tuple[type[BaseModel], Any]] = [
        (operation.body, "validation"),
        *((answer, "serialization") for answer in operation.answers),
    ]
    _, schema = models_json_schema(models, ref_template=_TEMPLATE)
    return dict(schema["$defs"])
