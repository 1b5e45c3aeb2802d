"""Errors in the shape that the protocol gives them."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Where the protocol's paths begin.
PREFIX = "/v2"


def covers(path: str) -> bool:
    """Whether a path is one of the protocol's, be there a route or not."""
    return path == PREFIX or path.startswith(f"{PREFIX}/")


def render(status: int, message: str, headers: Mapping[str, str]) -> Response:
    """An error as clients of the protocol read it.

    Args:
        status: of HTTP. The protocol's one for a request it cannot use is 400; the rest of this
            service says 422 there.
        message: what happened, for a person.
        headers: further ones of the answer.
    """
    if status == HTTPStatus.UNPROCESSABLE_ENTITY:
        status = HTTPStatus.BAD_REQUEST
    # A path may hold what UTF-8 has no bytes for; the standard library escapes it.
    body = json.dumps({"error": message})
    return Response(body, status, dict(headers), media_type="application/json")
