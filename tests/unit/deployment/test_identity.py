"""Who decides: real signed tokens against a real issuer on this machine."""

from __future__ import annotations

import json
import os
import pwd
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from cryptoml_assets.deployment.identity import identity, os_identity
from cryptoml_assets.errors import IdentityError

AUDIENCE = "cryptoml"
RSA, OTHER_RSA = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in "12")
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
KEYS = {"rsa": (RSA, "RS256"), "ec": (EC, "ES256"), "ed": (ED, "EdDSA")}


def published(name: str, key: Any, algorithm: str) -> dict[str, Any]:
    made = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
    return {**made, "kid": name, "use": "sig"}


@dataclass
class Issuer:
    """An OpenID provider whose documents a test may alter."""

    address: str
    documents: dict[str, Any] = field(default_factory=dict)

    def token(self, key: str = "rsa", *, signed_by: Any = None, **claims: Any) -> str:
        now = int(time.time())
        default = {
            "iss": self.address,
            "aud": AUDIENCE,
            "sub": "alice",
            "iat": now,
            "exp": now + 600,
        }
        said = {name: v for name, v in {**default, **claims}.items() if v is not None}
        private, algorithm = KEYS[key]
        return jwt.encode(said, signed_by or private, algorithm, headers={"kid": key})

    def who(self, token: str) -> str:
        return identity(token=token, issuer=self.address, audience=AUDIENCE)


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = made.documents.get(self.path)
            self.send_response(200 if found is not None else 404)
            self.end_headers()
            self.wfile.write(json.dumps(found).encode())

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = Issuer(f"http://127.0.0.1:{server.server_port}")
    made.documents["/.well-known/openid-configuration"] = {
        "issuer": made.address,
        "jwks_uri": f"{made.address}/keys",
    }
    made.documents["/keys"] = {"keys": [published(n, *key) for n, key in KEYS.items()]}
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("key", KEYS)
def test_a_token_says_who_decides(issuer: Issuer, key: str) -> None:
    assert issuer.who(issuer.token(key)) == f"oidc:{issuer.address}#alice"


def refused(issuer: Issuer, token: str, why: str) -> None:
    with pytest.raises(IdentityError, match=why) as caught:
        issuer.who(token)
    # A token is a secret for as long as it lasts.
    assert token[-20:] not in str(caught.value)


def test_tokens_that_prove_nothing_are_refused(issuer: Issuer) -> None:
    now = int(time.time())
    refused(issuer, issuer.token(exp=now - 600), "expired")
    refused(issuer, issuer.token(exp=None), '"exp"')
    refused(issuer, issuer.token(sub=None), '"sub"')
    refused(issuer, issuer.token(sub=" "), "names nobody")
    refused(issuer, issuer.token(nbf=now + 600), "not yet valid")
    refused(issuer, issuer.token(aud="somebody else"), "Audience")
    refused(issuer, issuer.token(aud=None), '"aud"')
    refused(issuer, issuer.token(iss="https://elsewhere.example"), "issuer")
    refused(issuer, issuer.token(signed_by=OTHER_RSA), "Signature verification failed")
    refused(issuer, "no token at all", "not to be trusted")


def test_other_ways_to_sign_are_refused(issuer: Issuer) -> None:
    claims = jwt.decode(issuer.token(), options={"verify_signature": False})
    refused(issuer, jwt.encode(claims, None, "none", headers={"kid": "rsa"}), "signed with none")
    secret = "the public key, as a shared secret " * 2
    refused(issuer, jwt.encode(claims, secret, "HS256", headers={"kid": "rsa"}), "with HS256")
    # A key of one kind never verifies what says it was signed by another.
    crossed = jwt.encode(claims, EC, "ES256", headers={"kid": "rsa"})
    refused(issuer, crossed, "not to be trusted")


def test_only_keys_that_the_issuer_publishes_count(issuer: Issuer) -> None:
    token = issuer.token()
    issuer.documents["/keys"] = {"keys": [published("new", OTHER_RSA, "RS256")]}
    refused(issuer, token, "key rsa, which .* does not publish")
    for_encryption = {**published("rsa", RSA, "RS256"), "use": "enc"}
    issuer.documents["/keys"] = {"keys": [for_encryption]}
    refused(issuer, token, "does not publish")
    issuer.documents["/keys"] = {"keys": []}
    refused(issuer, token, "no usable keys")
    elsewhere = {"issuer": issuer.address, "jwks_uri": "http://elsewhere.example/keys"}
    issuer.documents["/.well-known/openid-configuration"] = elsewhere
    refused(issuer, token, "only taken from https://")
    issuer.documents["/.well-known/openid-configuration"]["issuer"] = "https://elsewhere.example"
    refused(issuer, token, "calls itself https://elsewhere.example")
    issuer.documents.clear()
    refused(issuer, token, "404")


def test_an_issuer_leaves_the_operating_system_no_say(issuer: Issuer) -> None:
    with pytest.raises(IdentityError, match=r"put a token .* into CRYPTOML_IDENTITY_TOKEN"):
        issuer.who("")
    with pytest.raises(IdentityError, match="set both or neither"):
        identity(token=issuer.token(), issuer="", audience=AUDIENCE)


def test_the_user_is_the_one_that_runs_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "somebody-else")
    expected = f"os:{pwd.getpwuid(os.getuid()).pw_name}@{socket.gethostname()}"
    assert identity(token="", issuer="", audience=AUDIENCE) == os_identity() == expected
