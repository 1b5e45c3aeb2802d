"""The same number of optimiser steps on both sides: folds x seeds over a fixed number of epochs."""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from bench.report import Claim
from bench.training.scores import by_name
from bench.training.sides import Members, Side, Sides, torch_name
from bench.training.world import Config, make_world

SPEED_TARGET = 3.0
#: What we find out of sample is to be at least this share of what the peer finds.
LOSS_TARGET = 0.95


@dataclass(frozen=True)
class Runs:
    """What each round found, of ours, of the loop, and of the loop in several processes."""

    ours: list[Side] = field(default_factory=list)
    loop: list[Side] = field(default_factory=list)
    processes_s: list[float] = field(default_factory=list)

    @property
    def pairs(self) -> tuple[list[float], list[float]]:
        """Seconds of ours and of the loop."""
        return [side.seconds for side in self.ours], [side.seconds for side in self.loop]


def claims(options: argparse.Namespace, sides: Sides) -> list[Claim]:
    config = Config(options.epochs)
    if options.epochs > config.patience:
        limit = f"at most {config.patience}, so that no side stops early"
        raise SystemExit(f"--epochs={options.epochs}: {limit}")
    members = [(fold, seed) for fold in range(options.folds) for seed in range(options.seeds)]
    steps = sides.world.steps(config, members)
    print(f"  ours compiled in {sides.compile_ours(config, members):.2f} s, in no figure below")
    runs = _rounds(options.runs, sides, config, members)
    assert all(side.said["steps"] == steps for side in (*runs.ours, *runs.loop))
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    print(f"  {steps} steps a run on {sides.cores} cores; load of the machine {load}")
    print("  gained on chance out of sample, mean of the members:")
    print(by_name({"ours": runs.ours[0].scores, "PyTorch": runs.loop[0].scores}))
    size = (
        f"{options.folds} folds x {options.seeds} seeds, {options.rows} rows x {options.columns}, "
        f"{options.epochs} epochs"
    )
    return [
        *_speed_claims(size, runs, steps, config, sides.cores),
        *loss_claim(f"found out of sample in {options.epochs} epochs", runs.ours[0], runs.loop[0]),
        _loader_claim(options, sides),
    ]


def loss_claim(claim: str, ours: Side, loop: Side) -> list[Claim]:
    """Log likelihood gained on chance, in thousandths of a nat a row of the same test rows."""
    mine, theirs = (1e3 * side.scores.likelihood for side in (ours, loop))
    if theirs <= 0:
        print("  PyTorch found nothing, so what we found has no ratio")
        return []
    rounded = round(mine, 3), round(theirs, 3), "millinat", round(mine / theirs, 3)
    return [Claim(f"{claim}: {torch_name()}", *rounded, LOSS_TARGET)]


def _rounds(count: int, sides: Sides, config: Config, members: Members) -> Runs:
    threads = sides.best_threads(config)
    print(f"  PyTorch was fastest with threads: {threads}")
    runs = Runs()
    turns = [
        lambda: runs.ours.append(sides.ours(config, members)),
        lambda: runs.loop.append(sides.torch(config, members, threads)),
        lambda: runs.processes_s.append(sides.torch_processes(config, members)),
    ]
    for number in range(count):
        for turn in turns[:: -1 if number % 2 else 1]:
            turn()
    return runs


def _speed_claims(size: str, runs: Runs, steps: int, config: Config, cores: int) -> Sequence[Claim]:
    peer, ours_s = torch_name(), runs.pairs[0]
    cpu_ms = [
        1e3 * statistics.median(side.said["cpu_seconds"] for side in each) / steps
        for each in (runs.ours, runs.loop)
    ]
    return [
        Claim.of_pairs(
            f"{size}: {peer}, best of 1 to {cores} threads",
            *runs.pairs,
            SPEED_TARGET,
            work=steps,
            unit="steps/s",
        ),
        Claim.of_pairs(
            f"the same in rows: {peer}", *runs.pairs, None, work=steps * config.batch, unit="rows/s"
        ),
        Claim.of_pairs(
            f"the same: {peer} in {cores} processes at once, the members dealt out",
            ours_s,
            runs.processes_s,
            None,
            work=steps,
            unit="steps/s",
        ),
        # It says less of speed, but little of who else is at work on the machine.
        Claim(
            f"processor time of a step: {peer}",
            *(round(each, 4) for each in cpu_ms),
            "ms",
            round(cpu_ms[1] / cpu_ms[0], 3),
            None,
        ),
    ]


def _loader_claim(options: argparse.Namespace, sides: Sides) -> Claim:
    """The loop most people write, over few rows: batches from a DataLoader."""
    folder = sides.world.folder / "small"
    folder.mkdir()
    world = make_world(options.loader_rows, options.columns, options.folds, folder)
    small = replace(sides, world=world)
    config, members = Config(1), [(fold, 0) for fold in range(options.folds)]
    small.compile_ours(config, members)
    mine = small.ours(config, members)
    theirs = small.torch(config, members, 1, "loader")
    return Claim.of_pairs(
        f"{options.folds} folds, {options.loader_rows} rows, 1 epoch: {torch_name()}, DataLoader",
        [mine.seconds],
        [theirs.seconds],
        None,
        work=small.world.steps(config, members) * config.batch,
        unit="rows/s",
    )
