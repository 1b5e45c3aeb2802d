"""A deployed inference service, as somebody who calls it over HTTP sees it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from cryptoml_assets.monitoring.inference import key_header
from cryptoml_serving.contract.settings import SettingsError
from cryptoml_serving.contract.stores import masked

#: Longest that one request may take, seconds.
TIMEOUT_SECONDS = 10.0
_LOCAL = ("127.0.0.1", "::1", "localhost")
_SHOWN_CHARACTERS = 200


@dataclass(frozen=True)
class Reply:
    """What came back of one request.

    Attributes:
        status: the HTTP status; 0 where nothing came back.
        body: the parsed JSON; none where it is no JSON.
        said: why nothing came back, or the beginning of what did.
        seconds: that it took.
    """

    status: int
    body: Any = None
    said: str = ""
    seconds: float = 0.0

    @property
    def told(self) -> str:
        """Status and words in one line, for a person: a problem's own where it is one."""
        detail = self.body.get("detail") if isinstance(self.body, dict) else None
        words = detail if isinstance(detail, str) else self.said
        return f"HTTP {self.status}: {words}" if self.status else words


@dataclass(frozen=True)
class Credential:
    """Who asks; nothing of it is ever printed.

    Attributes:
        key: API key; empty: none.
        token: bearer token of an OpenID issuer; empty: none.
    """

    key: str = field(default="", repr=False)
    token: str = field(default="", repr=False)

    @classmethod
    def read(cls, key_file: Path | None, token_file: Path | None) -> Self:
        """The credential in files, as a mounted secret is.

        Raises:
            SettingsError: both are given, or one cannot be read or holds no single word.
        """
        if key_file is not None and token_file is not None:
            raise SettingsError("--key-file and --token-file: give one of them")
        return cls(key=_secret("--key-file", key_file), token=_secret("--token-file", token_file))

    @property
    def given(self) -> bool:
        """Whether there is one."""
        return bool(self.key or self.token)

    @property
    def headers(self) -> dict[str, str]:
        """What a request carries to show it."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else key_header(self.key)


def _secret(option: str, file: Path | None) -> str:
    if file is None:
        return ""
    try:
        text = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        # Its own text can hold bytes of the secret.
        why = error.strerror if isinstance(error, OSError) else "it is no ASCII text"
        raise SettingsError(f"{option} {file}: {why}") from None
    if not text or len(text.split()) != 1:
        raise SettingsError(f"{option} {file}: accepted is a file with one line, the secret")
    return text


class Service:
    """The service at one address; a request that fails is an answer too, never an exception."""

    def __init__(self, url: str, credential: Credential, ca_file: Path | None = None) -> None:
        """Prepare to ask.

        Args:
            url: where it listens, http:// or https://.
            credential: who asks.
            ca_file: PEM file of the authorities to trust; none: those of this machine.

        Raises:
            SettingsError: the address or the file cannot be used.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingsError(
                f"--url {masked(url)}: accepted is an address such as https://api.example.com"
            )
        self.credential = credential
        self._client = httpx.Client(
            base_url=url.rstrip("/"),
            timeout=TIMEOUT_SECONDS,
            verify=_trust(ca_file),
            trust_env=beyond(url),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str) -> Reply:
        """Read a route."""
        return self._ask("GET", path, None, self.credential.headers)

    def predict(self, symbol: str, *, as_stranger: bool = False) -> Reply:
        """Ask for a prediction of a symbol, without the credential where ``as_stranger``."""
        headers = {} if as_stranger else self.credential.headers
        return self._ask("POST", "/predict", {"symbol": symbol}, headers)

    def _ask(self, method: str, path: str, body: object, headers: dict[str, str]) -> Reply:
        try:
            answer = self._client.request(method, path, json=body, headers=headers)
        except httpx.HTTPError as error:
            return Reply(0, said=masked(f"no answer: {type(error).__name__}: {error}"))
        try:
            parsed = answer.json()
        except ValueError:
            parsed = None
        said = " ".join(answer.text.split())[:_SHOWN_CHARACTERS]
        return Reply(answer.status_code, parsed, said, answer.elapsed.total_seconds())


def beyond(url: str) -> bool:
    """Whether an address is past this machine, where a proxy of the environment may stand."""
    return urlsplit(url).hostname not in _LOCAL


def _trust(ca_file: Path | None) -> ssl.SSLContext | bool:
    if ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"--ca-file {ca_file}: {error}; accepted is a PEM file") from None
