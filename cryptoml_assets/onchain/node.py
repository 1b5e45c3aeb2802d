"""An Ethereum node over JSON-RPC: web3's HTTP provider with the formatting left out.

web3 turns every field of every transaction into a Python object; summing up blocks needs a few of
them. So requests go through web3's provider and its answers stay plain JSON, decoded by orjson.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import orjson
import requests
from web3 import HTTPProvider, Web3

from cryptoml_assets.errors import UnusableAnswerError
from cryptoml_assets.retry import call_with_retries

Call = tuple[str, list[Any]]
_SOURCE_HEADER = "X-Cryptoml-Source"
_TOO_MANY_REQUESTS, _SERVER_ERROR = 429, 500


class TransientStatusError(requests.HTTPError):
    """HTTP 429 or 5xx: the node may answer the same request later."""


#: What a request is repeated on: connection, timeout, HTTP 429 or 5xx, cut answers.
TRANSIENT: tuple[type[Exception], ...] = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    TransientStatusError,
    orjson.JSONDecodeError,
)


class _PlainProvider(HTTPProvider):  # type: ignore[misc]  # web3 is untyped here
    """web3's provider with orjson, which decodes blocks several times faster."""

    @staticmethod
    def decode_rpc_response(raw_response: bytes) -> Any:
        """The answer as plain JSON values."""
        return orjson.loads(raw_response)


@dataclass(frozen=True)
class ChainNode:
    """A node at ``address``; ``work`` (asset and partitions) is named in every error.

    ``declared`` holds the source the node's newest answer declared; ``undeclared`` is the one of a
    node that declares none, as no real node does.
    """

    address: str
    work: str
    web3: Web3
    retry_delays: tuple[float, ...]
    undeclared: str
    declared: list[str]

    @property
    def source(self) -> str:
        """World the node's answers come from: what it declares, else ``undeclared``."""
        return self.declared[-1] if self.declared else self.undeclared

    def ask(self, calls: Sequence[Call]) -> list[dict[str, Any]]:
        """Send ``calls`` as one batch; returns one JSON-RPC response object per call, in order.

        Raises:
            WorldUnreachableError: the node stayed down through every retry.
            UnusableAnswerError: it refuses the batch, or answers something else than asked.
        """
        what = f"POST {self.address}: {self.work}"
        answers = call_with_retries(
            lambda: self._post(calls),
            transient=TRANSIENT,
            delays=self.retry_delays,
            what=what,
        )
        if not isinstance(answers, list) or len(answers) != len(calls):
            error = answers.get("error") if isinstance(answers, dict) else None
            message = f"{what}: a batch of {len(calls)} calls was answered with {error or answers}"
            raise UnusableAnswerError(message[:500])
        return answers

    def _post(self, calls: Sequence[Call]) -> Any:
        try:
            return self.web3.provider.make_batch_request(list(calls))
        except requests.HTTPError as error:
            status = 0 if error.response is None else error.response.status_code
            if status == _TOO_MANY_REQUESTS or status >= _SERVER_ERROR:
                raise TransientStatusError(error, response=error.response) from error
            message = f"POST {self.address}: {self.work}: refused with HTTP {status}"
            raise UnusableAnswerError(message) from error


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

    ``source`` is the world of a node that declares none itself.
    """
    declared: list[str] = []

    def note_source(response: requests.Response, **_: Any) -> None:
        if _SOURCE_HEADER in response.headers:
            declared[:] = [response.headers[_SOURCE_HEADER]]

    with requests.Session() as session:
        session.hooks["response"].append(note_source)
        provider = _PlainProvider(
            address,
            request_kwargs={"timeout": timeout.total_seconds()},
            session=session,
            # Retries are ours, so that every attempt is logged and none is made twice over.
            exception_retry_configuration=None,
        )
        yield ChainNode(address, work, Web3(provider), retry_delays, source, declared)
