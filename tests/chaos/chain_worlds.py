"""Short chains, runs over them, and what undisturbed runs leave."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx

from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import Settings
from cryptoml_sandbox.settings import Faults
from tests.chaos.content import Content, content
from tests.chaos.price_worlds import GENESIS
from tests.chaos.rooms import ChainJob
from tests.chaos.stage import Stage, StagedWorld, make_world

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl

TABLES = ("onchain_blocks",)
#: Blocks that are not final, and so the deepest reorganisation short of finality.
YOUNG = 64
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class ChainWorld:
    """A chain that begins at ``GENESIS``, and the instant at which all schedules end."""

    pace: timedelta
    end: datetime

    @property
    def days(self) -> tuple[date, ...]:
        count = (self.end - GENESIS) // _DAY + 1
        return tuple((GENESIS + day * _DAY).date() for day in range(count))

    def block_at(self, at: datetime) -> int:
        """Number of the newest block at ``at``."""
        return (at - GENESIS) // self.pace


WORLDS = {
    "six_minutes": ChainWorld(timedelta(minutes=6), GENESIS + timedelta(days=2, hours=8)),
    "past_midnight": ChainWorld(timedelta(minutes=3), GENESIS + timedelta(days=1, minutes=150)),
    "pace_of_mainnet": ChainWorld(timedelta(seconds=12), GENESIS + timedelta(hours=1, minutes=20)),
}


def staged(world: ChainWorld, faults: Faults, chain_id: int = 1) -> StagedWorld:
    return make_world(
        now=world.end,
        genesis=GENESIS,
        block_seconds=int(world.pace.total_seconds()),
        transactions_per_block=2,
        safe_seconds=int(world.pace.total_seconds()) * YOUNG // 2,
        finality_seconds=int(world.pace.total_seconds()) * YOUNG,
        chain_id=chain_id,
        faults=faults,
    )


def job(world: ChainWorld, stage: Stage, lake: str, now: datetime, **changes: Any) -> ChainJob:
    """A patient run over all of ``world``'s days; ``changes`` are settings of ours."""
    settings = {
        "lake": lake,
        "now": now,
        "start": GENESIS.date(),
        "sandbox_url": stage.url,
        "request_timeout": timedelta(seconds=20),
        "retry_delays": (0.05, 0.2, 0.5),
    }
    return ChainJob(Settings(**(settings | changes)), world.days)


@dataclass
class References:
    """What undisturbed runs leave: one for each world, and one for each chain that was changed."""

    stage: Stage
    folder: Path
    made: dict[str, Content] = field(default_factory=dict)

    def of(self, name: str) -> Content:
        """Of the chain that no reorganisation changed."""
        if name not in self.made:
            self.stage.show(staged(WORLDS[name], Faults()))
            self.made[name] = self.of_present(name, self.folder / name)
            _check_against_the_node(self.stage, self.made[name]["onchain_blocks"])
        return self.made[name]

    def of_present(self, name: str, folder: Path) -> Content:
        """Of the chain that is on stage, at the end of its world."""
        world, lake = WORLDS[name], Lake(str(folder))
        job(world, self.stage, lake.uri, world.end).run()
        return content(lake, TABLES)


def _check_against_the_node(stage: Stage, blocks: pl.DataFrame) -> None:
    """The reference itself, against what the node says in as many words."""
    call = {"jsonrpc": "2.0", "id": 1, "method": "eth_getBlockByNumber"}
    head = int(_answers(stage, [{**call, "params": ["latest", False]}])[0]["number"], 16)
    calls = [{**call, "params": [hex(number), False]} for number in range(head + 1)]
    said = [
        (int(block["number"], 16), block["hash"], block["parentHash"], len(block["transactions"]))
        for block in _answers(stage, calls)
    ]
    stored = blocks.sort("number").select("number", "hash", "parent_hash", "transaction_count")
    assert stored.rows() == said, "the undisturbed run is not what the node says"


def _answers(stage: Stage, calls: list[dict[str, Any]]) -> list[Any]:
    return [answer["result"] for answer in httpx.post(stage.rpc_url, json=calls).json()]
