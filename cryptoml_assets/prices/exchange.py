"""One exchange through ccxt: bounded retries, and no answer taken for what it is not."""

from __future__ import annotations

import difflib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import ccxt.async_support as ccxt

from cryptoml_assets.errors import (
    UnknownSymbolError,
    UnusableAnswerError,
    WorldUnreachableError,
)
from cryptoml_assets.retry import await_with_retries
from cryptoml_serving.contract.settings import SettingsError

Result = TypeVar("Result")
_BUSY = (418, 429)
_SERVER_ERROR = 500


class VenueBusyError(ccxt.RateLimitExceeded):  # type: ignore[misc]  # ccxt is untyped
    """The venue asks for patience; ``retry_after`` says for how many seconds, where it does."""

    def __init__(self, message: str, retry_after: float | None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class _Strict(ccxt.Exchange):  # type: ignore[misc]  # ccxt is untyped
    """What ccxt lets through in silence, as errors of its transient family."""

    async def fetch(self, url: str, *args: Any, **kwargs: Any) -> Any:
        """One request; the decoded JSON.

        Raises:
            ccxt.NetworkError: the connection broke in the middle of the answer.
            ccxt.BadResponse: the answer is not JSON; ccxt would hand it on as a string, which
                reads as a page without bars.
        """
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
        return answer

    def handle_errors(
        self, code: int, reason: str, url: str, method: str, headers: Any, *rest: Any
    ) -> Any:
        """Turn an HTTP status into an error of the transient family where waiting can help.

        ccxt drops Retry-After, and takes a 5xx with a body it does not know for a permanent error.
        """
        message = f"{self.id} {method} {url} {code} {reason}"
        if code in _BUSY:
            raise VenueBusyError(message, _retry_after(headers))
        if code >= _SERVER_ERROR:
            raise ccxt.ExchangeNotAvailable(message)
        return super().handle_errors(code, reason, url, method, headers, *rest)


@dataclass(frozen=True)
class Exchange:
    """An open connection to a venue; every call is retried after each of ``delays`` seconds."""

    client: Any
    address: str
    delays: tuple[float, ...]

    @property
    def venue(self) -> str:
        """The exchange's ccxt id."""
        return str(self.client.id)

    async def check_symbols(self, symbols: Sequence[str], what: str) -> None:
        """Refuse symbols that the venue does not list.

        Raises:
            UnknownSymbolError: naming the venue, each such symbol and close matches.
            WorldUnreachableError: the venue stayed down; names ``what``.
        """
        markets = await self._ask(self.client.load_markets, f"markets for {what}")
        spot = [symbol for symbol, market in markets.items() if market.get("spot")]
        unknown = [symbol for symbol in symbols if symbol not in spot]
        if unknown:
            named = []
            for symbol in unknown:
                close = ", ".join(difflib.get_close_matches(symbol.upper(), spot, n=3))
                named.append(f"{symbol} (close: {close})" if close else symbol)
            message = f"{self.venue} at {self.address} does not list {'; '.join(named)}"
            raise UnknownSymbolError(message)

    async def check_timeframe(self, timeframe: str) -> None:
        """Refuse a length of bars that the venue does not serve.

        Raises:
            UnusableAnswerError: naming those it does serve.
        """
        served = self.client.timeframes or {}
        if timeframe not in served:
            message = f"{self.venue} serves no {timeframe} bars, but {', '.join(served)}"
            raise UnusableAnswerError(message)

    async def server_time(self, what: str) -> datetime:
        """An instant that the venue's own clock has certainly reached.

        Raises:
            UnusableAnswerError: the venue does not tell its time.
            WorldUnreachableError: the venue stayed down; names ``what``.
        """
        if not self.client.has.get("fetchTime"):
            message = f"{self.venue} does not tell its time: no bar is known to have closed"
            raise UnusableAnswerError(message)

        async def measure() -> datetime:
            began = time.perf_counter()
            milliseconds = await self.client.fetch_time()
            if milliseconds is None:
                message = f"{self.venue}: no time in the answer"
                raise ccxt.BadResponse(message)
            round_trip = timedelta(seconds=time.perf_counter() - began)
            return _instant(milliseconds) - round_trip

        return await self._ask(measure, f"server time for {what}")

    async def bars(
        self, symbol: str, timeframe: str, span: tuple[datetime, datetime], limit: int, what: str
    ) -> list[list[float | None]]:
        """The bars of ``symbol`` that open in the half-open ``span``, at most ``limit``.

        Rows are ``[open time in ms, open, high, low, close, volume]``.

        Raises:
            UnusableAnswerError: the venue refuses, or its answer cannot be read; names ``what``.
            WorldUnreachableError: the venue stayed down; names ``what``.
        """
        since, until = (round(instant.timestamp() * 1000) for instant in span)

        async def page() -> list[list[float | None]]:
            rows: list[list[float | None]] = await self.client.fetch_ohlcv(
                symbol, timeframe, since, limit, {"until": until - 1}
            )
            return [row for row in rows if row[0] is not None and row[0] < until]

        return await self._ask(page, f"{what} {symbol} {timeframe}")

    async def _ask(self, call: Callable[[], Awaitable[Result]], what: str) -> Result:
        asked = f"{self.venue} at {self.address}: {what}"
        try:
            return await await_with_retries(
                call, transient=(ccxt.OperationFailed,), delays=self.delays, what=asked
            )
        except WorldUnreachableError as error:
            if isinstance(error.__cause__, ccxt.BadResponse):
                raise UnusableAnswerError(str(error)) from error
            raise
        except ccxt.BaseError as error:
            message = f"{asked}: {error!r}"
            raise UnusableAnswerError(message) from error


@asynccontextmanager
async def open_exchange(
    venue: str,
    *,
    address: str | None,
    longest_wait: timedelta,
    delays: tuple[float, ...],
    own_pace: bool,
) -> AsyncIterator[Exchange]:
    """Connect to the ccxt exchange ``venue``, at ``address`` in place of its public hosts.

    ``longest_wait`` bounds one answer; ``own_pace`` keeps requests below the venue's rate limit.

    Raises:
        SettingsError: ccxt has no such exchange.
    """
    if venue not in ccxt.exchanges:
        close = ", ".join(difflib.get_close_matches(venue, ccxt.exchanges, n=3))
        message = f"CRYPTOML_VENUE={venue!r}: ccxt has no such exchange; close: {close or 'none'}"
        raise SettingsError(message)
    kind = type(venue, (_Strict, getattr(ccxt, venue)), {})
    client = kind(
        {
            "enableRateLimit": own_pace,
            "timeout": int(longest_wait.total_seconds() * 1000),
            "options": {
                "defaultType": "spot",
                "fetchMarkets": {"types": ["spot"]},
                "fetchCurrencies": False,
            },
        }
    )
    if address is not None:
        client.urls["api"] = _moved(client.urls["api"], address)
        if urlsplit(address).scheme == "http":
            client.timeout_on_exit = 0  # the quarter of a second is for TLS to close
    try:
        yield Exchange(client, address or f"https://{client.hostname or venue}", delays)
    finally:
        await client.close()


def _moved(urls: Any, address: str) -> Any:
    """``urls``, a string or a tree of them, with ``address`` in place of scheme and host."""
    if isinstance(urls, dict):
        return {name: _moved(url, address) for name, url in urls.items()}
    path = urlsplit(urls)._replace(scheme="", netloc="")
    return address.rstrip("/") + urlunsplit(path)


def _retry_after(headers: Any) -> float | None:
    for name, value in headers.items():
        if name.lower() == "retry-after" and value.strip().isdigit():
            return float(value)
    return None


def _instant(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
