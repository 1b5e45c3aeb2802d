"""Answers a second to ``POST /predict`` by symbol, against what there is to compare with."""

from __future__ import annotations

import argparse
from functools import partial

from bench.processes import MissingPeerError, pins
from bench.report import Claim, measure
from bench.serving import wrk
from bench.serving.servers import Servers, Side
from bench.serving.sides import (
    Ours,
    start_bare,
    start_bento,
    start_empty,
    start_mlflow,
    start_naive,
)

#: Side → the ratio promised; none: for scale.
_TARGETS = {
    "empty route": 1.0,
    "mlflow models serve": 10.0,
    "BentoML": 5.0,
    "naive route": None,
    "bare route": None,
}


def claims(options: argparse.Namespace, servers: Servers, ours: Ours) -> list[Claim]:
    sides = [ours.by_symbol, *_others(options, servers, ours)]
    seconds = measure(
        {side.name: partial(_seconds, side, servers, options) for side in sides}, options.runs
    )
    mine = seconds[ours.by_symbol.name]
    return [
        Claim.of_pairs(
            f"POST /predict by symbol, {options.connections} connections: {_told(side)}",
            mine,
            seconds[side.name],
            _TARGETS[side.name],
            work=1.0,
            unit="1/s",
        )
        for side in sides[1:]
    ]


def _others(options: argparse.Namespace, servers: Servers, ours: Ours) -> list[Side]:
    model = ours.world.model
    started = [start_empty(servers), start_bare(servers, ours)]
    if options.quick:
        return started
    started.append(start_naive(servers, model))
    for start in (start_mlflow, start_bento):
        try:
            started.append(start(servers, model))
        except MissingPeerError as error:
            print(f"  left out: {start.__name__.removeprefix('start_')}, {error}")
    return started


def _told(side: Side) -> str:
    """With the version of a peer."""
    for pin in pins("serving").split(", "):
        package, _, version = pin.partition("==")
        if package == side.name.split()[0].lower():
            return f"{side.name} {version}"
    return side.name


def _seconds(side: Side, servers: Servers, options: argparse.Namespace) -> float:
    """Seconds an answer."""
    run = wrk.load(side, servers.folder, connections=options.connections, seconds=options.seconds)
    told = f"{run.rate:.0f}/s, p50 {run.p50 * 1e3:.2f} ms, p99 {run.p99 * 1e3:.2f} ms"
    print(f"    {side.name}: {told}", flush=True)
    return 1.0 / run.rate
