"""Closed bars of any symbols and lengths, read from a venue page by page, many pages at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import TypeVar

import numpy as np
import polars as pl

from cryptoml_assets.errors import UnknownSymbolError
from cryptoml_assets.prices.bars import (
    SCHEMA,
    Rows,
    Span,
    answer_rows,
    bars_frame,
    held_slots,
    merge_bars,
    once_each,
    page_spans,
)
from cryptoml_assets.prices.exchange import Exchange
from cryptoml_assets.prices.ledger import mask_spans

Result = TypeVar("Result")
#: Requests on the wire or being read at once: enough that the venue's pace, not its distance, sets
#: the speed.
_REQUESTS_AT_ONCE = 16
#: Up to so many ranges that a page left out are asked for one by one, more of them in one span.
_RANGES_ASKED_ALONE = 4


@dataclass(frozen=True)
class BarRequest:
    """Bars of ``symbols`` that open in ``[start, end)``, both UTC midnights.

    Attributes:
        symbols: BASE/QUOTE each.
        timeframe: length of the bars, as ccxt spells it.
        bar: the same, as a length of time.
        start: first instant.
        end: last instant, exclusive.
        source: the world the venue belongs to.
        revision_window: age past its close up to which a bar is read again.
        refetch: read the days afresh, whatever the ledger says.
    """

    symbols: tuple[str, ...]
    timeframe: str
    bar: timedelta
    start: datetime
    end: datetime
    source: str
    revision_window: timedelta = timedelta(0)
    refetch: bool = False

    @property
    def what(self) -> str:
        """Names the partitions in logs and errors."""
        return f"raw_prices {self.start.date()} .. {self.days[-1]}"

    @property
    def days(self) -> tuple[date, ...]:
        """The UTC days of the request, oldest first."""
        first = self.start.date()
        return tuple(first + timedelta(days=i) for i in range((self.end - self.start).days))


@dataclass(frozen=True)
class Fetched:
    """``bars`` that had closed at ``venue_time``, in the schema and order of ``raw_prices``."""

    bars: pl.DataFrame
    venue_time: datetime


@dataclass(frozen=True)
class BarReader:
    """Reads bars of a venue; all that it is asked for at once shares one bound on requests.

    Attributes:
        exchange: the venue.
        what: names the work in logs and errors.
        gone: symbols of which the venue has said that it does not know them, with its words.
    """

    exchange: Exchange
    what: str
    gone: dict[str, UnknownSymbolError] = field(default_factory=dict)
    _gate: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_REQUESTS_AT_ONCE))

    async def read(
        self, symbol: str, timeframe: str, bar: timedelta, spans: Sequence[Span]
    ) -> Rows:
        """The bars that open in ``spans``, each once, oldest first.

        Of a symbol that turns out to be ``gone``, those read before.

        Raises:
            UnusableAnswerError: an answer that cannot be trusted.
            WorldUnreachableError: the venue stayed down through every retry.
        """
        size = self.exchange.page_bars
        pages = [page for span in spans for page in page_spans(*span, bar, page_bars=size)]
        parts = await all_or_none([self._page(symbol, timeframe, bar, page) for page in pages])
        return np.concatenate(parts) if parts else answer_rows([], symbol)

    async def _page(self, symbol: str, timeframe: str, bar: timedelta, page: Span) -> Rows:
        """All bars of ``page``: what an answer left out is asked for until nothing new comes."""
        rows = await self._ask(symbol, timeframe, bar, page)
        while absent := _absent(rows, page, bar):
            if len(absent) > _RANGES_ASKED_ALONE:
                absent = [(absent[0][0], absent[-1][1])]
            more = [await self._ask(symbol, timeframe, bar, span) for span in absent]
            known, rows = len(rows), once_each(np.concatenate([rows, *more]))
            if len(rows) == known:
                break
        return rows

    async def _ask(self, symbol: str, timeframe: str, bar: timedelta, span: Span) -> Rows:
        async with self._gate:
            if symbol in self.gone:
                return answer_rows([], symbol)
            slots = -((span[0] - span[1]) // bar)
            try:
                rows = await self.exchange.bars(symbol, timeframe, span, slots, self.what)
            except UnknownSymbolError as error:
                self.gone[symbol] = error
                return answer_rows([], symbol)
        return once_each(rows)


async def fetch_bars(exchange: Exchange, request: BarRequest) -> Fetched:
    """Every closed bar of ``request`` that the venue has; nothing is stored.

    Raises:
        UnknownSymbolError: a symbol the venue does not list.
        UnusableAnswerError: an answer that cannot be trusted.
        WorldUnreachableError: the venue stayed down through every retry.
    """
    exchange.check_timeframe(request.timeframe)
    await exchange.listings(request.symbols, request.what)
    clock = await exchange.clock(request.what)
    span = (request.start, closed_end(request, clock.at))
    reader = BarReader(exchange, request.what)

    async def frame(symbol: str) -> pl.DataFrame:
        rows = await reader.read(symbol, request.timeframe, request.bar, [span])
        return bars_frame(
            rows,
            venue=exchange.venue,
            symbol=symbol,
            timeframe=request.timeframe,
            bar=request.bar,
            source=request.source,
        )

    frames = await all_or_none([frame(symbol) for symbol in request.symbols])
    for error in reader.gone.values():
        raise error
    return Fetched(merge_bars(pl.DataFrame(schema=SCHEMA), *frames), clock.at)


def closed_end(request: BarRequest, venue_time: datetime) -> datetime:
    """End of the newest slot of ``request`` that has closed when the venue reads ``venue_time``."""
    closed = (min(request.end, venue_time) - request.start) // request.bar
    return request.start + max(closed, 0) * request.bar


async def all_or_none(calls: Sequence[Awaitable[Result]]) -> list[Result]:
    """Results of all ``calls``, made at once; the first error ends the others."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _absent(rows: Rows, page: Span, bar: timedelta) -> list[Span]:
    """The ranges of slots of ``page`` that ``rows`` hold no bar of."""
    mask = ~held_slots(rows, page[0], -((page[0] - page[1]) // bar), bar)
    return mask_spans(mask, page[0], bar) if mask.any() else []
