"""Who decides: the subject of a verified token, or the user of the operating system.

A token is trusted as OpenID Connect asks for it: its issuer is the configured one, its signature is
by a key which that issuer publishes now, it names our audience, and it has not expired (OpenID
Connect Core 1.0, 3.1.3.7; keys are found as in Discovery 1.0).
"""

from __future__ import annotations

import os
import pwd
import socket
from typing import Any
from urllib.parse import urlsplit

from cryptoml_assets.errors import IdentityError

#: Signatures of which a published key alone proves who made them; ``none`` and shared secrets not.
ALGORITHMS = ("RS256", "ES256", "EdDSA")
_REQUIRED = ("exp", "iss", "aud", "sub")
_DISCOVERY = "/.well-known/openid-configuration"
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
#: Seconds an issuer may take to answer, and by which its clock may differ from ours.
_PATIENCE, _SKEW = 10.0, 30.0


def identity(*, token: str, issuer: str, audience: str) -> str:
    """Who runs this command: ``oidc:<issuer>#<subject>`` or ``os:<user>@<host>``.

    Args:
        token: a JSON Web Token, empty for none.
        issuer: address of the OpenID provider; with one, nothing but its token will do.
        audience: whom the token must be meant for.

    Raises:
        IdentityError: the token is missing, not to be trusted, or of no configured issuer.
    """
    if issuer:
        if not token:
            raise IdentityError(
                f"CRYPTOML_OIDC_ISSUER={issuer} says who may decide: put a token of that issuer "
                f"for the audience {audience} into CRYPTOML_IDENTITY_TOKEN"
            )
        return f"oidc:{issuer}#{token_subject(token, issuer=issuer, audience=audience)}"
    if token:
        raise IdentityError(
            "CRYPTOML_IDENTITY_TOKEN is set, but no CRYPTOML_OIDC_ISSUER against whose keys it "
            "could be verified: set both or neither"
        )
    return os_identity()


def os_identity() -> str:
    """The user that this process runs as, on this host; environment variables have no say in it."""
    number = os.getuid()
    try:
        user = pwd.getpwuid(number).pw_name
    except KeyError:
        user = str(number)
    return f"os:{user}@{socket.gethostname()}"


def token_subject(token: str, *, issuer: str, audience: str) -> str:
    """Whom a token is about, after it was verified with the keys its issuer publishes.

    Args:
        token: a JSON Web Token.
        issuer: whose it must be.
        audience: whom it must be meant for.

    Raises:
        IdentityError: the issuer does not answer, or the token is not to be trusted.
    """
    import jwt  # noqa: PLC0415 - only commands that decide need it

    keys = _published_keys(issuer)
    try:
        header = jwt.get_unverified_header(token)
        if (algorithm := header.get("alg")) not in ALGORITHMS:
            raise IdentityError(
                f"the token is signed with {algorithm}; accepted: {', '.join(ALGORITHMS)}"
            )
        claims = jwt.decode(
            token,
            key=_key_of(header, keys, issuer),
            algorithms=list(ALGORITHMS),
            audience=audience,
            issuer=issuer,
            leeway=_SKEW,
            options={"require": list(_REQUIRED)},
        )
    except jwt.PyJWTError as error:
        raise IdentityError(
            f"the token is not to be trusted: {error}; needed is one of {issuer} for the audience "
            f"{audience} that has not expired"
        ) from error
    subject = str(claims["sub"])
    if not subject.strip():
        raise IdentityError("the token names nobody: its subject is empty")
    return subject


def _published_keys(issuer: str) -> Any:
    """The keys an issuer publishes, as PyJWT has them."""
    import jwt  # noqa: PLC0415

    found = _document(f"{issuer.rstrip('/')}{_DISCOVERY}")
    if found.get("issuer") != issuer:
        raise IdentityError(
            f"{issuer} calls itself {found.get('issuer')}: CRYPTOML_OIDC_ISSUER must be spelt as "
            "the provider does"
        )
    address = str(found.get("jwks_uri", ""))
    try:
        return jwt.PyJWKSet.from_dict(_document(address))
    except jwt.PyJWTError as error:
        raise IdentityError(f"{address} publishes no usable keys: {error}") from error


def _key_of(header: dict[str, Any], keys: Any, issuer: str) -> Any:
    """The published key a token names; it need not name one where there is but one."""
    signing = [key for key in keys.keys if key.public_key_use in {None, "sig"}]
    named = header.get("kid")
    if named is None and len(signing) == 1:
        return signing[0]
    for key in signing:
        if named is not None and key.key_id == named:
            return key
    raise IdentityError(f"the token is signed with key {named}, which {issuer} does not publish")


def _document(address: str) -> dict[str, Any]:
    """The JSON object at an address whose answer nobody on the way can alter."""
    import httpx  # noqa: PLC0415

    try:
        parts = urlsplit(address)
        local = parts.scheme == "http" and parts.hostname in _LOOPBACK
        if parts.scheme != "https" and not local:
            raise IdentityError(f"{address}: keys are only taken from https:// addresses")
        answer = httpx.get(address, timeout=_PATIENCE, verify=not local)
        answer.raise_for_status()
        found = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise IdentityError(f"{address} does not say who signs its tokens: {error}") from error
    if not isinstance(found, dict):
        raise IdentityError(f"{address} answered no JSON object")
    return found
