"""Where bars come from: one interface, and the simulated market behind it."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Protocol

import numpy as np

from cryptoml_sandbox.bars import MINUTE_MS, WEEK_MS, Bars
from cryptoml_sandbox.path import MarketPath, PathChunk
from cryptoml_sandbox.regimes import Ways
from cryptoml_sandbox.streams import stream
from cryptoml_sandbox.trades import Trades, make_trades
from cryptoml_sandbox.volatility import CHUNK_MINUTES, mean_reverting

if TYPE_CHECKING:
    import numpy.typing as npt

    from cryptoml_sandbox.symbols import Symbol

    Floats = npt.NDArray[np.float64]
    Integers = npt.NDArray[np.int64]

_CHUNK_MS = CHUNK_MINUTES * MINUTE_MS
_KEPT_CHUNKS = 128  # about 90 MB
_VOLUME_MEMORY_MINUTES = 1440.0
_FIRST_MONDAY_MS = 4 * 1440 * MINUTE_MS


class MarketSource(Protocol):
    """Bars of one length for some pairs; the same whenever and in whatever order asked."""

    @property
    def source(self) -> str:
        """``simulated`` or ``replay``; every answer says it."""
        ...

    @property
    def bar_ms(self) -> int:
        """Length of its bars in milliseconds: the finest it knows."""
        ...

    @property
    def symbols(self) -> tuple[Symbol, ...]:
        """The pairs it has."""
        ...

    def extent(self, symbol: Symbol) -> tuple[int, int | None]:
        """Instants (ms) between which it has bars of ``symbol``; an end of none means for ever."""
        ...

    def bars(self, symbol: Symbol, start_ms: int, end_ms: int) -> Bars:
        """Bars that open in [start, end), whether or not the world's clock is there yet."""
        ...


def trades_of(source: MarketSource, symbol: Symbol, bars: Bars) -> Trades:
    """The trades inside ``bars`` of ``source``."""
    prices = (bars.open, bars.high, bars.low, bars.close)
    return make_trades(symbol, source.bar_ms, bars.open_time, prices, bars.volume)


class SimulatedMarket:
    """One-minute bars of every listed pair since genesis, computed when first asked for.

    Args:
        symbols: the pairs it lists.
        seed: seed of every draw.
        signal: strength of the planted predictability (see `cryptoml_sandbox.path`).
        genesis_ms: UTC midnight of the first bar, milliseconds since 1970.
        changes: when it changes its ways, in their order.
    """

    source = "simulated"
    bar_ms = MINUTE_MS

    def __init__(
        self,
        symbols: tuple[Symbol, ...],
        *,
        seed: int,
        signal: float,
        genesis_ms: int,
        changes: tuple[Ways, ...] = (),
    ) -> None:
        self.symbols = symbols
        self._seed = seed
        self._genesis = genesis_ms
        first_minute_of_week = (genesis_ms - _FIRST_MONDAY_MS) % WEEK_MS // MINUTE_MS
        self._path = MarketPath(seed, (Ways(0, signal), *changes), first_minute_of_week)
        self._kept: OrderedDict[tuple[str, int], Bars] = OrderedDict()

    def extent(self, symbol: Symbol) -> tuple[int, int | None]:
        """From genesis, for ever."""
        del symbol
        return self._genesis, None

    def bars(self, symbol: Symbol, start_ms: int, end_ms: int) -> Bars:
        """Bars that open in [start, end); none before genesis."""
        start_ms = max(start_ms, self._genesis)
        if end_ms <= start_ms:
            return Bars.concatenate([])
        first = (start_ms - self._genesis) // _CHUNK_MS
        last = (end_ms - 1 - self._genesis) // _CHUNK_MS
        parts = [
            self._chunk(symbol, index).between(start_ms, end_ms) for index in range(first, last + 1)
        ]
        return Bars.concatenate(parts)

    def _chunk(self, symbol: Symbol, index: int) -> Bars:
        key = (symbol.id, index)
        if key not in self._kept:
            self._kept[key] = self._make_chunk(symbol, index)
            if len(self._kept) > _KEPT_CHUNKS:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def _make_chunk(self, symbol: Symbol, index: int) -> Bars:
        path = self._path.chunk(symbol, index)
        random = stream(self._seed, symbol.id, "bars", index)
        open_time = self._genesis + index * _CHUNK_MS + np.arange(CHUNK_MINUTES) * MINUTE_MS
        prices = _minute_prices(symbol, path, random)
        volume = _minute_volume(symbol, path, random)
        return make_trades(symbol, MINUTE_MS, open_time, prices, volume).to_bars(open_time)


def _minute_prices(
    symbol: Symbol, path: PathChunk, random: np.random.Generator
) -> tuple[Integers, Integers, Integers, Integers]:
    """Open, high, low, close in ticks; extremes are those of a Brownian bridge."""
    before = np.concatenate([[path.start], path.log_price[:-1]])
    middle, span = before + path.log_price, (path.log_price - before) ** 2
    width = -2 * path.deviation**2
    above, below = (np.log1p(-random.random(CHUNK_MINUTES)) for _ in range(2))
    opening, close = (_ticks(symbol, x) for x in (before, path.log_price))
    high = _ticks(symbol, (middle + np.sqrt(span + width * above)) / 2)
    low = _ticks(symbol, (middle - np.sqrt(span + width * below)) / 2)
    highest, lowest = np.maximum(opening, close), np.minimum(opening, close)
    return opening, np.maximum(high, highest), np.minimum(low, lowest), close


def _ticks(symbol: Symbol, log_price: Floats) -> Integers:
    ticks = np.rint(np.exp(log_price) * 10.0**symbol.price_decimals)
    return np.maximum(ticks, 1).astype(np.int64)


def _minute_volume(symbol: Symbol, path: PathChunk, random: np.random.Generator) -> Integers:
    """Lots traded: more when volatility is high or the price jumps, and clustered by itself."""
    clustered = mean_reverting(
        random.standard_normal(CHUNK_MINUTES), random.standard_normal(), 1440.0
    )
    log_volume = (
        0.92 * path.log_volatility
        + 0.60 * np.minimum(np.abs(path.shock), 4.0)
        + 0.45 * clustered
        + 0.40 * random.standard_normal(CHUNK_MINUTES)
        - 0.79
    )
    lots = np.rint(symbol.volume * np.exp(log_volume) * 10.0**symbol.lot_decimals)
    return np.maximum(lots, 4).astype(np.int64)
