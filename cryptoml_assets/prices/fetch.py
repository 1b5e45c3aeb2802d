"""All closed bars of a span of days, read from a venue page by page, many pages at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from cryptoml_assets.prices.bars import (
    SCHEMA,
    Span,
    bars_frame,
    closed_bars,
    merge_bars,
    missing_span,
    page_spans,
)
from cryptoml_assets.prices.exchange import Exchange

#: Bars asked for in one request, the most that Binance answers with.
PAGE_BARS = 1000
_REQUESTS_AT_ONCE = 8


@dataclass(frozen=True)
class BarRequest:
    """Bars of ``symbols`` that open in ``[start, end)``; ``start`` is a UTC midnight."""

    symbols: tuple[str, ...]
    timeframe: str
    bar: timedelta
    start: datetime
    end: datetime
    source: str

    @property
    def what(self) -> str:
        """Names the partitions in logs and errors."""
        last = (self.end - timedelta(microseconds=1)).date()
        return f"raw_prices {self.start.date()} .. {last}"


@dataclass(frozen=True)
class Fetched:
    """``bars`` that had closed at ``venue_time``, in the schema and order of ``raw_prices``."""

    bars: pl.DataFrame
    venue_time: datetime


async def fetch_bars(exchange: Exchange, request: BarRequest) -> Fetched:
    """Every closed bar of ``request`` that the venue has.

    Raises:
        UnknownSymbolError: a symbol the venue does not list.
        UnusableAnswerError: an answer that cannot be trusted.
        WorldUnreachableError: the venue stayed down through every retry.
    """
    await exchange.check_symbols(request.symbols, request.what)
    await exchange.check_timeframe(request.timeframe)
    venue_time = await exchange.server_time(request.what)
    reader = _Reader(exchange, request, venue_time, asyncio.Semaphore(_REQUESTS_AT_ONCE))
    end = min(request.end, venue_time)
    spans = page_spans(request.start, end, request.bar, page_bars=PAGE_BARS)
    tasks = [
        asyncio.ensure_future(reader.page(symbol, span))
        for symbol in request.symbols
        for span in spans
    ]
    pages = await _all_or_none(tasks)
    return Fetched(merge_bars(pl.DataFrame(schema=SCHEMA), *pages), venue_time)


@dataclass(frozen=True)
class _Reader:
    """Reads pages of one request; ``gate`` bounds how many are asked for at once."""

    exchange: Exchange
    request: BarRequest
    venue_time: datetime
    gate: asyncio.Semaphore

    async def page(self, symbol: str, span: Span) -> pl.DataFrame:
        """The closed bars of ``span``; what the first answer left out is asked for once more."""
        bars = await self._ask(symbol, span)
        newest_open = self.venue_time - self.request.bar
        end = min(span[1], newest_open + timedelta(microseconds=1))
        missing = missing_span(bars, span[0], end, self.request.bar)
        return bars if missing is None else merge_bars(bars, await self._ask(symbol, missing))

    async def _ask(self, symbol: str, span: Span) -> pl.DataFrame:
        request = self.request
        async with self.gate:
            answer = await self.exchange.bars(
                symbol, request.timeframe, span, PAGE_BARS, request.what
            )
        bars = bars_frame(
            answer,
            venue=self.exchange.venue,
            symbol=symbol,
            timeframe=request.timeframe,
            bar=request.bar,
            source=request.source,
        )
        return closed_bars(bars, self.venue_time)


async def _all_or_none(tasks: Sequence[asyncio.Future[pl.DataFrame]]) -> list[pl.DataFrame]:
    """Results of all ``tasks``; the first error ends the others."""
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
