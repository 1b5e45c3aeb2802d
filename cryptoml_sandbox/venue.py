"""What the venue shows of a market at an instant: nothing later, and the bar still forming."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from cryptoml_sandbox.bars import (
    INTERVALS,
    MONTH,
    Bars,
    aggregate,
    bucket_start,
    shift_bucket,
)
from cryptoml_sandbox.market import trades_of
from cryptoml_sandbox.trades import TRADES_PER_BAR, Trades

if TYPE_CHECKING:
    from cryptoml_sandbox.market import MarketSource
    from cryptoml_sandbox.symbols import Symbol


def offers(source: MarketSource, interval: str) -> bool:
    """Whether bars of ``interval`` can be made exactly from those of ``source``."""
    length = INTERVALS.get(interval)
    return interval == MONTH or (length is not None and length % source.bar_ms == 0)


def visible_bars(
    source: MarketSource, symbol: Symbol, start_ms: int, end_ms: int, now_ms: int
) -> Bars:
    """The finest bars opening in [start, end) as seen at ``now_ms``; the last may be forming."""
    length = source.bar_ms
    closed = source.bars(symbol, start_ms, min(end_ms, now_ms - length + 1))
    forming_at = now_ms // length * length
    if not start_ms <= forming_at < end_ms:
        return closed
    whole = source.bars(symbol, forming_at, forming_at + 1)
    so_far = _until(trades_of(source, symbol, whole), now_ms)
    if so_far is None:
        return closed
    return Bars.concatenate([closed, so_far.to_bars(whole.open_time)])


def _until(trades: Trades, now_ms: int) -> Trades | None:
    """The trades of at most one bar that happened by ``now_ms``; none when none has."""
    count = int((trades.time <= now_ms).sum())
    if count == 0:
        return None
    return Trades(*(getattr(trades, field.name)[:, :count] for field in fields(Trades)))


@dataclass(frozen=True)
class Page:
    """What a request for a page asks: bounds are inclusive, in milliseconds."""

    start_ms: int | None
    end_ms: int | None
    limit: int


def klines(source: MarketSource, symbol: Symbol, interval: str, page: Page, now_ms: int) -> Bars:
    """One page of bars as the venue gives it at ``now_ms``.

    With a start: the first ``limit`` bars opening at or after it. Without: the newest ``limit``.
    Bars open no later than the page's end. The last bar may still be forming.
    """
    first_ms, last_ms = source.extent(symbol)
    newest = min(now_ms, now_ms if last_ms is None else last_ms - 1)
    if page.end_ms is not None:
        newest = min(newest, page.end_ms)
    oldest = bucket_start(first_ms, interval)
    if newest < oldest:
        return Bars.concatenate([])
    after = shift_bucket(bucket_start(newest, interval), interval, 1)
    if page.start_ms is not None:
        oldest = max(oldest, bucket_start(page.start_ms - 1, interval, following=True))
    parts: list[Bars] = []
    missing = page.limit
    # A recording may have gaps, so that a stretch of `limit` bars can hold fewer than that.
    while missing > 0 and oldest < after:
        if page.start_ms is not None:
            begin, end = oldest, min(after, shift_bucket(oldest, interval, missing))
            oldest = end
        else:
            begin, end = max(oldest, shift_bucket(after, interval, -missing)), after
            after = begin
        bars = visible_bars(source, symbol, begin, end, now_ms)
        parts.append(bars if INTERVALS[interval] == source.bar_ms else aggregate(bars, interval))
        missing -= len(parts[-1])
    return Bars.concatenate(parts if page.start_ms is not None else parts[::-1])


@dataclass(frozen=True)
class TradeList:
    """Aggregated trades in ascending order, one int64 array a column (see `Trades`)."""

    id: np.ndarray[tuple[int], np.dtype[np.int64]]
    time: np.ndarray[tuple[int], np.dtype[np.int64]]
    price: np.ndarray[tuple[int], np.dtype[np.int64]]
    quantity: np.ndarray[tuple[int], np.dtype[np.int64]]
    count: np.ndarray[tuple[int], np.dtype[np.int64]]
    first_id: np.ndarray[tuple[int], np.dtype[np.int64]]
    buyer_is_maker: np.ndarray[tuple[int], np.dtype[np.bool_]]

    def __len__(self) -> int:
        return len(self.id)


def trade_page(
    source: MarketSource, symbol: Symbol, page: Page, now_ms: int, from_id: int | None = None
) -> TradeList:
    """One page of aggregated trades as the venue gives it at ``now_ms``.

    With a start or an id: the first ``limit`` from there. Without: the newest ``limit``.
    """
    length = source.bar_ms
    first_ms, last_ms = source.extent(symbol)
    newest = min(now_ms, now_ms if page.end_ms is None else page.end_ms)
    after = newest // length * length + length
    after = after if last_ms is None else min(after, last_ms)
    start_ms = page.start_ms if from_id is None else from_id // TRADES_PER_BAR * length
    forward = start_ms is not None
    oldest = max(first_ms, (start_ms or 0) // length * length)
    lowest = (from_id or 0, start_ms or 0)
    stride = (page.limit // TRADES_PER_BAR + 2) * length
    parts: list[TradeList] = []
    while sum(map(len, parts)) < page.limit and oldest < after:
        if forward:
            begin, end = oldest, min(after, oldest + stride)
            oldest = end
        else:
            begin, end = max(oldest, after - stride), after
            after = begin
        found = _listed(source, symbol, source.bars(symbol, begin, end), lowest, newest)
        parts = [*parts, found] if forward else [found, *parts]
    rows = slice(page.limit) if forward else slice(-page.limit, None)
    names = [field.name for field in fields(TradeList)]
    if not parts:
        parts = [_listed(source, symbol, Bars.concatenate([]), lowest, newest)]
    return TradeList(*(np.concatenate([getattr(p, name) for p in parts])[rows] for name in names))


def _listed(
    source: MarketSource, symbol: Symbol, bars: Bars, lowest: tuple[int, int], newest_ms: int
) -> TradeList:
    """Trades of ``bars`` that happened, with ids, from (id, time) on and until an instant."""
    trades = trades_of(source, symbol, bars)
    slots = np.arange(TRADES_PER_BAR)
    identity = bars.open_time[:, None] // source.bar_ms * TRADES_PER_BAR + slots
    kept = (trades.quantity > 0) & (trades.time <= newest_ms)
    kept &= (identity >= lowest[0]) & (trades.time >= lowest[1])
    return TradeList(
        identity[kept], *(getattr(trades, field.name)[kept] for field in fields(Trades))
    )
