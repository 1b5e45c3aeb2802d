"""The pairs the simulated venue lists, and what makes each of them move as it does."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

_WRITTEN_DECIMALS = 8


def decimal_text(value: int, decimals: int) -> str:
    """A whole number of the last of ``decimals`` decimals, with eight of them or more."""
    whole, part = divmod(abs(value), 10**decimals)
    shown = f"{part:0{decimals}d}" if decimals else ""
    return f"{'-' * (value < 0)}{whole}.{shown:0<{_WRITTEN_DECIMALS}}"


@dataclass(frozen=True)
class Symbol:
    """One spot pair.

    Attributes:
        base: asset bought and sold.
        quote: asset it is priced in.
        price_decimals: decimals of a price; one tick is the last of them.
        lot_decimals: decimals of a quantity; one lot is the last of them.
        price: price at the world's genesis, in quote units.
        volatility: annual volatility of 5-minute log returns.
        loading: weight of the whole market in each standardised return, 0 to 1.
        own_deviation: deviation of the log-volatility that is the pair's own.
        jump: deviation of its rare jumps, in standard deviations of a minute's return.
        volume: mean base units traded in a minute.
    """

    base: str
    quote: str
    price_decimals: int
    lot_decimals: int
    price: float
    volatility: float
    loading: float
    own_deviation: float
    jump: float
    volume: float

    @property
    def name(self) -> str:
        """The ccxt spelling, BTC/USDT."""
        return f"{self.base}/{self.quote}"

    @property
    def id(self) -> str:
        """The venue's spelling, BTCUSDT."""
        return f"{self.base}{self.quote}"

    @property
    def usual_lots(self) -> float:
        """Lots traded in a usual minute."""
        return self.volume * 10.0**self.lot_decimals

    def price_text(self, ticks: int) -> str:
        """A price as the venue writes it."""
        return decimal_text(ticks, self.price_decimals)

    def size_text(self, lots: int) -> str:
        """A quantity as the venue writes it."""
        return decimal_text(lots, self.lot_decimals)

    def value_text(self, value: int) -> str:
        """Quote units, given in ticks times lots, as the venue writes them."""
        return decimal_text(value, self.price_decimals + self.lot_decimals)


#: Volatility, loading and jump of the first three are fitted to the 2024 recordings that the
#: platform is calibrated against; the others have plausible figures. Prices are of 2024-01-01.
KNOWN = (
    Symbol("BTC", "USDT", 2, 5, 42283.58, 0.56, 0.975, 0.22, 10.0, 25.0),
    Symbol("ETH", "USDT", 2, 4, 2281.87, 0.65, 0.955, 0.23, 16.0, 270.0),
    Symbol("SOL", "USDT", 2, 3, 101.72, 1.03, 0.88, 0.22, 18.0, 2400.0),
    Symbol("BNB", "USDT", 1, 3, 312.2, 0.58, 0.86, 0.24, 14.0, 420.0),
    Symbol("XRP", "USDT", 4, 0, 0.6155, 0.72, 0.82, 0.25, 16.0, 240_000.0),
)
_BY_NAME = {symbol.name: symbol for symbol in KNOWN}


def listed(names: tuple[str, ...]) -> tuple[Symbol, ...]:
    """The pairs called ``names``; none named means all known ones.

    A pair that is not known gets figures derived from its name, the same in every world.

    Raises:
        ValueError: for a name that is not of the form BASE/QUOTE.
    """
    return tuple(_BY_NAME.get(name) or _invented(name) for name in names) or KNOWN


def _invented(name: str) -> Symbol:
    base, _, quote = name.partition("/")
    if not (base.isalnum() and quote.isalnum()):
        message = f"{name!r} is not of the form BASE/QUOTE, e.g. BTC/USDT"
        raise ValueError(message)
    draw = hashlib.sha256(name.encode()).digest()
    share = [byte / 255 for byte in draw[:4]]
    price = 10 ** (4 * share[0] - 1)
    return Symbol(
        base.upper(),
        quote.upper(),
        price_decimals=max(1, 4 - round(math.log10(price))),
        lot_decimals=2,
        price=price,
        volatility=0.6 + 0.6 * share[1],
        loading=0.7 + 0.15 * share[2],
        own_deviation=0.27,
        jump=14.0,
        volume=20_000.0 / price * (1 + 4 * share[3]),
    )
