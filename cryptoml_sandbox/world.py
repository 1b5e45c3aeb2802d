"""Which sources a world answers from, its clock, and what it says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from cryptoml_sandbox.clock import Clock, from_ms, make_clock, to_ms
from cryptoml_sandbox.life import with_life
from cryptoml_sandbox.market import MarketSource, SimulatedMarket
from cryptoml_sandbox.metrics import MetricsSource, SimulatedMetrics
from cryptoml_sandbox.regimes import changes
from cryptoml_sandbox.replay import RecordedMarket, RecordedMetrics
from cryptoml_sandbox.symbols import KNOWN, listed

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from cryptoml_sandbox.settings import SandboxSettings

#: How far past the close of its last bar a recording's clock stands.
_AFTER_THE_END = timedelta(minutes=1)


@dataclass(frozen=True)
class World:
    """Everything the endpoints answer from.

    Attributes:
        source: ``simulated`` or ``replay``.
        market: where bars come from.
        metrics: where network metrics come from, in order of preference.
        clock: what time it is.
        simulated_parts: what is simulated, in words for people.
    """

    source: str
    market: MarketSource
    metrics: tuple[MetricsSource, ...]
    clock: Clock
    simulated_parts: tuple[str, ...]

    def describe(self, settings: SandboxSettings) -> dict[str, Any]:
        """The world in one JSON object, for ``GET /world``."""
        return {
            "source": self.source,
            "now": self.clock.now().isoformat(),
            "symbols": [symbol.name for symbol in self.market.symbols],
            "simulated_parts": list(self.simulated_parts),
            "seed": settings.seed,
            "signal": settings.signal,
            "regimes": [regime.model_dump(mode="json") for regime in settings.regimes],
            "genesis": settings.genesis.isoformat(),
            "block_seconds": settings.block_seconds,
            "transactions_per_block": settings.transactions_per_block,
            "chain_id": settings.chain_id,
        }


def make_world(settings: SandboxSettings) -> World:
    """The world that ``settings`` describe.

    Raises:
        ReplayError: when the folder to replay cannot be used.
        ValueError: for a listed symbol that is not of the form BASE/QUOTE, or a symbol that is
            said to live some way and that this world does not have.
    """
    if settings.world == "replay" and settings.replay is not None:
        return _replay(settings, settings.replay)
    market = _simulated_market(settings)
    every = market if set(KNOWN) <= set(market.symbols) else _simulated_market(settings, all_=True)
    clock = make_clock(
        now=settings.now, start=settings.start, speed=settings.speed, file=settings.clock_file
    )
    metrics = (_simulated_metrics(settings, (every,)),)
    return World(
        "simulated",
        with_life(market, settings),
        metrics,
        clock,
        ("prices", "network metrics", "blocks"),
    )


def _replay(settings: SandboxSettings, folder: Path) -> World:
    market, recorded = RecordedMarket(folder), RecordedMetrics(folder)
    markets = (market, _simulated_market(settings, all_=True))
    metrics = (recorded, _simulated_metrics(settings, markets))
    runs = settings.start is not None or settings.speed != 1.0
    # A clock that stood at the very close of the last bar would leave it in doubt for ever: whoever
    # allows for the time its question took would never count that bar as closed.
    end = from_ms(market.end_ms) + _AFTER_THE_END
    clock = make_clock(
        now=None if runs else settings.now or end,
        start=settings.start or end,
        speed=settings.speed,
        file=settings.clock_file,
    )
    parts = ("blocks", "order book and trades", *_unrecorded(recorded, from_ms(market.start_ms)))
    return World("replay", with_life(market, settings), metrics, clock, parts)


def _simulated_market(settings: SandboxSettings, *, all_: bool = False) -> SimulatedMarket:
    return SimulatedMarket(
        KNOWN if all_ else listed(settings.symbols),
        seed=settings.seed,
        signal=settings.signal,
        genesis_ms=to_ms(settings.genesis),
        changes=changes(settings),
    )


def _simulated_metrics(
    settings: SandboxSettings, markets: tuple[MarketSource, ...]
) -> SimulatedMetrics:
    return SimulatedMetrics(markets, seed=settings.seed, genesis=settings.genesis.date())


def _unrecorded(recorded: RecordedMetrics, start: datetime) -> tuple[str, ...]:
    """What of the network metrics the recordings leave to simulation."""
    parts = []
    for asset in sorted(recorded.metrics):
        last = recorded.extent(asset)[1]
        if last is None or last < start.date():
            parts.append(f"network metrics of {asset} (recorded only until {last})")
    parts.append("network metrics of assets without a recording")
    return tuple(parts)
