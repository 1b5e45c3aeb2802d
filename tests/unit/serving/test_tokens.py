"""Tokens of an issuer of our own, judged as those of a stranger's would be."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from cryptoml_serving.contract.settings import SettingsError
from cryptoml_serving.security import tokens as tokens_module
from cryptoml_serving.security.errors import (
    ForbiddenError,
    IssuerUnreadError,
    RefusedError,
    TooManyError,
    UnauthorizedError,
)
from cryptoml_serving.security.guard import Guard
from cryptoml_serving.security.issuer import Issuer, IssuerError, IssuerKeys, parse_keys
from cryptoml_serving.security.roles import Role
from cryptoml_serving.security.tokens import Tokens
from cryptoml_serving.settings import ServingSettings
from tests.token_issuer import (
    AUDIENCE,
    CURVE,
    ED,
    ISSUER,
    KEYS,
    NAME,
    RSA,
    bearer,
    claims,
    judge,
    jwk,
    made_up,
    token,
)
from tests.waiting import until


@pytest.mark.parametrize(
    ("key", "algorithm", "key_id"),
    [
        (RSA, "RS256", "rsa"),
        (RSA, "PS384", "rsa"),
        (CURVE, "ES256", "curve"),
        (ED, "EdDSA", "ed"),
    ],
)
def test_a_signed_token_is_let_in(key: Any, algorithm: str, key_id: str) -> None:
    guard = Guard(None, judge())
    headers = bearer(token(key, algorithm, key_id))
    for _ in range(2):
        assert guard.admit(headers, Role.PREDICT).name == "desk"
    with pytest.raises(ForbiddenError):
        guard.admit(headers, Role.ADMIN)


PUBLIC_PEM = RSA.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)
STRANGER = rsa.generate_private_key(65537, 2048)


def unsigned() -> str:
    return jwt.encode(claims(), "", algorithm="none", headers={"kid": "rsa"})


def signed_with_the_public_key() -> str:
    """The old trick: a verifier that believes the header takes the public key for a secret."""
    import base64  # noqa: PLC0415
    import hmac  # noqa: PLC0415

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    head = part(json.dumps({"alg": "HS256", "kid": "rsa"}).encode())
    body = f"{head}.{part(json.dumps(claims()).encode())}"
    return f"{body}.{part(hmac.digest(PUBLIC_PEM, body.encode(), 'sha256'))}"


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (unsigned, "no such key"),
        (signed_with_the_public_key, "no such key"),
        (lambda: token(STRANGER), "signature"),
        (lambda: token()[:-8] + "AAAAAAAA", "signature"),
        (lambda: token(key_id="other"), "no such key"),
        (lambda: token(key_id=None), "no such key"),
        (lambda: token(iss="https://elsewhere.example"), "another issuer"),
        (lambda: token(aud="other-service"), "another audience"),
        (lambda: token(exp=time.time() - 31), "expired"),
        (lambda: token(nbf=time.time() + 60), "not in force yet"),
        (lambda: token(exp=None), "lacks"),
        (lambda: token(sub=None), "lacks"),
        (lambda: token(aud=None), "lacks|audience"),
        (lambda: "a.b.c", "malformed"),
        (made_up, "signature"),
        (lambda: "....", "neither"),
        (lambda: token(padding="x" * 9000), "at most 8192 bytes"),
    ],
)
def test_any_other_is_not(made: Any, why: str) -> None:
    with pytest.raises(UnauthorizedError, match=why):
        Guard(None, judge()).admit(bearer(made()), Role.PREDICT)


@pytest.mark.parametrize("sub", ["", "\ud800", "desk\ndesk", "a\x00b", "\x85", "a" * 200 + "\x1b"])
def test_a_subject_that_no_log_could_tell_is_nobody(sub: str) -> None:
    with pytest.raises(UnauthorizedError, match=r"its sub is empty|malformed"):
        Guard(None, judge()).admit(bearer(token(sub=sub)), Role.PREDICT)


@pytest.mark.parametrize("sub", ["auth0|7", "Zoë Ünal", "量子", "\U0001f600"])
def test_a_subject_has_any_letters(sub: str) -> None:
    assert Guard(None, judge()).admit(bearer(token(sub=sub)), Role.PREDICT).name == sub


def test_clocks_may_differ_a_little() -> None:
    assert Guard(None, judge()).admit(bearer(token(exp=time.time() - 5)), Role.PREDICT)


def test_a_remembered_token_expires_too(monkeypatch: pytest.MonkeyPatch) -> None:
    guard, headers = Guard(None, judge()), bearer(token(exp=time.time() + 60))
    guard.admit(headers, Role.PREDICT)
    later = time.time() + 91
    monkeypatch.setattr(tokens_module.time, "time", lambda: later)
    with pytest.raises(UnauthorizedError, match="expired"):
        guard.admit(headers, Role.PREDICT)


def test_a_key_that_was_taken_back_takes_its_tokens_with_it() -> None:
    document = {"keys": [jwk(RSA, "rsa"), jwk(CURVE, "curve")]}
    judged = Tokens(ISSUER, 0.0, lambda: parse_keys(document))
    judged.look()
    guard, old, new = Guard(None, judged), bearer(token()), bearer(token(CURVE, "ES256", "curve"))
    guard.admit(old, Role.PREDICT)
    document["keys"].pop(0)
    judged.look()
    guard.admit(new, Role.PREDICT)
    with pytest.raises(UnauthorizedError):
        guard.admit(old, Role.PREDICT)


def test_a_key_for_another_use_or_algorithm_verifies_nothing() -> None:
    for key in (jwk(RSA, "rsa", use="enc"), jwk(RSA, "rsa", alg="RS512")):
        document = {"keys": [key, jwk(CURVE, "curve")]}
        with pytest.raises(UnauthorizedError):
            Guard(None, judge(document)).admit(bearer(token()), Role.PREDICT)
    for uses in ({"key_ops": ["sign"]}, {"key_ops": "verify"}, {"key_ops": 1}, {"use": ["sig"]}):
        assert parse_keys({"keys": [jwk(RSA, "rsa", **uses)]}).by_name == {}
    # Some issuers write down what they do not say.
    assert parse_keys({"keys": [jwk(RSA, "rsa", key_ops=None, use=None)]}).by_name
    secret = {"kty": "oct", "k": "c2VjcmV0", "kid": "rsa", "alg": "HS256"}
    assert parse_keys({"keys": [secret, {"kty": "RSA", "n": 7}, 3]}).by_name == {}


def test_an_issuer_with_one_key_needs_no_id() -> None:
    document = {"keys": [{k: v for k, v in jwk(CURVE, "").items() if k != "kid"}]}
    guard = Guard(None, judge(document))
    assert guard.admit(bearer(token(CURVE, "ES256", None)), Role.PREDICT).name == "desk"


@pytest.mark.parametrize(
    ("claim", "value", "name"),
    [
        ("roles", ["other", "admin"], "roles"),
        ("scope", "openid admin", "scope"),
        ("realm_access", {"roles": ["admin"]}, "realm_access.roles"),
        ("https://example.com/roles", ["admin"], "https://example.com/roles"),
    ],
)
def test_roles_are_found_where_the_issuer_puts_them(claim: str, value: Any, name: str) -> None:
    judged = judge(issuer=Issuer(NAME, AUDIENCE, "", name))
    headers = bearer(token(**{"roles": None, claim: value}))
    assert Guard(None, judged).admit(headers, Role.ADMIN).name == "desk"


@pytest.mark.parametrize("value", [None, [], ["Admin"], "administrator", 1, {"admin": True}])
def test_a_token_without_a_role_may_nothing(value: Any) -> None:
    with pytest.raises(ForbiddenError):
        Guard(None, judge()).admit(bearer(token(roles=value)), Role.PREDICT)


def test_a_new_token_fills_no_bucket() -> None:
    guard = Guard(None, judge(rate=1.0))
    guard.admit(bearer(token(jti="1")), Role.PREDICT)
    with pytest.raises(TooManyError):
        guard.admit(bearer(token(jti="2")), Role.PREDICT)
    guard.admit(bearer(token(sub="other")), Role.PREDICT)


def test_no_more_are_remembered_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens_module, "_MOST_REMEMBERED", 3)
    judged = judge(rate=1e6)
    guard = Guard(None, judged)
    for number in range(10):
        guard.admit(bearer(token(CURVE, "ES256", "curve", sub=f"s{number}")), Role.PREDICT)
    assert len(judged._remembered) == len(judged._buckets) == 3


@given(st.text(st.characters(codec="ascii", exclude_characters="\r\n"), max_size=80))
def test_whatever_is_sent_as_a_token_is_refused_in_order(text: str) -> None:
    for sent in (text, f"{text}.{text}.{text}", token().split(".")[0] + f".{text}.{text}"):
        with pytest.raises(RefusedError):
            Guard(None, JUDGE).admit(bearer(sent), Role.PREDICT)


JUDGE = judge()


@contextmanager
def issuing(answers: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """A server that answers these paths with JSON, and what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            found = answers.get(self.path)
            body = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


DISCOVERY = "/realm/.well-known/openid-configuration"


def test_the_issuer_is_asked_in_the_background_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    answers: dict[str, Any] = {}
    with issuing(answers) as (url, asked):
        name = f"{url}/realm"
        answers[DISCOVERY] = {"issuer": name, "jwks_uri": f"{url}/keys"}
        answers["/keys"] = KEYS
        settings = ServingSettings(serving_jwt_issuer=name, serving_jwt_audience=AUDIENCE)
        guard, headers = Guard.of(settings), bearer(token(iss=name))
        with pytest.raises(IssuerUnreadError) as raised:
            guard.admit(headers, Role.PREDICT)
        assert int(raised.value.headers["Retry-After"]) >= 1
        assert asked == []
        guard.start()
        try:
            until(lambda: "/keys" in asked)
            until(lambda: admitted(guard, headers))
            for _ in range(20):
                # A key nobody has heard of asks for a look, and not for one each time.
                assert not admitted(guard, bearer(token(iss=name, key_id="new")))
        finally:
            guard.stop()
    assert asked == [DISCOVERY, "/keys"]


def admitted(guard: Guard, headers: list[tuple[bytes, bytes]]) -> bool:
    try:
        guard.admit(headers, Role.PREDICT)
    except (UnauthorizedError, IssuerUnreadError):
        return False
    return True


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ({}, "404"),
        ({DISCOVERY: b"<html>"}, "JSONDecodeError"),
        ({DISCOVERY: []}, "no JSON object"),
        ({DISCOVERY: b" " * (1 << 20) + b"{}"}, "more than 1048576 bytes"),
        ({DISCOVERY: {"issuer": "https://other.example"}}, "is of the issuer"),
        ({DISCOVERY: {"issuer": "URL/realm", "jwks_uri": "http://issuer.example/k"}}, "jwks_uri"),
        ({DISCOVERY: {"issuer": "URL/realm", "jwks_uri": "URL/k"}, "/k": {}}, "no key among"),
    ],
)
def test_an_issuer_that_cannot_be_trusted_is_told(answers: dict[str, Any], why: str) -> None:
    filled: dict[str, Any] = {}
    with issuing(filled) as (url, _):
        for path, answer in answers.items():
            told = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            filled[path] = told.replace(b"URL", url.encode())
        judged = Tokens(Issuer(f"{url}/realm", AUDIENCE, "", "roles"), 0.0)
        assert not judged.look()
        assert judged.trouble
        with pytest.raises(IssuerError, match=why):
            judged._issuer.read_keys()


def test_an_issuer_that_falls_silent_leaves_its_keys_in_force() -> None:
    answers: list[IssuerKeys] = [parse_keys(KEYS)]

    def read() -> IssuerKeys:
        if not answers:
            raise IssuerError("it does not answer")
        return answers.pop()

    judged = Tokens(ISSUER, 0.0, read)
    assert judged.look()
    assert not judged.look()
    assert "tokens" in Guard(None, judged).troubles
    assert Guard(None, judged).admit(bearer(token()), Role.PREDICT)


def test_whatever_an_issuer_answers_it_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens_module, "_RETRY_SECONDS", 0.01)
    errors: list[Exception] = [TypeError("nobody foresaw it")]

    def read() -> IssuerKeys:
        if errors:
            told.append(judged.trouble)
            raise errors.pop()
        told.append(judged.trouble)
        return parse_keys(KEYS)

    told: list[str] = []
    judged = Tokens(ISSUER, 0.0, read)
    judged.start()
    try:
        until(lambda: len(told) > 1 and not judged.trouble)
    finally:
        judged.stop()
    assert told[0] == ""
    assert told[1]
    assert Guard(None, judged).admit(bearer(token()), Role.PREDICT)


def test_tokens_that_are_valid_are_as_many_as_they_like() -> None:
    guard = Guard(None, judge())
    for number in range(150):
        guard.admit(bearer(token(ED, "EdDSA", "ed", sub=f"s{number}")), Role.PREDICT)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"serving_jwt_issuer": NAME}, "CRYPTOML_SERVING_JWT_AUDIENCE"),
        ({"serving_jwt_audience": "x"}, "CRYPTOML_SERVING_JWT_AUDIENCE=x"),
        ({"serving_jwks_url": NAME}, "CRYPTOML_SERVING_JWKS_URL="),
        (
            {"serving_jwt_issuer": "http://issuer.example", "serving_jwt_audience": "x"},
            "CRYPTOML_SERVING_JWT_ISSUER=http://issuer.example",
        ),
        (
            {
                "serving_jwt_issuer": NAME,
                "serving_jwt_audience": "x",
                "serving_jwks_url": "ftp://issuer.example",
            },
            "CRYPTOML_SERVING_JWKS_URL=ftp",
        ),
    ],
)
def test_half_an_issuer_stops_the_start(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError, match=f"^{named}"):
        Guard.of(ServingSettings(**settings))
