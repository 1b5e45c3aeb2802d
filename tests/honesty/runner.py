"""Contests in many worlds, in processes of their own."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING

from cryptoml_assets.models.options import FAMILIES
from cryptoml_assets.models.trees import benchmarks
from tests.honesty.contest import contest
from tests.honesty.plugin import FEW

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.honesty.contest import Finding, World

EVERYONE = (*FAMILIES, *benchmarks())
#: Of each kind of model the one that is soonest compiled.
_SOONEST = ("linear", "mlp", "state_space", "lightgbm")

#: Worlds between two lines of progress, which a full run shows.
_TOLD = 10


class Arena:
    """Holds contests; of worlds held before, it remembers what was found.

    Args:
        processes: how many contests are held at a time.
    """

    def __init__(self, processes: int) -> None:
        self._pool = ProcessPoolExecutor(processes, get_context("spawn"))
        self._held: dict[tuple[World, tuple[str, ...]], Finding] = {}

    def hold(self, worlds: Sequence[World], families: tuple[str, ...]) -> list[dict[str, Finding]]:
        """What became of each family in each world."""
        new = [world for world in worlds if (world, families) not in self._held]
        contests = zip(new, self._pool.map(partial(_contest, families), new), strict=True)
        for number, (world, found) in enumerate(contests, 1):
            self._held[world, families] = found
            if number % _TOLD == 0:
                sys.stderr.write(f"{world.kind}: {number} of {len(new)} worlds\n")
        return [self._held[world, families] for world in worlds]

    def close(self) -> None:
        """End its processes."""
        self._pool.shutdown(cancel_futures=True)


def processes_for(worlds: int) -> int:
    """One beside the other tests of the suite, every core for a full run."""
    return 1 if worlds <= FEW else len(os.sched_getaffinity(0))


def families_for(worlds: int) -> tuple[str, ...]:
    """One of each kind beside the other tests of the suite, everyone in a full run."""
    return tuple(name for name in EVERYONE if worlds > FEW or name in _SOONEST)


def _contest(families: tuple[str, ...], world: World) -> dict[str, Finding]:
    return contest(world, families)
