"""Signed tokens of an OpenID issuer: verified once, then remembered until they expire."""

from __future__ import annotations

import logging
import threading
import time
import unicodedata
from base64 import urlsafe_b64decode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from cryptoml_serving.security.background import Repeated
from cryptoml_serving.security.errors import IssuerUnreadError, UnauthorizedError
from cryptoml_serving.security.issuer import Issuer, IssuerError, IssuerKeys
from cryptoml_serving.security.keyring import Known
from cryptoml_serving.security.rates import Bucket
from cryptoml_serving.security.refusals import Refusals
from cryptoml_serving.security.roles import Caller, granted
from cryptoml_serving.telemetry import event

if TYPE_CHECKING:
    from collections.abc import Callable

    from jwt import PyJWK

_LOG = logging.getLogger(__name__)
#: Time between two looks at the issuer's keys.
_REFRESH_SECONDS = 300.0
#: The same after it did not answer, and the least between two looks that tokens asked for.
_RETRY_SECONDS = 10.0
#: How far the issuer's clock and ours may be apart.
_LEEWAY_SECONDS = 30
#: Tokens and subjects remembered; past it the oldest is verified again when it comes back.
_MOST_REMEMBERED = 10_000
_LONGEST_NAME = 128
#: Unicode's categories of characters that no name has: control characters, and halves of one.
_NAMELESS = frozenset({"Cc", "Cs"})
#: A token is three parts with dots between; anything else is a key.
_DOTS = 2
_OPTIONS: Any = {"require": ["exp", "iss", "aud", "sub"], "enforce_minimum_key_length": True}


@dataclass(frozen=True, slots=True)
class _Remembered:
    known: Known
    #: Second since the epoch past which the token is none.
    until: float


class Tokens:
    """Judges tokens with the issuer's keys, which are read beside the requests."""

    def __init__(
        self, issuer: Issuer, rate: float, read: Callable[[], IssuerKeys] | None = None
    ) -> None:
        """Know no key yet; ``start`` begins to read them.

        Args:
            issuer: whose tokens these are.
            rate: requests a second of one subject; 0: no limit.
            read: reads the keys; the issuer itself when absent.
        """
        self.trouble = ""
        self._issuer = issuer
        self._rate = rate
        self._read = read or issuer.read_keys
        self._keys: IssuerKeys | None = None
        self._last_read = 0.0
        self._remembered: dict[bytes, _Remembered] = {}
        self._buckets: dict[str, Bucket] = {}
        self._refusals = Refusals()
        #: Held while something is remembered or forgotten, never while the issuer is asked.
        self._writing = threading.Lock()
        self._follower = Repeated("issuer", self._follow)

    def start(self) -> None:
        """Begin to read the issuer's keys."""
        self._follower.start()

    def stop(self) -> None:
        """Read them no more."""
        self._follower.stop()

    def find(self, token: bytes, digest: bytes, address: str = "") -> Known:
        """Whose token this is.

        Args:
            token: as it was sent.
            digest: of it, which it is remembered by.
            address: that it came from; those of whom none is known count as one.

        Raises:
            UnauthorizedError: it is no valid token.
            TooManyError: too many of late were none, above all from there; its signature was not
                looked at.
            IssuerUnreadError: the issuer's keys were never read.
        """
        found = self._remembered.get(digest)
        if found is not None:
            if time.time() <= found.until:
                return found.known
            with self._writing:
                self._remembered.pop(digest, None)
            raise _invalid("it has expired")
        if token.count(b".") != _DOTS:
            raise _invalid("it is neither a key in force nor a signed token")
        keys = self._keys
        if keys is None:
            message = "the issuer's keys have not been read yet"
            raise IssuerUnreadError(message, _RETRY_SECONDS)
        key = self._key_of(token, keys)
        self._refusals.require_room(address)
        try:
            claims = self._verify(token, key)
        except UnauthorizedError:
            self._refusals.count(address)
            raise
        return self._remember(digest, claims, keys)

    def look(self) -> bool:
        """Read the issuer's keys; says whether it worked."""
        self._last_read = time.monotonic()
        try:
            found = self._read()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again
            self.trouble = "the issuer of tokens does not tell its keys"
            unforeseen = None if isinstance(error, IssuerError) else error
            message = str(error) or type(error).__name__
            event(_LOG, logging.ERROR, "error", message, exc_info=unforeseen, error_type="issuer")
            return False
        self.trouble = ""
        if self._keys is not None and found.text == self._keys.text:
            return True
        with self._writing:
            # A key that the issuer took back takes its tokens with it.
            self._remembered.clear()
            self._keys = found
        names = sorted({name for name, _ in found.by_name})
        message = f"{self._issuer.name}: {len(names)} keys verify tokens"
        event(_LOG, logging.INFO, "issuer_keys_read", message, names=names)
        return True

    def _follow(self) -> float:
        # However often unknown keys are named, the issuer is asked once in a while.
        if self._last_read and time.monotonic() < self._last_read + _RETRY_SECONDS:
            return self._last_read + _RETRY_SECONDS - time.monotonic()
        return _REFRESH_SECONDS if self.look() else _RETRY_SECONDS

    def _key_of(self, token: bytes, keys: IssuerKeys) -> PyJWK:
        """The key that is to verify a token, by the token's own word, which costs little to read.

        Raises:
            UnauthorizedError: whatever its signature, it is no valid token.
        """
        head, body, _ = token.split(b".")
        header = _members(head)
        name = (str(header.get("kid", "")), str(header.get("alg")))
        key = keys.by_name.get(name) or keys.by_name.get(("", name[1]))
        if key is None:
            self._follower.ask()
            raise _invalid("the issuer has no such key for its algorithm")
        if _members(body).get("iss") != self._issuer.name:
            raise _invalid("it is of another issuer")
        return key

    def _verify(self, token: bytes, key: PyJWK) -> dict[str, Any]:
        import jwt  # noqa: PLC0415 - not needed without an issuer; the follower imported it

        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                audience=self._issuer.audience,
                issuer=self._issuer.name,
                leeway=_LEEWAY_SECONDS,
                options=_OPTIONS,
            )
        except jwt.PyJWTError as error:
            raise _invalid(_reason(error)) from None
        # Logs and answers tell it: what cannot be written would break them.
        if not _is_name(claims["sub"]):
            raise _invalid("its sub is empty, or has characters that no name has")
        return claims

    def _remember(self, digest: bytes, claims: dict[str, Any], keys: IssuerKeys) -> Known:
        name = claims["sub"][:_LONGEST_NAME]
        roles = granted(self._issuer.roles(claims))
        with self._writing:
            known = Known(Caller(name, roles), self._bucket(name))
            # Not where the keys it was verified with were replaced meanwhile.
            if keys is self._keys:
                if len(self._remembered) >= _MOST_REMEMBERED:
                    del self._remembered[next(iter(self._remembered))]
                self._remembered[digest] = _Remembered(known, int(claims["exp"]) + _LEEWAY_SECONDS)
        return known

    def _bucket(self, name: str) -> Bucket | None:
        """That of a subject, whichever token it comes with: a new token fills no bucket."""
        if self._rate == 0:
            return None
        bucket = self._buckets.get(name)
        if bucket is None:
            if len(self._buckets) >= _MOST_REMEMBERED:
                del self._buckets[next(iter(self._buckets))]
            bucket = self._buckets[name] = Bucket(self._rate)
        return bucket


def _invalid(why: str) -> UnauthorizedError:
    return UnauthorizedError(f"the token is not valid: {why}", presented=True)


def _members(part: bytes) -> dict[str, Any]:
    """The JSON object that a part of a token is; nobody has vouched for it yet."""
    try:
        found = orjson.loads(urlsafe_b64decode(part + b"=" * (-len(part) % 4)))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise _invalid("it is malformed")
    return found


def _is_name(subject: str) -> bool:
    """Whether it can be written: it is UTF-8, and has no control characters."""
    return bool(subject) and _NAMELESS.isdisjoint(map(unicodedata.category, subject))


def _reason(error: Exception) -> str:
    """Which rule it breaks; the library's own words may repeat what was sent."""
    import jwt  # noqa: PLC0415

    reasons: dict[type[Exception], str] = {
        jwt.ExpiredSignatureError: "it has expired",
        jwt.ImmatureSignatureError: "it is not in force yet",
        jwt.InvalidAudienceError: "it is for another audience",
        jwt.InvalidIssuerError: "it is of another issuer",
        jwt.MissingRequiredClaimError: "it lacks one of exp, iss, aud and sub",
        jwt.InvalidSignatureError: "its signature does not match",
    }
    return next(
        (why for kind, why in reasons.items() if isinstance(error, kind)), "it is malformed"
    )
