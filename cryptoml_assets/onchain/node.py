"""An Ethereum node over JSON-RPC: web3's HTTP provider with the formatting left out.

web3 turns every field of every transaction into a Python object; summing up blocks needs a few of
them. So requests go through web3's provider, and orjson makes and reads them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import orjson
import requests
from web3 import HTTPProvider, Web3

from cryptoml_assets.errors import UnusableAnswerError
from cryptoml_assets.retry import call_with_retries

Call = tuple[str, list[Any]]
_SOURCE_HEADER = "X-Cryptoml-Source"
_TOO_LARGE, _TOO_MANY_REQUESTS, _SERVER_ERROR = 413, 429, 500
#: Error codes by which nodes refuse calls that they would answer later: "limit exceeded" of
#: EIP-1474, and the HTTP status that some providers put there instead.
_LATER = frozenset({-32005, _TOO_MANY_REQUESTS})
#: Error code of a batch with more calls than the node takes, and of the calls of one whose answers
#: are together larger than it gives.
_TOO_MANY_CALLS, _ANSWER_TOO_LARGE = -32600, -32003

# Many nodes take a hundred calls at once and no more.
_MOST_CALLS = 100
# A hundred mainnet blocks with their receipts are 80 MB; public nodes cap answers before that.
_MOST_BYTES = 16_000_000


class TransientAnswerError(requests.RequestException):
    """HTTP 429 or 5xx, or the same said in JSON: the node may answer the same request later.

    ``retry_after`` is how many seconds it asks to wait, if it does.
    """

    def __init__(self, reason: object, retry_after: float | None = None) -> None:
        super().__init__(str(reason))
        self.retry_after = retry_after


class _BatchTooLargeError(Exception):
    """The node takes fewer calls at once."""


#: What a request is repeated on: connection, timeout, HTTP 429 or 5xx, cut answers.
TRANSIENT: tuple[type[Exception], ...] = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    TransientAnswerError,
    orjson.JSONDecodeError,
)


class _PlainProvider(HTTPProvider):  # type: ignore[misc]  # web3 is untyped here
    """web3's provider with orjson, which is several times faster on blocks."""

    def __init__(self, address: str, **how: Any) -> None:
        super().__init__(address, **how)
        self.answered = threading.local()

    def encode_batch_rpc_request(self, requests: Sequence[Call]) -> bytes:  # web3's name
        """The batch on the wire."""
        calls = [
            {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
            for number, (method, params) in enumerate(requests)
        ]
        return orjson.dumps(calls)

    def decode_rpc_response(self, raw_response: bytes) -> Any:
        """The answer as plain JSON values; its size is noted for the thread that asked."""
        self.answered.size = len(raw_response)
        return orjson.loads(raw_response)


@dataclass
class _Experience:
    """What the node has shown of itself so far.

    Attributes:
        source: the world its newest answer declared.
        most_calls: calls of a batch that it takes, as far as it has not refused.
        bytes_per_call: size of its newest answer.
    """

    source: str
    most_calls: int = _MOST_CALLS
    bytes_per_call: float = 1.0


@dataclass(frozen=True)
class ChainNode:
    """A node at ``address``; ``work`` (asset and partitions) is named in every error.

    Threads may share one; its connections are pooled.
    """

    address: str
    work: str
    web3: Web3
    retry_delays: tuple[float, ...]
    experience: _Experience = field(repr=False)

    @property
    def source(self) -> str:
        """World the node's answers come from: what it declares, else what it was opened with."""
        return self.experience.source

    @property
    def room(self) -> int:
        """Calls that one batch should hold at most, going by the answers so far."""
        fitting = int(_MOST_BYTES / self.experience.bytes_per_call)
        return max(1, min(self.experience.most_calls, fitting))

    def ask(self, calls: Sequence[Call]) -> list[dict[str, Any]]:
        """Ask ``calls`` in batches; returns one JSON-RPC response object per call, in order.

        A batch that the node finds too large is halved, and later ones are made no larger.

        Raises:
            WorldUnreachableError: the node stayed down through every retry.
            UnusableAnswerError: it refuses, or answers something else than asked.
        """
        most = self.experience.most_calls
        if len(calls) > most:
            return self.ask(calls[:most]) + self.ask(calls[most:])
        try:
            return call_with_retries(
                lambda: self._post(calls),
                transient=TRANSIENT,
                delays=self.retry_delays,
                what=f"POST {self.address}: {self.work}",
            )
        except _BatchTooLargeError as refusal:
            if len(calls) == 1:
                raise self._unusable(f"one call is too large: {refusal}") from refusal
            self.experience.most_calls = min(most, (len(calls) + 1) // 2)
            return self.ask(calls)

    def _post(self, calls: Sequence[Call]) -> list[dict[str, Any]]:
        try:
            answers = self.web3.provider.make_batch_request(list(calls))
        except requests.HTTPError as error:
            raise self._refused(error) from error
        codes = _error_codes(answers)
        if codes & _LATER:
            raise TransientAnswerError(str(_errors(answers)[:1]))
        if _ANSWER_TOO_LARGE in codes or (
            isinstance(answers, dict) and _TOO_MANY_CALLS in codes and len(calls) > 1
        ):
            raise _BatchTooLargeError(str(_errors(answers)[:1]))
        if not isinstance(answers, list) or len(answers) != len(calls):
            said = _errors(answers) or answers
            raise self._unusable(f"a batch of {len(calls)} calls was answered with {said}")
        self.experience.bytes_per_call = self.web3.provider.answered.size / len(calls)
        return answers

    def _refused(self, error: requests.HTTPError) -> Exception:
        status = 0 if error.response is None else error.response.status_code
        if status == _TOO_LARGE:
            return _BatchTooLargeError("HTTP 413")
        if error.response is not None and (status == _TOO_MANY_REQUESTS or status >= _SERVER_ERROR):
            return TransientAnswerError(error, _retry_after(error.response))
        return self._unusable(f"refused with HTTP {status}")

    def _unusable(self, reason: str) -> UnusableAnswerError:
        return UnusableAnswerError(f"POST {self.address}: {self.work}: {reason}"[:500])


@contextmanager
def open_node(
    address: str,
    *,
    work: str,
    source: str,
    timeout: timedelta,
    retry_delays: tuple[float, ...],
) -> Iterator[ChainNode]:
    """Connections to the node at ``address``, closed at the end of the block.

    ``source`` is the world of a node that declares none itself, as no real node does.
    """
    experience = _Experience(source)

    def note_source(response: requests.Response, **_: Any) -> None:
        experience.source = response.headers.get(_SOURCE_HEADER, experience.source)

    with requests.Session() as session:
        session.hooks["response"].append(note_source)
        # Read once; requests would look through the environment again for every request.
        known = session.merge_environment_settings(address, {}, None, None, None)
        session.proxies, session.verify = known["proxies"], known["verify"]
        session.trust_env = False
        provider = _PlainProvider(
            address,
            request_kwargs={"timeout": timeout.total_seconds()},
            session=session,
            # Retries are ours, so that every attempt is logged and none is made twice over.
            exception_retry_configuration=None,
        )
        yield ChainNode(address, work, Web3(provider), retry_delays, experience)


def _errors(answers: Any) -> list[Any]:
    """The errors in what a batch was answered with, one object where it was refused as a whole."""
    found = answers if isinstance(answers, list) else [answers]
    return [each["error"] for each in found if isinstance(each, dict) and each.get("error")]


def _error_codes(answers: Any) -> set[Any]:
    return {error.get("code") for error in _errors(answers) if isinstance(error, dict)}


def _retry_after(response: requests.Response) -> float | None:
    """Seconds the node asks to wait; a date instead of seconds leaves it to our own delays."""
    asked = response.headers.get("Retry-After", "").strip()
    return float(asked) if asked.isdecimal() else None
