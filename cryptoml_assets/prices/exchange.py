"""One exchange through ccxt: bounded retries, and no answer taken for what it is not."""

from __future__ import annotations

import difflib
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, TypeVar
from urllib.parse import urlsplit

import ccxt.async_support as ccxt

from cryptoml_assets.errors import (
    UnknownSymbolError,
    UnusableAnswerError,
    WorldUnreachableError,
)
from cryptoml_assets.prices.bars import Rows, Span, answer_rows
from cryptoml_assets.prices.client import StrictClient, move_urls
from cryptoml_assets.retry import await_with_retries
from cryptoml_serving.contract.settings import SettingsError

Result = TypeVar("Result")
#: Bars asked for in one request of a venue of which ccxt does not know the most it answers with.
_USUAL_PAGE = 500
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Listing(Enum):
    """How a venue lists a symbol."""

    TRADED = "traded"
    HALTED = "halted"
    GONE = "gone"


@dataclass(frozen=True)
class VenueClock:
    """The clock of a venue.

    Attributes:
        at: an instant it has certainly reached.
        skew: how far it is ahead of the local clock, to within the round trip.
    """

    at: datetime
    skew: timedelta


@dataclass(frozen=True)
class Exchange:
    """An open connection to a venue; every call is retried after each of ``delays`` seconds."""

    client: Any
    address: str
    delays: tuple[float, ...]
    local_clock: Callable[[], datetime]

    @property
    def venue(self) -> str:
        """The exchange's ccxt id."""
        return str(self.client.id)

    @property
    def requests(self) -> int:
        """Requests made so far, each retry included."""
        return int(self.client.requests)

    @property
    def page_bars(self) -> int:
        """The most bars that the venue answers one request with, as far as ccxt knows it."""
        known: Any = self.client.features or {}
        for part in ("spot", "fetchOHLCV", "limit"):
            known = known.get(part) or {}
        return int(known) if known else _USUAL_PAGE

    async def listings(
        self, symbols: Sequence[str], what: str, held: Collection[str] = ()
    ) -> dict[str, Listing]:
        """How the venue lists each of ``symbols``; those of ``held`` may be gone from it.

        Raises:
            UnknownSymbolError: naming the venue, each symbol it does not list and close matches.
            WorldUnreachableError: the venue stayed down; names ``what``.
        """
        markets = await self._ask(self.client.load_markets, f"markets for {what}")
        spot = {symbol: market for symbol, market in markets.items() if market.get("spot")}
        unknown = [symbol for symbol in symbols if symbol not in spot and symbol not in held]
        if unknown:
            named = []
            for symbol in unknown:
                close = ", ".join(difflib.get_close_matches(symbol.upper(), spot, n=3))
                named.append(f"{symbol} (close: {close})" if close else symbol)
            message = f"{self.venue} at {self.address} does not list {'; '.join(named)}"
            raise UnknownSymbolError(message)
        return {symbol: _listing(spot.get(symbol)) for symbol in symbols}

    def check_timeframe(self, timeframe: str) -> None:
        """Refuse a venue that has no bars, or none of that length.

        Raises:
            UnusableAnswerError: naming the lengths it does serve.
        """
        if self.client.has.get("fetchOHLCV") is not True:
            message = f"{self.venue} serves no bars of its own: choose another CRYPTOML_VENUE"
            raise UnusableAnswerError(message)
        served = self.client.timeframes or {}
        if timeframe not in served:
            message = f"{self.venue} serves no {timeframe} bars, but {', '.join(served)}"
            raise UnusableAnswerError(message)

    async def clock(self, what: str) -> VenueClock:
        """The venue's own clock; by the ``Date`` of its answers where it does not tell its time.

        Raises:
            UnusableAnswerError: the venue does not tell its time.
            WorldUnreachableError: the venue stayed down; names ``what``.
        """
        if not self.client.has.get("fetchTime"):
            await self._ask(self.client.load_markets, f"markets for {what}")
            told = self.client.told_time()
            if told is None:
                message = f"{self.venue} does not tell its time: no bar is known to have closed"
                raise UnusableAnswerError(message)
            return VenueClock(told, told - self.local_clock())

        async def measure() -> VenueClock:
            asked, began = self.local_clock(), time.perf_counter()
            milliseconds = await self.client.fetch_time()
            if milliseconds is None:
                message = f"{self.venue}: no time in the answer"
                raise ccxt.BadResponse(message)
            round_trip = timedelta(seconds=time.perf_counter() - began)
            told = _EPOCH + timedelta(milliseconds=milliseconds)
            return VenueClock(told - round_trip, told - asked - round_trip / 2)

        return await self._ask(measure, f"server time for {what}")

    async def bars(self, symbol: str, timeframe: str, span: Span, limit: int, what: str) -> Rows:
        """The bars of ``symbol`` that open in the half-open ``span``, at most ``limit`` asked for.

        Rows are ``[open time in ms, open, high, low, close, volume]``, in any order.

        Raises:
            UnknownSymbolError: the venue does not know the symbol, whatever it once did.
            UnusableAnswerError: the venue refuses, or its answer cannot be read; names ``what``.
            WorldUnreachableError: the venue stayed down; names ``what``.
        """
        since, until = (_milliseconds(instant) for instant in span)

        async def page() -> Any:
            return await self.client.fetch_ohlcv(
                symbol, timeframe, since, limit, {"until": until - 1}
            )

        rows = answer_rows(
            await self._ask(page, f"{what} {symbol} {timeframe}"),
            f"{self.venue} {symbol} {timeframe}",
        )
        return rows[(rows[:, 0] >= since) & (rows[:, 0] < until)]

    async def first_open(
        self, symbol: str, timeframe: str, until: datetime, what: str
    ) -> datetime | None:
        """When the first bar opened that the venue has of ``symbol``; none where it tells none.

        Raises:
            UnknownSymbolError: as for ``bars``; the others, too.
        """
        rows = await self.bars(symbol, timeframe, (_EPOCH, until), 1, f"first bar for {what}")
        return _EPOCH + timedelta(milliseconds=float(rows[:, 0].min())) if len(rows) else None

    async def last_open(self, symbol: str, timeframe: str, what: str) -> datetime | None:
        """When the newest bar opened that the venue has of ``symbol``; none where it tells none.

        Raises:
            UnknownSymbolError: as for ``bars``; the others, too.
        """

        async def page() -> Any:
            return await self.client.fetch_ohlcv(symbol, timeframe)

        asked = f"last bar for {what} {symbol} {timeframe}"
        rows = answer_rows(await self._ask(page, asked), f"{self.venue} {symbol} {timeframe}")
        return _EPOCH + timedelta(milliseconds=float(rows[:, 0].max())) if len(rows) else None

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
        except ccxt.BadSymbol as error:
            raise UnknownSymbolError(f"{asked}: {error!r}") from error
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
    rate_limit: float = 0.0,
    local_clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> AsyncIterator[Exchange]:
    """Connect to the ccxt exchange ``venue``, at ``address`` in place of its public hosts.

    Args:
        venue: ccxt id.
        address: base URL; none for the venue's public one.
        longest_wait: bounds one answer.
        delays: seconds to wait before each new try.
        own_pace: keep requests below the venue's rate limit.
        rate_limit: milliseconds between two requests of weight 1; 0: what ccxt knows of the venue.
        local_clock: what the venue's clock is compared with.

    Raises:
        SettingsError: ccxt has no such exchange.
    """
    if venue not in ccxt.exchanges:
        close = ", ".join(difflib.get_close_matches(venue, ccxt.exchanges, n=3))
        message = f"CRYPTOML_VENUE={venue!r}: ccxt has no such exchange; close: {close or 'none'}"
        raise SettingsError(message)
    kind = type(venue, (StrictClient, getattr(ccxt, venue)), {})
    client = kind(
        {
            "enableRateLimit": own_pace,
            "timeout": int(longest_wait.total_seconds() * 1000),
            "options": {
                "defaultType": "spot",
                "fetchMarkets": {"types": ["spot"]},
                "fetchCurrencies": False,
            },
            **({"rateLimit": rate_limit} if rate_limit else {}),
        }
    )
    if address is not None:
        client.urls["api"] = move_urls(client.urls["api"], address)
        if urlsplit(address).scheme == "http":
            client.timeout_on_exit = 0  # the quarter of a second is for TLS to close
            # Trusts nobody, should an answer lead to TLS; loading whom to trust takes 60 ms.
            client.ssl_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        yield Exchange(
            client, address or f"https://{client.hostname or venue}", delays, local_clock
        )
    finally:
        await client.close()


def _listing(market: Any) -> Listing:
    if market is None:
        return Listing.GONE
    return Listing.HALTED if market.get("active") is False else Listing.TRADED


def _milliseconds(instant: datetime) -> int:
    return (instant - _EPOCH) // timedelta(milliseconds=1)
