"""Where daily network metrics come from: one interface, and the simulated networks behind it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

import numpy as np

from cryptoml_sandbox.bars import DAY_MS
from cryptoml_sandbox.clock import to_ms
from cryptoml_sandbox.streams import stream

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptoml_sandbox.market import MarketSource

#: Coin Metrics' names of what the platform reads.
METRICS = (
    "AdrActCnt",
    "TxCnt",
    "HashRate",
    "NVTAdj",
    "CapMVRVCur",
    "PriceUSD",
    "SplyCur",
    "CapMrktCurUSD",
    "CapRealUSD",
    "TxTfrValAdjUSD",
)

_ONE_DAY = timedelta(days=1)


class MetricsSource(Protocol):
    """Daily metrics of some assets, named and written as Coin Metrics does."""

    @property
    def source(self) -> str:
        """``simulated`` or ``replay``; every answer says it."""
        ...

    @property
    def metrics(self) -> Mapping[str, tuple[str, ...]]:
        """The metrics it has for each asset."""
        ...

    def extent(self, asset: str) -> tuple[date, date | None]:
        """First and last day it has for ``asset``; a last day of none means for ever."""
        ...

    def row(self, asset: str, day: date) -> Mapping[str, str] | None:
        """Values of one day, absent where there is none; no row at all outside its days."""
        ...


@dataclass(frozen=True)
class Network:
    """Typical figures of one network at genesis; none where the metric makes no sense for it.

    Attributes:
        supply: units in circulation.
        issuance: units issued in a year, as a share of ``supply``.
        addresses: addresses active in a day.
        transactions: transactions in a day.
        value_ratio: network value to adjusted transfer value of a day (NVT).
        hash_rate: terahashes a second; only where work is proven.
        market_to_realised: market value to realised value (MVRV).
    """

    supply: float
    issuance: float
    addresses: float | None = None
    transactions: float | None = None
    value_ratio: float | None = None
    hash_rate: float | None = None
    market_to_realised: float | None = None

    @property
    def metrics(self) -> tuple[str, ...]:
        """Coin Metrics' names of what it has: its figures, what they are made of, and the price."""
        needs = {
            "AdrActCnt": self.addresses,
            "TxCnt": self.transactions,
            "HashRate": self.hash_rate,
            "NVTAdj": self.value_ratio,
            "CapMVRVCur": self.market_to_realised,
            "CapRealUSD": self.market_to_realised,
            "TxTfrValAdjUSD": self.value_ratio,
        }
        return tuple(name for name in METRICS if needs.get(name, self.supply) is not None)


NETWORKS: dict[str, Network] = {
    "btc": Network(19.6e6, 0.017, 830_000, 430_000, 62.0, 5.1e8, 1.95),
    "eth": Network(120.2e6, 0.003, 540_000, 1_120_000, 41.0),
    "sol": Network(430e6, 0.055, 870_000, 24_000_000),
    "bnb": Network(149e6, 0.0, 1_050_000, 3_900_000, 88.0),
    "xrp": Network(54.3e9, 0.04, 62_000, 1_250_000, 120.0),
}

_MEMORY_DAYS = 10.0
_REALISED_DAYS = 400.0
_DAILY_HASH_GROWTH = 0.0008
_YEAR_DAYS = 365.25
_DIGITS = 12
_COUNTED = frozenset({"AdrActCnt", "TxCnt"})
_DERIVED = frozenset({"CapMrktCurUSD", "NVTAdj", "CapMVRVCur"})
_WEEKEND = 5


class SimulatedMetrics:
    """Daily metrics of known networks since genesis, in step with the market's prices and volume.

    Args:
        markets: where a day's price and volume are looked up, in this order; the last has them all.
        seed: seed of every draw.
        genesis: first day.
    """

    source = "simulated"

    def __init__(self, markets: tuple[MarketSource, ...], *, seed: int, genesis: date) -> None:
        self._markets = markets
        self._seed = seed
        self._genesis = genesis
        self._rows: dict[str, list[dict[str, str]]] = {asset: [] for asset in NETWORKS}
        self._activity = dict.fromkeys(NETWORKS, 0.0)
        self._realised: dict[str, float] = {}

    @property
    def metrics(self) -> Mapping[str, tuple[str, ...]]:
        """The metrics of each known network."""
        return {asset: network.metrics for asset, network in NETWORKS.items()}

    def extent(self, asset: str) -> tuple[date, date | None]:
        """From genesis, for ever."""
        del asset
        return self._genesis, None

    def row(self, asset: str, day: date) -> Mapping[str, str] | None:
        """Values of one day; none before genesis."""
        number = (day - self._genesis).days
        if number < 0:
            return None
        rows = self._rows[asset]
        while len(rows) <= number:
            rows.append(self._next(asset, self._genesis + len(rows) * _ONE_DAY))
        return rows[number]

    def _next(self, asset: str, day: date) -> dict[str, str]:
        """The day after the last one made: levels go on from there."""
        network = NETWORKS[asset]
        price, turnover = self._market_day(asset, day)
        noise = stream(self._seed, "metrics", asset, day.isoformat()).standard_normal(6)
        keep = np.exp(-1 / _MEMORY_DAYS)
        self._activity[asset] = keep * self._activity[asset] + 0.05 * noise[0]
        weekend = -0.07 if day.weekday() >= _WEEKEND else 0.0
        busy = self._activity[asset] + weekend + 0.10 * turnover
        before = self._realised.get(asset, price / (network.market_to_realised or 1.0))
        self._realised[asset] = before + (price - before) / _REALISED_DAYS
        age = (day - self._genesis).days
        figures: dict[str, float | None] = {
            "AdrActCnt": _times(network.addresses, busy + 0.04 * noise[1]),
            "TxCnt": _times(network.transactions, 0.7 * busy + 0.05 * noise[2]),
            "HashRate": _times(network.hash_rate, _DAILY_HASH_GROWTH * age + 0.08 * noise[3]),
        }
        value_ratio = _times(network.value_ratio, -0.5 * turnover - busy + 0.2 * noise[4])
        supply = network.supply * (1 + network.issuance * age / _YEAR_DAYS)
        realised = None if network.market_to_realised is None else self._realised[asset]
        figures |= _valuation(price, supply, value_ratio, realised)
        return {
            name: _text(name, figure)
            for name in METRICS
            if (figure := figures.get(name)) is not None
        }

    def _market_day(self, asset: str, day: date) -> tuple[float, float]:
        """Closing price of ``day``, and the log of its volume over the usual one."""
        start_ms = to_ms(datetime(day.year, day.month, day.day, tzinfo=UTC))
        for market in self._markets:
            for symbol in market.symbols:
                if symbol.base.lower() != asset:
                    continue
                bars = market.bars(symbol, start_ms, start_ms + DAY_MS)
                if len(bars):
                    price = float(bars.close[-1]) / 10**symbol.price_decimals
                    volume = float(bars.volume.sum()) / 10**symbol.lot_decimals
                    return price, float(np.log1p(volume) - np.log1p(symbol.volume * 1440))
        message = f"no market of this world has {asset} on {day}"
        raise LookupError(message)


def _times(level: float | None, log_change: float) -> float | None:
    return None if level is None else level * float(np.exp(log_change))


def _valuation(
    price: float, supply: float, value_ratio: float | None, realised: float | None
) -> dict[str, float | None]:
    """Price, supply, and what is made of them; the ratios are exactly those of what is served.

    Args:
        price: of one unit.
        supply: units.
        value_ratio: about the market cap over the transfer value, where it is known.
        realised: mean price at which a unit last moved, where it is known.
    """
    price, supply = _rounded(price), _rounded(supply)
    cap = price * supply
    moved = None if value_ratio is None else _rounded(cap / value_ratio)
    realised_cap = None if realised is None else _rounded(realised * supply)
    return {
        "PriceUSD": price,
        "SplyCur": supply,
        "CapMrktCurUSD": cap,
        "TxTfrValAdjUSD": moved,
        "NVTAdj": None if moved is None else cap / moved,
        "CapRealUSD": realised_cap,
        "CapMVRVCur": None if realised_cap is None else cap / realised_cap,
    }


def _rounded(figure: float) -> float:
    """To the twelve digits in which figures are served."""
    return float(f"{figure:.{_DIGITS}g}")


def _text(name: str, figure: float) -> str:
    """A figure as the API writes it: counts whole, what is a product or a ratio in full."""
    if name in _COUNTED:
        return str(round(figure))
    return repr(figure) if name in _DERIVED else f"{figure:.{_DIGITS}g}"
