"""Bars as the JSON text that Binance answers klines with, written a whole page at a time.

Every row is laid out in one matrix of characters, wide enough for the widest number of each column.
Leading zeros are blanked with NUL, which no JSON holds, and struck out of the page at the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cryptoml_sandbox.bars import Bars, closings

if TYPE_CHECKING:
    import numpy.typing as npt

    from cryptoml_sandbox.symbols import Symbol

    Integers = npt.NDArray[np.int64]
    Characters = npt.NDArray[np.uint8]

_WRITTEN_DECIMALS = 8
_GROUP_DIGITS = 4
_GROUP = 10**_GROUP_DIGITS
#: The four digits of each number of a group, in one word.
_DIGITS = np.frombuffer("".join(f"{k:04d}" for k in range(_GROUP)).encode(), np.uint32)


def kline_rows(bars: Bars, symbol: Symbol, interval: str) -> bytes:
    """The JSON array of arrays that the venue answers with; numbers of quantity are strings."""
    if not len(bars):
        return b"[]"
    price, lot = symbol.price_decimals, symbol.lot_decimals
    pieces: list[Characters] = [
        _constant(b"["),
        *_integer(bars.open_time),
        *_decimal(bars.open, price),
        *_decimal(bars.high, price),
        *_decimal(bars.low, price),
        *_decimal(bars.close, price),
        *_decimal(bars.volume, lot),
        *_integer(closings(bars.open_time, interval) - 1),
        *_decimal(bars.quote, price + lot),
        *_integer(bars.trades),
        *_decimal(bars.taker_volume, lot),
        *_decimal(bars.taker_quote, price + lot),
        _constant(b'"0"],'),
    ]
    page = np.empty((len(bars), sum(piece.shape[1] for piece in pieces)), np.uint8)
    place = 0
    for piece in pieces:
        page[:, place : place + piece.shape[1]] = piece
        place += piece.shape[1]
    return b"[%b]" % page.tobytes().translate(None, b"\0")[:-1]


def _constant(text: bytes) -> Characters:
    return np.frombuffer(text, np.uint8)[None, :]


def _integer(values: Integers) -> tuple[Characters, ...]:
    return _digits(values, 1), _constant(b",")


def _decimal(values: Integers, decimals: int) -> tuple[Characters, ...]:
    """Whole numbers of the last of ``decimals`` decimals, as texts of eight decimals or more."""
    digits = _digits(values, decimals + 1)
    whole = digits.shape[1] - decimals
    padding = b"0" * max(0, _WRITTEN_DECIMALS - decimals)
    return (
        _constant(b'"'),
        digits[:, :whole],
        _constant(b"."),
        digits[:, whole:],
        _constant(padding + b'",'),
    )


def _digits(values: Integers, least: int) -> Characters:
    """Digits of numbers that are not negative, at least ``least`` each; NUL before the first."""
    width = max(len(str(values.max())), least)
    words = np.empty((len(values), -(-width // _GROUP_DIGITS)), np.uint32)
    rest = values
    for group in range(words.shape[1] - 1, 0, -1):
        higher = rest // _GROUP
        words[:, group] = _DIGITS[rest - higher * _GROUP]
        rest = higher
    words[:, 0] = _DIGITS[rest]
    digits: Characters = words.view(np.uint8)[:, -width:]
    powers = 10 ** np.arange(width - 1, least - 1, -1)
    digits[:, : len(powers)] *= values[:, None] >= powers
    return digits
