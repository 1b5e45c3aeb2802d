"""From a seed to what goes wrong: kinds of fault, their rates, and what every schedule has."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.chaos.crash import Shot

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.chaos.content import Difference

STORM, BAN, BROKEN = "429 storm", "418 ban", "5xx"
TIMEOUT, TRUNCATED, CUT = "timeout mid-page", "truncated JSON", "connection cut"
DUPLICATE, LATE, REVISED = "duplicate bars", "late bars", "revised bars"
FORMING, DESCENDING, SKEW = "forming bars", "descending pages", "clock skew"
DELISTED = "delisted mid-backfill"
BEHIND, OTHER_CHAIN = "node behind", "node on another chain"
REORG, MIDNIGHT, DURING = "reorg", "reorg across midnight", "reorg during a run"
KILL = "kill -9"

WIRE = (STORM, BAN, BROKEN, TIMEOUT, TRUNCATED, CUT)
BARS = (DUPLICATE, LATE, REVISED, DESCENDING)
PRICES = (*WIRE, *BARS, FORMING, SKEW, DELISTED, KILL)
CHAIN = (*WIRE, BEHIND, OTHER_CHAIN, REORG, MIDNIGHT, DURING, KILL)
#: In turn, what the schedules must suffer first of all.
KINDS = (*(("prices", kind) for kind in PRICES), *(("chain", kind) for kind in CHAIN))

#: What the sandbox calls what it does.
_NAMES = {
    "storm": STORM,
    "rate_limited": STORM,
    "banned": BAN,
    "server_error": BROKEN,
    "unavailable": BROKEN,
    "stall": TIMEOUT,
    "stall_mid_page": TIMEOUT,
    "truncated": TRUNCATED,
    "cut": CUT,
    "duplicate_bars": DUPLICATE,
    "late_bars": LATE,
    "revised_bars": REVISED,
    "descending_bars": DESCENDING,
    "forming": FORMING,
    "delisted_after": DELISTED,
    "node_behind": BEHIND,
    "reorg_after": DURING,
}
_ATTEMPTS = 20


@dataclass(frozen=True)
class Weather:
    """What disturbs the runs of one schedule.

    Attributes:
        faults: fields of the sandbox's faults.
        runs: runs that are disturbed.
        shots: before them, runs in a child that is shot.
        delays: seconds between the retries of one request.
        timeout: seconds a request may take.
        watched: whether the lake is read all the while.
    """

    faults: dict[str, Any]
    runs: int
    shots: tuple[Shot, ...]
    delays: tuple[float, ...]
    timeout: float
    watched: bool


@dataclass(frozen=True)
class Outcome:
    """What became of one schedule; ``strikes`` counts what really happened, by kind."""

    strikes: Counter[str]
    difference: Difference
    schedule: str

    def told(self) -> dict[str, Any]:
        found = self.difference
        return {
            "strikes": dict(self.strikes),
            "lost": found.lost,
            "duplicated": found.duplicated,
            "torn": found.torn,
        }


def numbers(room: str, schedules: int) -> list[int]:
    """Which of so many schedules are those of ``room``."""
    return [number for number in range(schedules) if KINDS[number % len(KINDS)][0] == room]


def first_that_strikes(
    seed: int, number: int, play: Callable[[str, random.Random], Outcome]
) -> Outcome:
    """Play schedule ``number``, drawn anew while what it must suffer did not happen."""
    kind = KINDS[number % len(KINDS)][1]
    for attempt in range(_ATTEMPTS):
        draw = random.Random(f"{seed}/{number}/{attempt}")  # noqa: S311 - a schedule, no secret
        outcome = play(kind, draw)
        if outcome.strikes[kind] or outcome.difference:
            return outcome
    message = f"{kind} never struck in {_ATTEMPTS} draws of schedule {number}, seed {seed}"
    raise AssertionError(message)


def draw_weather(kind: str, draw: random.Random, others: tuple[str, ...]) -> Weather:
    """The kind that must strike, and up to two more of ``others`` at the same time."""
    kinds = {kind, *draw.sample(others, draw.choice((0, 0, 1, 2)))}
    faults: dict[str, Any] = {}
    for each in sorted(kinds):
        faults |= _faults(each, draw)
    limit = draw.choice((0, 3, 8, 20))
    if TIMEOUT in kinds:
        limit = limit and min(limit, 4)  # each costs its wait
        faults["stall_seconds"] = 0.4
    faults["limit"] = limit or (4 if TIMEOUT in kinds else 0)
    faults["retry_after_seconds"] = int(draw.random() < 0.02)
    shot = draw.random() < 0.15
    shots = draw.randint(1, 4) if kind == KILL else int(shot)
    return Weather(
        faults=faults,
        runs=draw.randint(0 if shots else 1, 3),
        shots=tuple(_shot(draw) for _ in range(shots)),
        delays=draw.choice(((), (0.002,), (0.002, 0.004, 0.008))),
        timeout=0.2 if TIMEOUT in kinds else 10.0,
        watched=draw.random() < 0.35,
    )


def struck(counts: Counter[str]) -> Counter[str]:
    """The sandbox's counts by kind."""
    by_kind = Counter[str]()
    for name, count in counts.items():
        by_kind[_NAMES[name.split()[0]]] += count
    return by_kind


def _faults(kind: str, draw: random.Random) -> dict[str, Any]:
    """Fields of the sandbox's faults; none of what the runs themselves bring about."""
    rate, requests = draw.uniform(0.05, 0.4), draw.randint(2, 10)
    pages = min(1.0, 2 * rate)  # there are fewer pages of bars than requests
    rates: dict[str, dict[str, Any]] = {
        STORM: {"storm": rate, "storm_requests": requests, "rate_limited": rate / 2},
        BAN: {"banned": rate},
        BROKEN: {"server_error": rate, "unavailable": rate},
        TIMEOUT: {"stall_mid_page": rate, "stall": rate / 4},
        TRUNCATED: {"truncated": rate},
        CUT: {"cut": rate},
        DUPLICATE: {"duplicate_bars": pages},
        LATE: {"late_bars": pages},
        REVISED: {"revised_bars": pages},
        DESCENDING: {"descending_bars": pages},
    }
    return rates.get(kind, {})


def _shot(draw: random.Random) -> Shot:
    after, most = draw.choice((("requests", 12), ("files", 14), ("milliseconds", 250)))
    # Early more often than late: a run over a lake that is nearly complete is soon done.
    moment = int(most * draw.random() ** 2)
    return Shot(after, moment, draw.choice((0.0, draw.uniform(0, 0.02))))
