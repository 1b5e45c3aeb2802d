"""The parts of the OpenAPI document that FastAPI does not write by itself."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi.openapi.utils import get_openapi

from cryptoml_serving.api.problems import PROBLEM_JSON, Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import FastAPI

_SCHEMA = {"$ref": f"#/components/schemas/{Problem.__name__}"}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """A route's error responses, as FastAPI's ``responses`` wants them; 500 is always one."""
    answers: dict[int | str, dict[str, Any]] = {}
    for status in sorted({*statuses, HTTPStatus.INTERNAL_SERVER_ERROR}):
        answers[int(status)] = {
            "description": HTTPStatus(status).phrase,
            "content": {PROBLEM_JSON: {"schema": _SCHEMA}},
        }
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            answers[int(status)]["headers"] = {
                "Retry-After": {
                    "description": "seconds after which to ask again",
                    "schema": {"type": "integer"},
                }
            }
    return answers


def document(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """FastAPI's document with the schema of problems in it, made once."""

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
            app.openapi_schema = schema
        return app.openapi_schema

    return openapi
