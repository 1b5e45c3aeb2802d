"""Small markets, runs over them, and what undisturbed runs leave."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import polars as pl

from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import Settings
from cryptoml_sandbox.settings import Faults
from tests.chaos.content import Content, content
from tests.chaos.rooms import PriceJob
from tests.chaos.stage import Stage, StagedWorld, make_world

if TYPE_CHECKING:
    from pathlib import Path

TABLES = ("raw_prices", "price_ledger")
GENESIS = datetime(2024, 3, 1, tzinfo=UTC)
#: Age past its close at which a bar is settled; the sandbox's bars settle in half of it.
WINDOW = timedelta(hours=1)
_DAY, _QUARTER, _FIVE = timedelta(days=1), timedelta(minutes=15), timedelta(minutes=5)


@dataclass(frozen=True)
class PriceWorld:
    """A market, the bars wanted of it, and the instant at which all schedules end."""

    timeframe: str
    bar: timedelta
    end: datetime
    symbols: tuple[str, ...] = ("BTC/USDT", "ETH/USDT")
    life: dict[str, Any] = field(default_factory=dict)

    @property
    def days(self) -> tuple[date, ...]:
        count = (self.end - GENESIS) // _DAY + 1
        return tuple((GENESIS + day * _DAY).date() for day in range(count))


def _on(day: int, hours: int, minutes: int = 0, seconds: int = 0) -> datetime:
    return GENESIS + timedelta(days=day - 1, hours=hours, minutes=minutes, seconds=seconds)


WORLDS = {
    "quarter_hours": PriceWorld("15m", _QUARTER, _on(3, 17, 0, 40)),
    "past_midnight": PriceWorld("5m", _FIVE, _on(3, 0, 30, 40)),
    "living_market": PriceWorld(
        "15m",
        _QUARTER,
        _on(3, 17, 4),
        ("BTC/USDT", "ETH/USDT", "BNB/USDT", "SOL/USDT"),
        {
            "listings": {"SOL/USDT": {"from": _on(2, 4, 30)}, "ETH/USDT": {"until": _on(3, 6)}},
            "outages": [(_on(1, 6), _on(1, 7, 30)), (_on(2, 23), _on(3, 1))],
            "quiet": {"BTC/USDT": [(_on(2, 10), _on(2, 10, 45))]},
        },
    ),
}


def staged(world: PriceWorld, faults: Faults) -> StagedWorld:
    settings = {"now": world.end, "genesis": GENESIS, "symbols": world.symbols, "faults": faults}
    return make_world(**settings, **world.life)


def job(world: PriceWorld, stage: Stage, lake: str, now: datetime, **changes: Any) -> PriceJob:
    """A patient run over all of ``world``'s days; ``changes`` are settings of ours."""
    settings = {
        "lake": lake,
        "now": now,
        "start": GENESIS.date(),
        "symbols": world.symbols,
        "timeframe": world.timeframe,
        "revision_window": WINDOW,
        "sandbox_url": stage.url,
        "request_timeout": timedelta(seconds=20),
        "retry_delays": (0.05, 0.2, 0.5),
    }
    return PriceJob(Settings(**(settings | changes)), world.days)


@dataclass
class References:
    """What undisturbed runs leave, one for each world, made when first asked for."""

    stage: Stage
    folder: Path
    made: dict[str, Content] = field(default_factory=dict)

    def of(self, name: str) -> Content:
        if name not in self.made:
            world, lake = WORLDS[name], Lake(str(self.folder / name))
            self.stage.show(staged(world, Faults()))
            job(world, self.stage, lake.uri, world.end).run()
            self.made[name] = content(lake, TABLES)
            _check_against_the_venue(self.stage, world, self.made[name]["raw_prices"])
        return self.made[name]


def _check_against_the_venue(stage: Stage, world: PriceWorld, bars: pl.DataFrame) -> None:
    """The reference itself, against what the venue says in as many words."""
    assert bars.height == sum(_check_symbol(stage, world, name, bars) for name in world.symbols)


def _check_symbol(stage: Stage, world: PriceWorld, symbol: str, bars: pl.DataFrame) -> int:
    rows: list[Any] = []
    for day in world.days:
        first = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)
        asked = {
            "symbol": symbol.replace("/", ""),
            "interval": world.timeframe,
            "startTime": first,
            "endTime": first + _DAY // timedelta(milliseconds=1) - 1,
            "limit": 1000,
        }
        rows += httpx.get(f"{stage.url}/api/v3/klines", params=asked).json()
    closed = [row for row in rows if row[6] < world.end.timestamp() * 1000]
    said = [(row[0], *(float(figure) for figure in row[1:6])) for row in closed]
    stored = bars.filter(symbol=symbol).sort("open_time")
    figures = (pl.col("open_time").dt.epoch("ms"), "open", "high", "low", "close", "volume")
    assert stored.select(figures).rows() == said, f"{symbol}: not what the venue says"
    return len(said)
