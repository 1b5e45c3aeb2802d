"""Why a request is turned away before any route sees it.

::

    RefusedError
    ├── UnauthorizedError      401: no credential, or one that is not valid
    ├── ForbiddenError         403: a valid one whose roles do not include what is asked for
    ├── TooManyError           429: faster than its rate
    └── IssuerUnreadError      503: a token cannot be judged before the issuer's keys were read
"""

from __future__ import annotations

import math
from typing import ClassVar

_CHALLENGE = 'Bearer realm="cryptoml"'


class RefusedError(Exception):
    """Base of all refusals.

    Attributes:
        slug: name of its type of problem, which has status and title.
        detail: what happened this time, for the caller; repeats nothing that was sent.
        headers: further headers of the answer.
    """

    slug: ClassVar[str]

    def __init__(self, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.headers = headers or {}


class UnauthorizedError(RefusedError):
    """There is no credential, or no valid one."""

    slug = "unauthorized"

    def __init__(self, detail: str, *, presented: bool) -> None:
        """Name the scheme to use, and whether a credential was there (RFC 6750, section 3)."""
        error = ', error="invalid_token"' if presented else ""
        super().__init__(detail, {"WWW-Authenticate": _CHALLENGE + error})


class ForbiddenError(RefusedError):
    """The credential is valid, and does not go that far."""

    slug = "forbidden"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, {"WWW-Authenticate": _CHALLENGE + ', error="insufficient_scope"'})


class TooManyError(RefusedError):
    """The caller asks faster than its rate."""

    slug = "too-many-requests"

    def __init__(self, detail: str, seconds: float) -> None:
        """Say after how many seconds there is room again, in whole ones as HTTP wants it."""
        super().__init__(detail, _retry_after(seconds))


class IssuerUnreadError(RefusedError):
    """A token came before the issuer's keys could be read."""

    slug = "issuer-unread"

    def __init__(self, detail: str, seconds: float) -> None:
        super().__init__(detail, _retry_after(seconds))


def _retry_after(seconds: float) -> dict[str, str]:
    return {"Retry-After": str(max(1, math.ceil(seconds)))}
