"""Headers that tell a browser to make nothing of an answer but what it is."""

from __future__ import annotations

from typing import Final

RawHeaders = tuple[tuple[bytes, bytes], ...]

#: For every answer that is data. A page brings a policy of its own in place of this one.
SECURITY_HEADERS: Final[RawHeaders] = (
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    # A prediction is of its instant, and an answer to one caller is no other's.
    (b"cache-control", b"no-store"),
)

#: Where the service speaks TLS itself: plain HTTP is not tried again for a year.
STRICT_TRANSPORT: Final = (b"strict-transport-security", b"max-age=31536000")


def security_headers(*, tls: bool) -> RawHeaders:
    """The headers of every answer, as ASGI wants them."""
    return (*SECURITY_HEADERS, STRICT_TRANSPORT) if tls else SECURITY_HEADERS
