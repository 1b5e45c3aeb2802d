"""The trades inside a bar: four of them, which make the bar's prices and volume exactly."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cryptoml_sandbox.bars import Bars

if TYPE_CHECKING:
    import numpy.typing as npt

    from cryptoml_sandbox.symbols import Symbol

    Integers = npt.NDArray[np.int64]

TRADES_PER_BAR = 4
_RAW_IDS_PER_BAR = 1 << 20  # more raw trades than any bar can hold: ids rise, with gaps
_TRADES_AT_MEAN_VOLUME = 600


@dataclass(frozen=True)
class Trades:
    """Aggregated trades, shape (bars, 4), in order of time along the last axis.

    Attributes:
        time: instant, milliseconds since 1970.
        price: in ticks.
        quantity: in lots.
        count: raw trades in the aggregate.
        first_id: id of the first raw trade.
        buyer_is_maker: whether the seller took liquidity.
    """

    time: Integers
    price: Integers
    quantity: Integers
    count: Integers
    first_id: Integers
    buyer_is_maker: npt.NDArray[np.bool_]

    def to_bars(self, open_time: Integers) -> Bars:
        """The bars that these trades make; ``open_time`` is when each opens."""
        value = self.price * self.quantity
        taken = ~self.buyer_is_maker
        return Bars(
            open_time,
            self.price[:, 0],
            self.price.max(axis=1),
            self.price.min(axis=1),
            self.price[:, -1],
            self.quantity.sum(axis=1),
            value.sum(axis=1),
            self.count.sum(axis=1),
            (self.quantity * taken).sum(axis=1),
            (value * taken).sum(axis=1),
        )


def make_trades(
    symbol: Symbol,
    bar_ms: int,
    open_time: Integers,
    prices: tuple[Integers, Integers, Integers, Integers],
    volume: Integers,
) -> Trades:
    """Trades inside bars of length ``bar_ms``, from nothing but the bars themselves.

    A rising bar goes open, low, high, close, a falling one open, high, low, close. Sizes and times
    vary with a hash of symbol and bar. Whoever moves the price takes liquidity.

    Args:
        symbol: the pair, for its lot size and typical volume.
        bar_ms: length of a bar in milliseconds.
        open_time: when each bar opens, milliseconds since 1970.
        prices: open, high, low, close in ticks.
        volume: lots traded in each bar.
    """
    opening, high, low, close = prices
    rising = close >= opening
    price = np.stack(
        [opening, np.where(rising, low, high), np.where(rising, high, low), close], axis=1
    )
    index = open_time // bar_ms
    sizes = _fields(index, zlib.crc32(symbol.id.encode()))
    quantity = volume[:, None] * sizes // sizes.sum(axis=1, keepdims=True)
    quantity[:, -1] += volume - quantity.sum(axis=1)
    jitter = _fields(index, zlib.crc32(symbol.base.encode()) + 1) - 1
    slots = np.arange(TRADES_PER_BAR) * 2**16 + jitter
    time = open_time[:, None] + slots * bar_ms // (TRADES_PER_BAR * 2**16)
    typical = symbol.usual_lots * (bar_ms / 60_000)
    count = 1 + quantity // max(1, int(typical / _TRADES_AT_MEAN_VOLUME))
    count = np.minimum(count, _RAW_IDS_PER_BAR // TRADES_PER_BAR)
    before = np.cumsum(count, axis=1) - count
    first_id = index[:, None] * _RAW_IDS_PER_BAR + before
    step = np.diff(price, axis=1, prepend=price[:, :1])
    toss = sizes % 2 == 0
    return Trades(time, price, quantity, count, first_id, np.where(step == 0, toss, step < 0))


def _fields(index: Integers, salt: int) -> Integers:
    """Four hashed integers from 1 to 65 536 for each bar, shape (bars, 4) (splitmix64)."""
    z = index.astype(np.uint64) + np.uint64(salt * 0x9E3779B97F4A7C15 % 2**64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    parts = [(z >> np.uint64(16 * k)) & np.uint64(0xFFFF) for k in range(TRADES_PER_BAR)]
    return np.stack(parts, axis=1).astype(np.int64) + 1
