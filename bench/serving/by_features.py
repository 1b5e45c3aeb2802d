"""Explicit rows: the same bodies, one named row each, to ours and to the naive route."""

from __future__ import annotations

import argparse
import statistics
from functools import partial

from bench.report import Claim, measure
from bench.serving import open_loop, wrk
from bench.serving.open_loop import Records
from bench.serving.servers import Servers, Side
from bench.serving.sides import Ours, start_naive

_LIMIT_SECONDS = 0.010
_BATCHING = 3.0
#: Of a rate that a server must keep up with, sent before the measured part.
_WARM_SECONDS = 2.0


def claims(options: argparse.Namespace, servers: Servers, ours: Ours) -> list[Claim]:
    ours.by_features.check(ours.by_features.ask())
    naive = start_naive(servers, ours.world.model)
    sides = [ours.by_features, naive]
    return [*_closed(options, servers, sides), *_open(options, servers, sides)]


def _closed(options: argparse.Namespace, servers: Servers, sides: list[Side]) -> list[Claim]:
    def seconds(side: Side) -> float:
        run = wrk.load(side, servers.folder, connections=options.clients, seconds=options.seconds)
        told = f"{run.rate:.0f}/s, p50 {run.p50 * 1e3:.2f} ms, p99 {run.p99 * 1e3:.2f} ms"
        print(f"    {side.name}, {options.clients} connections: {told}", flush=True)
        return 1.0 / run.rate

    found = measure({side.name: partial(seconds, side) for side in sides}, options.runs)
    mine, theirs = (found[side.name] for side in sides)
    claim = f"POST /predict/features, {options.clients} connections: naive route"
    return [Claim.of_pairs(claim, mine, theirs, _BATCHING, work=1.0, unit="1/s")]


def _open(options: argparse.Namespace, servers: Servers, sides: list[Side]) -> list[Claim]:
    rounds: dict[str, list[Records]] = {side.name: [] for side in sides}
    for index in range(options.runs):
        for side in sides[:: -1 if index % 2 else 1]:
            for seconds in (_WARM_SECONDS, options.seconds):
                found = open_loop.load(
                    side,
                    servers.folder,
                    rate=options.rate,
                    seconds=seconds,
                    connections=options.clients,
                )
            _tell(side.name, options.rate, found)
            rounds[side.name].append(found)
    mine, theirs = (rounds[side.name] for side in sides)
    claim = f"POST /predict/features at {options.rate} requests/s, open loop"
    return [
        Claim.of_seconds(
            f"{claim}, p50: naive route", _median(mine, 0.5), _median(theirs, 0.5), None
        ),
        Claim.of_seconds(
            f"{claim}, p99: naive route", _median(mine, 0.99), _median(theirs, 0.99), None
        ),
        Claim.of_seconds(f"{claim}, p99: limit", _median(mine, 0.99), _LIMIT_SECONDS, 1.0),
    ]


def _median(rounds: list[Records], share: float) -> float:
    return statistics.median(each.quantile(share) for each in rounds)


def _tell(name: str, rate: int, found: Records) -> None:
    late = found.sent - found.due
    shares = ", ".join(f"p{s:g} {found.quantile(s / 100) * 1e3:.2f} ms" for s in (50, 99, 99.9))
    print(
        f"    {name} at {rate}/s: {shares}, {found.failed} failed; "
        f"sent {sorted(late)[int(0.99 * len(late))] * 1e3:.2f} ms late at p99",
        flush=True,
    )
