"""A market's life: symbols that come and go, venues that stop, pairs that nobody trades."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cryptoml_sandbox.clock import to_ms

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cryptoml_sandbox.bars import Bars
    from cryptoml_sandbox.faults import FaultSchedule
    from cryptoml_sandbox.market import MarketSource
    from cryptoml_sandbox.settings import Listing, SandboxSettings, Span
    from cryptoml_sandbox.symbols import Symbol


class LivingMarket:
    """Another market without the bars that open outside a listing, in an outage or a silence.

    Bars are left out, never changed: a longer bar is made of what is left of it.

    Args:
        market: the market it is made of.
        listings: by symbol's name, when it is listed.
        outages: when no symbol trades.
        quiet: by symbol's name, when it alone does not trade.
    """

    def __init__(
        self,
        market: MarketSource,
        listings: Mapping[str, Listing],
        outages: Iterable[Span],
        quiet: Mapping[str, Iterable[Span]],
    ) -> None:
        self._market = market
        self._listings = listings
        everywhere = _milliseconds(outages)
        self._silences = {
            symbol.id: everywhere + _milliseconds(quiet.get(symbol.name, ()))
            for symbol in market.symbols
        }
        self.source = market.source
        self.bar_ms = market.bar_ms
        self.symbols = market.symbols

    def extent(self, symbol: Symbol) -> tuple[int, int | None]:
        """What the market has of the symbol's listing."""
        first, last = self._market.extent(symbol)
        listing = self._listings.get(symbol.name)
        if listing is not None and listing.since is not None:
            first = max(first, to_ms(listing.since))
        if listing is not None and listing.until is not None:
            until = to_ms(listing.until)
            last = until if last is None else min(last, until)
        return first, last

    def bars(self, symbol: Symbol, start_ms: int, end_ms: int) -> Bars:
        """Bars that open in [start, end) while the symbol is listed and trades."""
        first, last = self.extent(symbol)
        end_ms = end_ms if last is None else min(end_ms, last)
        bars = self._market.bars(symbol, max(start_ms, first), end_ms)
        for begin, end in self._silences[symbol.id]:
            if begin < end_ms and start_ms < end:
                silent = (bars.open_time >= begin) & (bars.open_time < end)
                bars = bars.take(np.flatnonzero(~silent))
        return bars


def _milliseconds(spans: Iterable[Span]) -> tuple[tuple[int, int], ...]:
    return tuple((to_ms(begin), to_ms(end)) for begin, end in spans)


def with_life(market: MarketSource, settings: SandboxSettings) -> MarketSource:
    """``market`` as it lives in this world; itself where nothing of it is set.

    Raises:
        ValueError: for a symbol the market does not have.
    """
    known = [symbol.name for symbol in market.symbols]
    for variable, named in (
        ("LISTINGS", settings.listings),
        ("QUIET", settings.quiet),
        ("FAULTS.delisted_after", settings.faults.delisted_after),
    ):
        if unknown := [name for name in named if name not in known]:
            message = (
                f"CRYPTOML_SANDBOX_{variable}: no symbol {', '.join(unknown)} in this world; "
                f"it has {', '.join(known)}"
            )
            raise ValueError(message)
    if not (settings.listings or settings.outages or settings.quiet):
        return market
    return LivingMarket(market, settings.listings, settings.outages, settings.quiet)


class Listings:
    """Which symbols the venue shows at an instant, and whether they trade.

    Args:
        symbols: every symbol of the market.
        listings: by symbol's name, when it is listed.
        schedule: after how many requests a symbol vanishes, and how many there were.
    """

    def __init__(
        self,
        symbols: tuple[Symbol, ...],
        listings: Mapping[str, Listing],
        schedule: FaultSchedule,
    ) -> None:
        self._symbols = {symbol.id: symbol for symbol in symbols}
        self._listings = listings
        self._schedule = schedule

    def shown(self, now_ms: int) -> dict[str, Symbol]:
        """By the venue's spelling, what is listed or once was, but for what has vanished."""
        return {
            name: symbol for name, symbol in self._symbols.items() if self._is_shown(symbol, now_ms)
        }

    def get(self, name: str, now_ms: int) -> Symbol | None:
        """The shown symbol of that spelling; none where there is no such one."""
        symbol = self._symbols.get(name)
        return symbol if symbol is not None and self._is_shown(symbol, now_ms) else None

    def status(self, symbol: Symbol, now_ms: int) -> str:
        """``TRADING``, or ``BREAK`` once its listing has ended."""
        listing = self._listings.get(symbol.name)
        ended = listing is not None and listing.until is not None and to_ms(listing.until) <= now_ms
        return "BREAK" if ended else "TRADING"

    def _is_shown(self, symbol: Symbol, now_ms: int) -> bool:
        if self._schedule.is_delisted(symbol.name):
            return False
        listing = self._listings.get(symbol.name)
        return listing is None or listing.since is None or to_ms(listing.since) <= now_ms
