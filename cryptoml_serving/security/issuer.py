"""The OpenID issuer whose tokens are accepted, and reading its public keys."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from cryptoml_serving.contract.settings import SettingsError
from cryptoml_serving.security.exposure import is_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jwt import PyJWK

    from cryptoml_serving.settings import ServingSettings

_TIMEOUT_SECONDS = 5.0
_MOST_BYTES = 1 << 20
_DISCOVERY = "/.well-known/openid-configuration"
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "Ed25519": "EdDSA"}
#: Signatures of public keys only: a token signed with a secret that both sides know proves nothing.
_ALLOWED = frozenset({*_RSA, *_CURVES.values()})


class IssuerError(Exception):
    """The issuer's keys cannot be read; the message is for the log."""


@dataclass(frozen=True)
class IssuerKeys:
    """What verifies an issuer's signatures.

    Attributes:
        by_name: key id and algorithm to a key bound to that algorithm; the id is empty where the
            issuer has one key without an id.
        text: the same as the issuer tells it; equal texts, equal keys.
    """

    by_name: Mapping[tuple[str, str], PyJWK]
    text: str


@dataclass(frozen=True)
class Issuer:
    """Whose tokens are accepted, for whom, and where their roles are.

    Attributes:
        name: the ``iss`` of its tokens, its address.
        audience: the ``aud`` they must have.
        keys_url: of its JWKS; empty: its discovery document says.
        role_claim: the claim with the roles, or a path into one, by dots.
    """

    name: str
    audience: str
    keys_url: str
    role_claim: str

    @classmethod
    def of(cls, settings: ServingSettings) -> Self | None:
        """The one that the settings name; none where they name none.

        Raises:
            SettingsError: a part is missing, or an address could be answered by anybody between.
        """
        issuer, audience = settings.serving_jwt_issuer, settings.serving_jwt_audience
        if not issuer:
            given = {"JWT_AUDIENCE": audience, "JWKS_URL": settings.serving_jwks_url}
            for name, value in given.items():
                if value:
                    message = (
                        f"CRYPTOML_SERVING_{name}={value}: it is of an issuer, and "
                        "CRYPTOML_SERVING_JWT_ISSUER is empty"
                    )
                    raise SettingsError(message)
            return None
        if not audience:
            message = (
                f"CRYPTOML_SERVING_JWT_AUDIENCE is empty: a token that {issuer} made for another "
                "service would do. Accepted: the audience of this one's tokens"
            )
            raise SettingsError(message)
        _check_url("CRYPTOML_SERVING_JWT_ISSUER", issuer)
        if settings.serving_jwks_url:
            _check_url("CRYPTOML_SERVING_JWKS_URL", settings.serving_jwks_url)
        return cls(issuer, audience, settings.serving_jwks_url, settings.serving_jwt_roles)

    def read_keys(self) -> IssuerKeys:
        """Ask the issuer for its keys; takes seconds, so never in a request.

        Raises:
            IssuerError: it does not answer, or with none that can verify a signature.
        """
        url = self.keys_url or self._discover()
        found = parse_keys(_get(url))
        if not found.by_name:
            message = f"{url}: no key among them verifies a signature of {', '.join(_ALLOWED)}"
            raise IssuerError(message)
        return found

    def roles(self, claims: Mapping[str, Any]) -> tuple[str, ...]:
        """The names in the role claim: a list of them, or a text with spaces between."""
        value: object = claims.get(self.role_claim)
        if value is None:
            value = claims
            for part in self.role_claim.split("."):
                value = value.get(part) if isinstance(value, dict) else None
        if isinstance(value, str):
            return tuple(value.split())
        return tuple(map(str, value)) if isinstance(value, list) else ()

    def _discover(self) -> str:
        url = self.name.rstrip("/") + _DISCOVERY
        document = _get(url)
        if document.get("issuer") != self.name:
            message = f"{url} is of the issuer {document.get('issuer')!r}, not {self.name!r}"
            raise IssuerError(message)
        found = document.get("jwks_uri")
        if not isinstance(found, str) or not _is_safe(found):
            message = f"{url}: its jwks_uri is {found!r}; accepted: an https:// address"
            raise IssuerError(message)
        return found


def parse_keys(document: Mapping[str, Any]) -> IssuerKeys:
    """The keys of a JWKS that verify signatures; others in it are of no interest here.

    A key that names no algorithm is good for each one of its kind.
    """
    from jwt import PyJWK, PyJWTError  # noqa: PLC0415 - not needed without an issuer

    listed = document.get("keys")
    wanted = [each for each in listed if _verifies(each)] if isinstance(listed, list) else []
    found: dict[tuple[str, str], PyJWK] = {}
    for each in wanted:
        key_id = each.get("kid", "")
        if not isinstance(key_id, str) or (not key_id and len(wanted) > 1):
            continue
        for algorithm in _algorithms(each):
            try:
                found[key_id, algorithm] = PyJWK(each, algorithm)
            except PyJWTError:
                # A key that cannot be read verifies nothing; its tokens are refused.
                continue
    return IssuerKeys(found, json.dumps(wanted, sort_keys=True))


def _verifies(key: object) -> bool:
    """Whether signatures are its use by its own word; some issuers write null for no word."""
    if not isinstance(key, dict) or key.get("use") not in (None, "sig"):
        return False
    uses = key.get("key_ops")
    return uses is None or (isinstance(uses, list) and "verify" in uses)


def _algorithms(key: Mapping[str, Any]) -> tuple[str, ...]:
    of_kind = _RSA if key.get("kty") == "RSA" else (_CURVES.get(str(key.get("crv")), ""),)
    named = key.get("alg")
    return tuple(each for each in of_kind if each in _ALLOWED and named in (None, each))


def _get(url: str) -> dict[str, Any]:
    """A JSON object from there.

    Raises:
        IssuerError: there is none.
    """
    import httpx  # noqa: PLC0415 - not needed without an issuer

    try:
        # No proxy of the environment stands before this machine itself.
        with (
            httpx.Client(timeout=_TIMEOUT_SECONDS, trust_env=not _is_local(url)) as client,
            client.stream("GET", url) as answer,
        ):
            answer.raise_for_status()
            content = b""
            for part in answer.iter_bytes():
                content += part
                if len(content) > _MOST_BYTES:
                    message = f"{url}: more than {_MOST_BYTES} bytes"
                    raise IssuerError(message)
        document = json.loads(content)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        message = f"{url}: {type(error).__name__}: {error}"
        raise IssuerError(message) from error
    if not isinstance(document, dict):
        message = f"{url}: no JSON object"
        raise IssuerError(message)
    return document


def _check_url(variable: str, url: str) -> None:
    if not _is_safe(url):
        message = (
            f"{variable}={url}: whoever is between could answer for it. Accepted: an https:// "
            "address, or http:// on this machine"
        )
        raise SettingsError(message)


def _is_safe(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return bool(parts.hostname) and (
        parts.scheme == "https" or (parts.scheme == "http" and _is_local(url))
    )


def _is_local(url: str) -> bool:
    return is_loopback(urlsplit(url).hostname or "")
