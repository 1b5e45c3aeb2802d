"""Lets a request in, or says why not: the one place that decides it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cryptoml_serving.security.errors import (
    ForbiddenError,
    RefusedError,
    TooManyError,
    UnauthorizedError,
)
from cryptoml_serving.security.exposure import check_exposure
from cryptoml_serving.security.issuer import Issuer
from cryptoml_serving.security.keyring import KeyRing, Known
from cryptoml_serving.security.keys import key_digest
from cryptoml_serving.security.roles import ANONYMOUS, Caller, Role
from cryptoml_serving.security.tokens import Tokens

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptoml_serving.settings import ServingSettings

#: Bytes of the longest credential that is looked at.
_MOST_BYTES = 8192
_BEARER = b"bearer "


class Guard:
    """Knows the callers. Asking it touches memory only: files and issuers are read beside it.

    Attributes:
        open: whether everybody is let in, and nobody told apart.
    """

    def __init__(self, keys: KeyRing | None, tokens: Tokens | None) -> None:
        """Know these; where both are absent, everybody is let in, anonymously."""
        self._keys = keys
        self._tokens = tokens
        self.open = keys is None and tokens is None

    @classmethod
    def of(cls, settings: ServingSettings) -> Guard:
        """The guard that the settings ask for.

        Raises:
            SettingsError: the file of keys or the issuer cannot be used, or other machines could
                reach the service and nothing would tell their callers apart.
        """
        check_exposure(settings)
        rate, path = settings.serving_rate_limit, settings.serving_keys
        issuer = Issuer.of(settings)
        return cls(
            keys=None if path is None else KeyRing(path, rate),
            tokens=None if issuer is None else Tokens(issuer, rate),
        )

    @property
    def troubles(self) -> dict[str, str]:
        """What is not as it should be, by part, in words for callers."""
        parts = {"keys": self._keys, "tokens": self._tokens}
        return {
            name: part.trouble for name, part in parts.items() if part is not None and part.trouble
        }

    def start(self) -> None:
        """Begin to follow the file of keys and the issuer's keys, in the background."""
        for part in (self._keys, self._tokens):
            if part is not None:
                part.start()

    def stop(self) -> None:
        """Follow them no more."""
        for part in (self._keys, self._tokens):
            if part is not None:
                part.stop()

    def admit(
        self,
        headers: Iterable[tuple[bytes, bytes]],
        role: Role,
        client: tuple[str, int] | None = None,
    ) -> Caller:
        """Who asks, where it may.

        Args:
            headers: of the request, names in lower case as ASGI has them.
            role: that it takes.
            client: address and port that it came from, as ASGI has them; none: nobody knows.

        Raises:
            UnauthorizedError: no credential, or none that is valid.
            ForbiddenError: it does not have the role.
            TooManyError: it asks too fast, or too many tokens from its address were none.
            IssuerUnreadError: a token, and the issuer's keys were never read.
        """
        if self.open:
            return ANONYMOUS
        known = self._find(headers, client)
        bucket = known.bucket
        if bucket is not None and (wait := bucket.take(time.monotonic())):
            message = f"{known.caller.name} may ask {bucket.rate:g} times a second"
            raise TooManyError(message, wait)
        if role not in known.caller.roles:
            message = f"{known.caller.name} does not have the role {role}"
            raise ForbiddenError(message)
        return known.caller

    def still_admits(
        self,
        headers: Iterable[tuple[bytes, bytes]],
        role: Role,
        client: tuple[str, int] | None = None,
    ) -> bool:
        """Whether who was let in would be again. It takes nothing from the caller's rate."""
        if self.open:
            return True
        try:
            return role in self._find(headers, client).caller.roles
        except RefusedError:
            return False

    def _find(
        self, headers: Iterable[tuple[bytes, bytes]], client: tuple[str, int] | None
    ) -> Known:
        """Whose credential the headers have."""
        credential = _credential(headers)
        if credential is None:
            message = "send Authorization: Bearer with a key or a token, or X-API-Key with a key"
            raise UnauthorizedError(message, presented=False)
        if len(credential) > _MOST_BYTES:
            message = f"a credential has at most {_MOST_BYTES} bytes"
            raise UnauthorizedError(message, presented=True)
        # Looking a digest up takes a time that tells nothing about the keys themselves.
        digest = key_digest(credential)
        known = None if self._keys is None else self._keys.known.get(digest)
        if known is None:
            if self._tokens is None:
                message = "no such key, or it was revoked"
                raise UnauthorizedError(message, presented=True)
            known = self._tokens.find(credential, digest, "" if client is None else client[0])
        return known


def _credential(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """The bearer's credential, else the key in a header of its own."""
    key = None
    for name, value in headers:
        if name == b"authorization":
            if value[:7].lower() == _BEARER:
                return value[7:].strip()
        elif name == b"x-api-key":
            key = value.strip()
    return key
