"""An issuer of tokens with three keys, and what judges them by it.

guard = Guard(None, judge())
guard.admit(bearer(token()), Role.PREDICT)                        # signed with RSA
guard.admit(bearer(token(CURVE, "ES256", "curve", sub="other")), Role.PREDICT)
guard.admit(bearer(made_up()), Role.PREDICT)                      # raises UnauthorizedError
"""

from __future__ import annotations

import base64
import itertools
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from cryptoml_serving.security.issuer import Issuer, parse_keys
from cryptoml_serving.security.tokens import Tokens

RSA = rsa.generate_private_key(65537, 2048)
CURVE = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
NAME, AUDIENCE = "https://issuer.example/realm", "cryptoml"
ISSUER = Issuer(NAME, AUDIENCE, "", "roles")


def jwk(key: Any, key_id: str, **more: Any) -> dict[str, Any]:
    algorithm = {rsa.RSAPrivateKey: RSAAlgorithm, ec.EllipticCurvePrivateKey: ECAlgorithm}
    kind = next((a for k, a in algorithm.items() if isinstance(key, k)), OKPAlgorithm)
    return {**kind.to_jwk(key.public_key(), as_dict=True), "kid": key_id, **more}


KEYS = {"keys": [jwk(RSA, "rsa"), jwk(CURVE, "curve"), jwk(ED, "ed")]}


def claims(**changes: Any) -> dict[str, Any]:
    usual = {
        "iss": NAME,
        "aud": AUDIENCE,
        "sub": "desk",
        "exp": time.time() + 60,
        "roles": ["predict"],
    }
    return {name: value for name, value in {**usual, **changes}.items() if value is not None}


def token(
    key: Any = RSA, algorithm: str = "RS256", key_id: str | None = "rsa", **changes: Any
) -> str:
    headers = {} if key_id is None else {"kid": key_id}
    return jwt.encode(claims(**changes), key, algorithm=algorithm, headers=headers)


def bearer(credential: str) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", b"Bearer " + credential.encode())]


def judge(document: dict[str, Any] = KEYS, *, rate: float = 0.0, issuer: Issuer = ISSUER) -> Tokens:
    judged = Tokens(issuer, rate, lambda: parse_keys(document))
    judged.look()
    return judged


_STEM = token(CURVE, "ES256", "curve", exp=4e9).rpartition(".")[0]
_SERIALS = itertools.count()


def made_up() -> str:
    """Another one at each call, in which all is right but its signature."""
    signature = next(_SERIALS).to_bytes(64, "big")
    return f"{_STEM}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
