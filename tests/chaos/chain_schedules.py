"""One schedule of faults against the ingestion of blocks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import pytest

from cryptoml_assets.errors import WrongChainError
from cryptoml_assets.resources.lake import Lake
from cryptoml_sandbox.settings import Faults, Reorganisation
from tests.chaos import draw as kinds
from tests.chaos.chain_worlds import TABLES, WORLDS, YOUNG, ChainWorld, job, staged
from tests.chaos.content import Content, Difference, compare, content
from tests.chaos.draw import Outcome, Weather
from tests.chaos.price_worlds import GENESIS
from tests.chaos.run import disturbed_run
from tests.chaos.watch import look_at_blocks, walk_blocks

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from tests.chaos.chain_worlds import References
    from tests.chaos.rooms import ChainJob
    from tests.chaos.stage import Stage, StagedWorld

_REORGS = (kinds.REORG, kinds.MIDNIGHT, kinds.DURING)
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class ChainSchedule:
    """What is drawn from a seed.

    Attributes:
        kind: what must strike.
        world: name of the world.
        weather: what disturbs its runs.
        instants: where the world's clock stands: in a first calm run, and in each disturbed one.
        calm_first: whether there is that first calm run.
        reorg: the reorganisation; before the disturbed runs, or at that request of the first.
        again: depth of one more before the last disturbed run; 0: none.
        behind: blocks by which the node is behind in the disturbed runs.
        other_chain: whether the disturbed runs meet a node of another chain.
        batch: calls in a request.
        chunk: blocks after which they are written.
        window: days that are worked on at once.
    """

    kind: str
    world: str
    weather: Weather
    instants: tuple[datetime, ...]
    calm_first: bool
    reorg: Reorganisation | None
    again: int
    behind: int
    other_chain: bool
    batch: int
    chunk: int
    window: int


def draw_schedule(kind: str, draw: random.Random) -> ChainSchedule:
    names = ["six_minutes", "past_midnight"]
    names += ["pace_of_mainnet"] * (kind != kinds.MIDNIGHT)
    name = draw.choice(names)
    weather = kinds.draw_weather(kind, draw, kinds.WIRE)
    if kind == kinds.OTHER_CHAIN:
        weather = replace(weather, faults={}, shots=(), runs=1)
    world, runs = WORLDS[name], len(weather.shots) + weather.runs
    first = _first_instant(kind, draw, world)
    later = sorted(first + (world.end - first) * _early(draw) for _ in range(runs))
    reorg = _draw_reorg(kind, draw, world, first, later[0]) if kind in _REORGS else None
    calm_first = kind in {kinds.REORG, kinds.MIDNIGHT} or draw.random() < 0.5
    batch = draw.choice((10, 37, 100))
    if reorg and kind == kinds.DURING and draw.random() < 0.7:
        known = world.block_at(first) + 1 if calm_first else 0
        unknown = world.block_at(later[0]) + 1 - known
        batch, reorg = 10, _among_the_last(draw, reorg, unknown, batch=10)
    return ChainSchedule(
        kind,
        name,
        weather,
        (first, *later),
        calm_first=calm_first,
        reorg=reorg,
        again=draw.choice((0, draw.randint(1, YOUNG))) if reorg and runs > 1 else 0,
        behind=draw.randint(1, 2 * YOUNG) if kind == kinds.BEHIND else 0,
        other_chain=kind == kinds.OTHER_CHAIN,
        batch=batch,
        chunk=draw.choice((50, 150, 20_000)),
        window=draw.choice((1, 31)),
    )


def _first_instant(kind: str, draw: random.Random, world: ChainWorld) -> datetime:
    """Deep enough in the chain for any reorganisation; for one across midnight, shortly after."""
    if kind == kinds.MIDNIGHT:
        midnight = GENESIS + _DAY * draw.randint(1, (world.end - GENESIS) // _DAY)
        return midnight + world.pace * draw.uniform(1, 40)
    earliest = GENESIS + world.pace * (2 * YOUNG + 10)
    return earliest + (world.end - earliest) * draw.uniform(0, 1)


def _early(draw: random.Random) -> float:
    """A share of the time left; often none at all has passed."""
    return draw.choice((0.0, draw.uniform(0, 0.1), draw.uniform(0, 1)))


def _draw_reorg(
    kind: str, draw: random.Random, world: ChainWorld, first: datetime, at: datetime
) -> Reorganisation:
    depth = draw.choice((1, 2, YOUNG - 1, YOUNG, draw.randint(1, YOUNG), draw.randint(1, YOUNG)))
    if kind == kinds.MIDNIGHT:
        head = world.block_at(at)
        since_midnight = head - world.block_at(GENESIS + (first - GENESIS) // _DAY * _DAY)
        depth = draw.randint(min(since_midnight + 2, YOUNG), YOUNG)
    shorter = draw.randint(0, depth - 1) if draw.random() < 0.3 else 0
    return Reorganisation(requests=draw.randint(1, 30), depth=depth, shorter=shorter)


def _among_the_last(
    draw: random.Random, reorg: Reorganisation, unknown: int, *, batch: int
) -> Reorganisation:
    """``reorg`` while the blocks it replaces are read, so that some are read before and some after.

    Two calls read a block; a few requests more find out where the chain ends.
    """
    last = 4 + 2 * unknown // batch
    requests = max(1, last - draw.randint(0, 2 * min(YOUNG, unknown) // batch))
    return reorg.model_copy(
        update={"requests": requests, "depth": draw.randint(YOUNG // 2, YOUNG), "shorter": 0}
    )


def play(
    kind: str, draw: random.Random, stage: Stage, references: References, folder: Path
) -> Outcome:
    """Suffer one schedule, run once more when all is calm, and tell what differs."""
    drawn = draw_schedule(kind, draw)
    world, lake = WORLDS[drawn.world], Lake(str(folder / "lake"))
    right = None if drawn.reorg else references.of(drawn.world)
    on = stage.show(staged(world, Faults()))
    if drawn.calm_first:
        on.move_to(drawn.instants[0])
        job(world, stage, lake.uri, drawn.instants[0]).run()
    before = content(lake, TABLES)
    strikes, found = _suffer(drawn, lake, stage, on)
    on.calm()
    on.move_to(world.end)
    job(world, stage, lake.uri, world.end).run()
    strikes += kinds.struck(stage.strikes())
    right = right or references.of_present(drawn.world, folder / "reference")
    if drawn.kind in {kinds.REORG, kinds.MIDNIGHT}:
        strikes += _replaced(before, right)
    found += walk_blocks(lake, shrinks=drawn.reorg is not None)
    found += compare(content(lake, TABLES), right)
    return Outcome(strikes, found, f"{drawn}")


def _suffer(
    drawn: ChainSchedule, lake: Lake, stage: Stage, on: StagedWorld
) -> tuple[Counter[str], Difference]:
    """The disturbed runs, those to be shot first, while the world's clock goes on."""
    world, weather = WORLDS[drawn.world], drawn.weather
    strikes, found = Counter[str](), Difference()
    look = partial(look_at_blocks, lake) if weather.watched else None
    shots = (*weather.shots, *[None] * weather.runs)
    for turn, (at, shot) in enumerate(zip(drawn.instants[1:], shots, strict=True)):
        on.move_to(at)
        if turn == 0:
            _begin(drawn, stage, on)
        elif drawn.again and turn == len(shots) - 1:
            stage.reorganise(drawn.again, shorter=0)
        run = job(
            world,
            stage,
            lake.uri,
            at,
            request_timeout=timedelta(seconds=weather.timeout),
            retry_delays=weather.delays,
        )
        run = replace(run, batch=drawn.batch, chunk=drawn.chunk, window=drawn.window)
        if drawn.other_chain:
            found += _refused(run, drawn, lake, stage, on)
            strikes[kinds.OTHER_CHAIN] += 1
        hit, seen = disturbed_run(run, lake.uri, stage, shot, look)
        strikes[kinds.KILL] += hit
        found += seen
    return strikes, found


def _begin(drawn: ChainSchedule, stage: Stage, on: StagedWorld) -> None:
    """Let the faults begin; the world's clock stands where the first disturbed run is made."""
    reorg = drawn.reorg
    if reorg is not None and drawn.kind != kinds.DURING:
        stage.reorganise(reorg.depth, shorter=reorg.shorter)
        reorg = None
    if reorg is not None:
        requests = on.faults.requests + reorg.requests
        reorg = reorg.model_copy(update={"requests": requests})
    on.suffer(Faults(**drawn.weather.faults, node_behind=drawn.behind, reorg_after=reorg))


def _refused(
    run: ChainJob, drawn: ChainSchedule, lake: Lake, stage: Stage, on: StagedWorld
) -> Difference:
    """A node of another chain: refused as that, and nothing stored."""
    before = content(lake, TABLES)
    other = stage.show(staged(WORLDS[drawn.world], Faults(), chain_id=5))
    other.move_to(on.app.state.clock.now())
    with pytest.raises(WrongChainError):
        run.run()
    stage.show(on)
    after = content(lake, TABLES)
    if after.keys() == before.keys() and not compare(after, before):
        return Difference()
    return Difference(torn=1, seen=("onchain_blocks: a node of another chain changed them",))


def _replaced(before: Content, right: Content) -> Counter[str]:
    """Whether blocks that were stored ceased to be of the chain, and those of two days at that."""
    if "onchain_blocks" not in before:
        return Counter()
    gone = before["onchain_blocks"].join(right["onchain_blocks"], on=["number", "hash"], how="anti")
    days = gone["date"].n_unique()
    return Counter({kinds.REORG: int(days > 0), kinds.MIDNIGHT: int(days > 1)})
