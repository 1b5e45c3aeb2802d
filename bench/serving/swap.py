"""Another version takes over while an open-loop load runs: what its callers notice.

The load runs for some seconds, then the next version, registered and approved before, is deployed
and the service told to look. "During" begins there and ends a second after the first answer of the
new version; "before" is everything earlier. What takes over is a model trained again: the same
program, other numbers. Who deploys it is another machine's process, and runs here when nobody else
wants to. Then it is another program too, whose compiling takes seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from bench.report import Claim
from bench.serving.open_loop import Load, Records
from bench.serving.servers import ServerError, Servers, Side
from bench.serving.sides import Ours

#: "At most twice", as the ratio of before to during.
_TARGET = 0.5
_AFTER_SECONDS = 1.0
_PATIENCE = 60.0
_PAUSE = 0.1


@dataclass(frozen=True)
class Swap:
    """One swap under load, in seconds and counts.

    Attributes:
        before: p99 until the deployment.
        during: p99 from then on.
        took: from the deployment to the first answer of the new version.
        requests: sent in all.
        failed: of them, not answered, or with an error.
        wrong: answered by a version that was none of the two, or by the old one though the new one
            had answered before they were sent.
    """

    before: float
    during: float
    took: float
    requests: int
    failed: int
    wrong: int


def claims(options: argparse.Namespace, servers: Servers, ours: Ours) -> list[Claim]:
    found = []
    for program in (False, True):
        for side in (ours.by_symbol, ours.by_features):
            swaps = [
                _swap(options, servers, ours, side, program=program) for _ in range(options.swaps)
            ]
            found.append(_claim(side, options.rate, swaps, program=program))
    return found


def _claim(side: Side, rate: int, swaps: list[Swap], *, program: bool) -> Claim:
    requests, failed, wrong = (
        sum(getattr(each, name) for each in swaps) for name in ("requests", "failed", "wrong")
    )
    ratios = [each.before / each.during for each in swaps]
    return Claim(
        f"{side.method} {side.path} at {rate}/s, p99 during {len(swaps)} hot swaps "
        f"to {'another program' if program else 'a model trained again'} "
        f"({requests} requests, {failed} failed, {wrong} by a wrong version): p99 before",
        round(statistics.median(each.during for each in swaps), 6),
        round(statistics.median(each.before for each in swaps), 6),
        "s",
        round(statistics.median(ratios), 3),
        _TARGET,
        round(min(ratios), 3),
        round(max(ratios), 3),
    )


def _swap(
    options: argparse.Namespace, servers: Servers, ours: Ours, side: Side, *, program: bool
) -> Swap:
    world = ours.world
    old = _version(ours.by_symbol)
    new = world.register_next(program=program)
    world.approve(attach_to=new, **new.subject)
    with Load(
        side,
        servers.folder,
        rate=options.rate,
        seconds=_PATIENCE * 2,
        connections=options.clients,
    ) as load:
        time.sleep(max(2.0, options.seconds))
        deployed = time.monotonic()
        with _at_idle():
            world.deploy(new)
        ours.reload.ask()
        _await(ours.by_symbol, new.version)
        time.sleep(_AFTER_SECONDS)
        load.stop()
        found = load.records()
    swap = _judged(found, deployed, old, new.version)
    print(
        f"    {side.name}: {old} to {new.version} in {swap.took:.2f} s, p99 "
        f"{swap.before * 1e3:.2f} ms before, {swap.during * 1e3:.2f} ms during, "
        f"{swap.failed} of {swap.requests} failed, {swap.wrong} by a wrong version",
        flush=True,
    )
    return swap


@contextmanager
def _at_idle() -> Iterator[None]:
    """Run while the cores have nothing else to do, where the system has such a class."""
    if sys.platform != "linux":
        yield
        return
    before, nothing = os.sched_getscheduler(0), os.sched_param(0)
    os.sched_setscheduler(0, os.SCHED_IDLE, nothing)
    try:
        yield
    finally:
        os.sched_setscheduler(0, before, nothing)


def _judged(found: Records, deployed: float, old: str, new: str) -> Swap:
    answered = found.due + found.seconds
    by_new = found.version == new
    if not by_new.any():
        message = f"no answer of the load was by version {new}"
        raise ServerError(message)
    first = float(answered[by_new].min())
    good = found.status == 200
    stranger = good & ~by_new & (found.version != old)
    went_back = (found.version == old) & (found.sent > first)
    before = found.due < deployed
    during = ~before & (found.due <= first + _AFTER_SECONDS)
    return Swap(
        before=found.quantile(0.99, before),
        during=found.quantile(0.99, during),
        took=first - deployed,
        requests=len(found.due),
        failed=found.failed,
        wrong=int(np.sum(stranger | went_back)),
    )


def _version(side: Side) -> str:
    return str(json.loads(side.ask())["model_version"])


def _await(side: Side, version: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while (seen := _version(side)) != version:
        if time.monotonic() > deadline:
            message = f"version {version} was deployed and {seen} goes on answering"
            raise ServerError(message)
        time.sleep(_PAUSE)
