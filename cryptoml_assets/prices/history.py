"""What a venue knows of its symbols' lives: first and last bars, and who can witness an outage."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cryptoml_assets.errors import UnknownSymbolError
from cryptoml_assets.prices.bars import Rows, Span
from cryptoml_assets.prices.exchange import Listing
from cryptoml_assets.prices.fetch import BarReader, BarRequest

#: Symbols that trade in every minute, on one venue or another.
_BUSIEST = (
    "BTC/USDT",
    "ETH/USDT",
    "BTC/USD",
    "ETH/USD",
    "BTC/USDC",
    "BTC/EUR",
    "ETH/BTC",
    "BTC/KRW",
    "SOL/USDT",
)


@dataclass
class History:
    """Facts of the venue that a run asks for once, when it first needs them.

    Attributes:
        reader: how the venue is read.
        request: the run.
        listings: how the venue lists the symbols of the run.
        venue_time: the venue's clock.
        held_since: looks up since when the lake holds bars of each symbol.
        busiest: symbols that may stand witness, the best first.
    """

    reader: BarReader
    request: BarRequest
    listings: Mapping[str, Listing]
    venue_time: datetime
    held_since: Callable[[], Mapping[str, datetime]]
    busiest: Sequence[str] = _BUSIEST
    _facts: dict[tuple[str, str], asyncio.Future[datetime | None]] = field(default_factory=dict)
    _held: asyncio.Future[Mapping[str, datetime]] | None = None

    def is_gone(self, symbol: str) -> bool:
        """Whether the venue does not know ``symbol``, or no longer does."""
        return self.listings.get(symbol) is Listing.GONE or symbol in self.reader.gone

    def known_first(self, symbol: str) -> datetime | None:
        """When the first bar of ``symbol`` opened, if that was asked before."""
        fact = self._facts.get(("first", symbol))
        return fact.result() if fact is not None and fact.done() else None

    async def first(self, symbol: str) -> datetime | None:
        """When the first bar of ``symbol`` opened; none where the venue does not tell."""
        exchange, request = self.reader.exchange, self.request
        return await self._once(
            "first",
            symbol,
            lambda: exchange.first_open(symbol, request.timeframe, self.venue_time, request.what),
        )

    async def held_before(self, symbol: str, instant: datetime) -> bool:
        """Whether the lake held a bar of ``symbol`` from before ``instant`` when first asked."""
        if self._held is None:
            self._held = asyncio.ensure_future(asyncio.to_thread(self.held_since))
        since = (await asyncio.shield(self._held)).get(symbol)
        return since is not None and since < instant

    async def end(self, symbol: str) -> datetime | None:
        """When the last bar closed of a ``symbol`` whose market is halted; none while it trades."""
        if self.listings.get(symbol) is not Listing.HALTED:
            return None
        exchange, request = self.reader.exchange, self.request
        opened = await self._once(
            "last", symbol, lambda: exchange.last_open(symbol, request.timeframe, request.what)
        )
        return None if opened is None else opened + request.bar

    async def witness(self) -> str | None:
        """The busiest symbol that the venue trades and the run does not ask for."""
        others = [symbol for symbol in self.busiest if symbol not in self.request.symbols]
        listings = await self.reader.exchange.listings(others, self.request.what, held=others)
        return next((name for name in others if listings[name] is Listing.TRADED), None)

    async def bars(self, symbol: str, spans: Sequence[Span]) -> Rows:
        """The bars of ``symbol`` in ``spans``."""
        return await self.reader.read(symbol, self.request.timeframe, self.request.bar, spans)

    async def _once(
        self, what: str, symbol: str, ask: Callable[[], Awaitable[datetime | None]]
    ) -> datetime | None:
        """The answer to ``ask``, asked for once; none of a symbol that is gone."""
        fact = self._facts.get((what, symbol))
        if fact is None:
            fact = self._facts[what, symbol] = asyncio.ensure_future(self._try(symbol, ask))
        # Whoever else waits for the fact is not to be cancelled with this reader.
        return await asyncio.shield(fact)

    async def close(self) -> None:
        """Give up what is still being asked."""
        asked: list[asyncio.Future[Any]] = [*self._facts.values(), *filter(None, [self._held])]
        for fact in asked:
            fact.cancel()
        await asyncio.gather(*asked, return_exceptions=True)

    async def _try(
        self, symbol: str, ask: Callable[[], Awaitable[datetime | None]]
    ) -> datetime | None:
        try:
            return await ask()
        except UnknownSymbolError as error:
            self.reader.gone[symbol] = error
            return None
