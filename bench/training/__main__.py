"""A walk-forward suite of networks: ours against a PyTorch loop and LightGBM, on the same cores.

``suite`` times the same number of optimiser steps on both sides, ``stopping`` every side until its
early stopping ends it, ``start`` a new process on its way to its first step, and ``population``
rows a second on a GPU, where JAX sees one. Each run of a side is a process of its own, on the same
``--cores``; the clock runs from rows in memory to trained members, transfer to the device included,
imports and compiling left out, which ``start`` and its claims are about. The peers' pins are in
``bench/peers``; of PyTorch the build for the CPU is meant, see ``bench/peers/torch.txt``.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from bench.processes import MissingPeerError
from bench.report import Claim, publish
from bench.training import population, start, stopping, suite
from bench.training.sides import Sides
from bench.training.world import make_world

PARTS = {"suite": suite, "stopping": stopping, "start": start, "population": population}


def parse() -> argparse.Namespace:
    options = argparse.ArgumentParser(prog="bench.training", description=__doc__)
    options.add_argument("--rows", type=int, default=300_000)
    options.add_argument("--columns", type=int, default=40)
    options.add_argument("--folds", type=int, default=8)
    options.add_argument("--seeds", type=int, default=4)
    options.add_argument("--epochs", type=int, default=3, help="of the timed suite; at most 5")
    options.add_argument("--runs", type=int, default=3, help="rounds of the timed suite")
    options.add_argument("--most-epochs", type=int, default=30, help="where early stopping ends")
    options.add_argument("--stopping-seeds", type=int, default=2, help="seeds of that comparison")
    options.add_argument("--loader-rows", type=int, default=50_000, help="of the DataLoader loop")
    options.add_argument("--cores", type=int, default=2)
    options.add_argument(
        "--sizes", type=int, nargs="+", default=(), help="of populations, on any device"
    )
    options.add_argument("--only", choices=PARTS, nargs="+", help="results are printed, not kept")
    return options.parse_args()


def main() -> None:
    options = parse()
    wanted = options.only or PARTS
    found: list[Claim] = []
    everything = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        world = make_world(options.rows, options.columns, options.folds, folder)
        for name in (each for each in PARTS if each in wanted):
            print(f"{name} ...", flush=True)
            held = everything if name == "population" else sorted(everything)[: options.cores]
            os.sched_setaffinity(0, held)
            sides = Sides(world, min(options.cores, len(held)), folder / "cache")
            try:
                found += PARTS[name].claims(options, sides)
            except MissingPeerError as error:
                print(f"{name}: left out, {error}")
    publish("training", found, keep=options.only is None)


if __name__ == "__main__":
    main()
