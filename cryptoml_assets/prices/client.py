"""One ccxt client: what ccxt lets through in silence as errors, and one pause for all requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import ccxt.async_support as ccxt

from cryptoml_assets.prices.layout import Layout, learn_layout, read_page
from cryptoml_assets.retry import LONGEST_WAIT

_BUSY = (418, 429)
_SERVER_ERROR = 500


class VenueBusyError(ccxt.RateLimitExceeded):  # type: ignore[misc]  # ccxt is untyped
    """The venue asks for patience; ``retry_after`` says for how many seconds, where it does."""

    def __init__(self, message: str, retry_after: float | None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StrictClient(ccxt.Exchange):  # type: ignore[misc]  # ccxt is untyped
    """What every client of a venue has on top of ccxt; mixed into the venue's own class.

    Attributes:
        requests: requests made so far.
    """

    requests = 0
    _not_before = 0.0
    _layouts: Mapping[int, Layout | None] = MappingProxyType({})
    _last_answer: tuple[Any, timedelta] = ({}, timedelta(0))

    async def fetch(self, url: str, *args: Any, **kwargs: Any) -> Any:
        """One request, not before the venue's patience allows any; the decoded JSON.

        Raises:
            ccxt.NetworkError: the connection broke in the middle of the answer.
            ccxt.BadResponse: the answer is not JSON; ccxt would hand it on as a string, which
                reads as a page without bars.
        """
        # Another answer can have made the wait longer meanwhile.
        while (wait := self._not_before - time.monotonic()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(wait)
        self.requests += 1
        began = time.monotonic()
        try:
            answer = await super().fetch(url, *args, **kwargs)
        except ccxt.ExchangeError as error:
            if isinstance(error.__cause__, aiohttp.ClientError):
                message = f"{error}: {error.__cause__}"
                raise ccxt.NetworkError(message) from error
            raise
        if not isinstance(answer, dict | list):
            message = f"{self.id} {url}: the answer is not JSON: {str(answer)[:80]!r}"
            raise ccxt.BadResponse(message)
        round_trip = timedelta(seconds=time.monotonic() - began)
        self._last_answer = (self.last_response_headers or {}, round_trip)
        return answer

    def told_time(self) -> datetime | None:
        """An instant the venue's clock had certainly reached by the ``Date`` of its last answer.

        The header is cut to the second, and a second and the round trip are taken off for caches.
        """
        headers, round_trip = self._last_answer
        told = _instant(_header(headers, "date") or "")
        return None if told is None else told - timedelta(seconds=1) - round_trip

    def handle_errors(
        self, code: int, reason: str, url: str, method: str, headers: Any, *rest: Any
    ) -> Any:
        """Turn an HTTP status into an error of the transient family where waiting can help.

        ccxt drops Retry-After, and takes a 5xx with a body it does not know for a permanent error.
        """
        message = f"{self.id} {method} {url} {code} {reason}"
        if code in _BUSY:
            patience = _retry_after(headers)
            self._hold(patience)
            raise VenueBusyError(message, patience)
        if code >= _SERVER_ERROR:
            raise ccxt.ExchangeNotAvailable(message)
        return super().handle_errors(code, reason, url, method, headers, *rest)

    def parse_ohlcvs(self, ohlcvs: Any, market: Any = None, *page: Any, **more: Any) -> Any:
        """A page of bars as ccxt reads it, neither sorted nor cut: readers do so with arrays."""
        theirs = super().parse_ohlcvs
        plain = theirs.__func__ is ccxt.Exchange.parse_ohlcvs
        if not (plain and ohlcvs and isinstance(ohlcvs, list) and isinstance(ohlcvs[0], list)):
            return theirs(ohlcvs, market, *page, **more)

        def parse(row: Any) -> Any:
            return self.parse_ohlcv(row, market)

        width = len(ohlcvs[0])
        if width not in self._layouts:
            self._layouts = {**self._layouts, width: learn_layout(parse, width)}
        rows = read_page(parse, ohlcvs, self._layouts[width])
        return theirs(ohlcvs, market, *page, **more) if rows is None else rows

    def _hold(self, patience: float | None) -> None:
        """Let no request start for ``patience`` seconds."""
        if patience is not None:
            until = time.monotonic() + min(patience, LONGEST_WAIT)
            self._not_before = max(self._not_before, until)


def move_urls(urls: Any, address: str) -> Any:
    """``urls``, a string or a tree of them, with ``address`` in place of scheme and host."""
    if isinstance(urls, dict):
        return {name: move_urls(url, address) for name, url in urls.items()}
    path = urlsplit(urls)._replace(scheme="", netloc="")
    return address.rstrip("/") + urlunsplit(path)


def _header(headers: Any, wanted: str) -> str | None:
    for name, value in headers.items():
        if name.lower() == wanted:
            return str(value).strip()
    return None


def _retry_after(headers: Any) -> float | None:
    """Seconds to wait, told as a number or as an instant."""
    asked = _header(headers, "retry-after")
    if asked is None or asked.isdigit():
        return None if asked is None else float(asked)
    instant = _instant(asked)
    now = datetime.now(UTC)
    return None if instant is None else max((instant - now).total_seconds(), 0.0)


def _instant(text: str) -> datetime | None:
    """An instant as HTTP headers spell it."""
    try:
        instant = parsedate_to_datetime(text)
    except ValueError:
        return None
    return instant.astimezone(UTC) if instant.tzinfo else instant.replace(tzinfo=UTC)
