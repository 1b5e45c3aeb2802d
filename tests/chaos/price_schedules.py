"""One schedule of faults against the ingestion of prices."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

from cryptoml_assets.errors import UnknownSymbolError
from cryptoml_assets.resources.lake import Lake
from cryptoml_sandbox.settings import Faults
from tests.chaos import draw as kinds
from tests.chaos.content import (
    KEYS,
    Content,
    Difference,
    compare,
    content,
    empty_claims,
    repeated,
    slots,
)
from tests.chaos.draw import Outcome, Weather
from tests.chaos.price_worlds import GENESIS, TABLES, WINDOW, WORLDS, PriceWorld, job, staged
from tests.chaos.run import disturbed_run
from tests.chaos.watch import look_at_prices, walk_prices

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from tests.chaos.price_worlds import References
    from tests.chaos.rooms import PriceJob
    from tests.chaos.stage import Stage, StagedWorld

#: Least distance of the venue's clock from any close, so that no slow answer moves it across.
_GUARD = timedelta(seconds=15)
_MOST_SKEW = 90.0


@dataclass(frozen=True)
class PriceSchedule:
    """What is drawn from a seed.

    Attributes:
        world: name of the world.
        weather: what disturbs its runs.
        instants: where the world's clock stands in each disturbed run.
        skew: by how much our own clock is wrong.
        vanishing: a symbol and the requests after which it is gone from the venue, where one goes.
        generous: whether the venue gives bars past the end it is asked for.
        page_bars: bars in a page.
        chunk_bars: bars after which they are written.
    """

    world: str
    weather: Weather
    instants: tuple[datetime, ...]
    skew: timedelta
    vanishing: dict[str, int]
    generous: bool
    page_bars: int
    chunk_bars: int


def draw_schedule(kind: str, draw: random.Random) -> PriceSchedule:
    name = draw.choice(sorted(WORLDS))
    weather = kinds.draw_weather(kind, draw, (*kinds.WIRE, *kinds.BARS))
    skew = timedelta(0)
    if kind == kinds.SKEW or draw.random() < 0.1:
        skew = timedelta(
            seconds=draw.choice((-1, 1)) * draw.choice((_MOST_SKEW, draw.uniform(40, _MOST_SKEW)))
        )
    instants = [_instant(draw, WORLDS[name], skew) for _ in (*weather.shots, *range(weather.runs))]
    vanishing = {}
    if kind == kinds.DELISTED:
        vanishing = {draw.choice(("BTC/USDT", "ETH/USDT")): draw.randint(2, 14)}
    return PriceSchedule(
        name,
        weather,
        tuple(sorted(instants)),
        skew,
        vanishing,
        generous=kind == kinds.FORMING or draw.random() < 0.1,
        page_bars=draw.choice((40, 100, 300, 1000)),
        chunk_bars=draw.choice((100, 300, 150_000)),
    )


def _instant(draw: random.Random, world: PriceWorld, skew: timedelta) -> datetime:
    """Any instant of the world; where our clock is wrong, one with a close between the clocks."""
    at = GENESIS + (world.end - GENESIS) * draw.uniform(0.1, 1)
    close = GENESIS + (at - GENESIS) // world.bar * world.bar
    if skew:
        return close - skew * draw.uniform(_GUARD / abs(skew), 1)
    return min(max(at, close + _GUARD), close + world.bar - _GUARD, world.end)


def play(
    kind: str, draw: random.Random, stage: Stage, references: References, folder: Path
) -> Outcome:
    """Suffer one schedule, run once more when all is calm, and tell what differs."""
    drawn = draw_schedule(kind, draw)
    world, gone = WORLDS[drawn.world], next(iter(drawn.vanishing), None)
    right, lake = references.of(drawn.world), Lake(str(folder))
    faults = Faults(**drawn.weather.faults, delisted_after=drawn.vanishing)
    on = stage.show(staged(world, faults), generous=drawn.generous)
    settled_until = drawn.instants[0] - WINDOW
    strikes, found = _suffer(drawn, lake, stage, on, right)
    on.calm()
    on.move_to(world.end)
    complete = _run_in_the_calm(job(world, stage, lake.uri, world.end + drawn.skew), gone)
    strikes += kinds.struck(stage.strikes())
    found += walk_prices(lake, right["raw_prices"], settled_until, world.bar, gone)
    left = content(lake, TABLES)
    found += compare(_without(left, gone), _without(right, gone))
    if gone is not None:
        found += _what_is_left_of(gone, left, right, world.bar, explained=complete)
    return Outcome(strikes, found, f"{drawn}")


def _suffer(
    drawn: PriceSchedule, lake: Lake, stage: Stage, on: StagedWorld, right: Content
) -> tuple[Counter[str], Difference]:
    """The disturbed runs, those to be shot first, while the world's clock goes on."""
    world, weather = WORLDS[drawn.world], drawn.weather
    gone, settled_until = next(iter(drawn.vanishing), None), drawn.instants[0] - WINDOW
    strikes, found = Counter[str](), Difference()

    def look() -> Difference:
        return look_at_prices(lake, right["raw_prices"], settled_until, world.bar, gone)

    shots = (*weather.shots, *[None] * weather.runs)
    for at, shot in zip(drawn.instants, shots, strict=True):
        on.move_to(at)
        run = job(
            world,
            stage,
            lake.uri,
            at + drawn.skew,
            request_timeout=timedelta(seconds=weather.timeout),
            retry_delays=weather.delays,
        )
        run = replace(run, page_bars=drawn.page_bars, chunk_bars=drawn.chunk_bars)
        hit, seen = disturbed_run(run, lake.uri, stage, shot, look if weather.watched else None)
        strikes[kinds.KILL] += hit
        strikes[kinds.SKEW] += bool(drawn.skew)
        found += seen
    return strikes, found


def _run_in_the_calm(run: PriceJob, gone: str | None) -> bool:
    """Run until it succeeds; whether that took no symbol out of the settings."""
    try:
        run.run()
    except UnknownSymbolError as error:
        # What nobody ever saw listed looks like a typing error, and is told as one.
        if gone is None or gone not in str(error):
            raise
    else:
        return True
    lasting = tuple(symbol for symbol in run.configured.symbols if symbol != gone)
    replace(run, configured=run.configured.model_copy(update={"symbols": lasting})).run()
    return False


def _without(tables: Content, symbol: str | None) -> Content:
    kept = pl.col("symbol") != (symbol or "")
    return {table: rows.filter(kept) for table, rows in tables.items()}


def _what_is_left_of(
    symbol: str, left: Content, right: Content, bar: timedelta, *, explained: bool
) -> Difference:
    """A symbol that vanished: true bars, each once, and a ledger that agrees with them.

    A bar that was read young and could not be read again may be untrue, and is not called settled.
    Where a run over it succeeded, the ledger explains each slot that it has no bar for.
    """
    bars, ledger = (left[table].filter(symbol=symbol) for table in TABLES)
    truth, whole = (right[table].filter(symbol=symbol) for table in TABLES)
    twice = sum(repeated(table, left[table].filter(symbol=symbol)).height for table in TABLES)
    wrong = bars.join(truth, on=truth.columns, how="anti")
    final = slots(ledger.filter(pl.col("settled")), bar)
    untrue = wrong.join(final, on=KEYS["raw_prices"], how="semi").height
    untrue += wrong.join(truth, on=KEYS["raw_prices"], how="anti").height
    empty = empty_claims(ledger, bars, bar).height
    silent = int(whole["bars"].sum() - ledger["bars"].sum()) if explained else 0
    words = f"{symbol}: {untrue} untrue bars, {empty} empty claims, {silent} slots without a word"
    difference = Difference(max(silent, 0), twice, untrue + empty + max(-silent, 0))
    return replace(difference, seen=(words,)) if difference else difference
