"""Our side: the product's training program over a plan's members, in the product's own layout."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryptoml_assets.models.families.family import Inputs, network
from cryptoml_assets.models.layout import Runner, population
from cryptoml_assets.models.population import FoldData, Hyper, Program, State, fold_data

#: Epochs after which the product looks at how far a training has come.
_SLICE = 10


@dataclass(frozen=True)
class Trained:
    """What came of a training.

    Attributes:
        seconds: from rows in memory to trained members, compiling left out.
        cpu_seconds: of the process meanwhile, compiling included.
        compile_seconds: of tracing, lowering and compiling, or of reading what was compiled before.
        steps: optimiser steps done.
        states: of all members, arrays of shape (folds, seeds, ...), in the order of the plan.
        program: of them all.
    """

    seconds: float
    cpu_seconds: float
    compile_seconds: float
    steps: int
    states: State
    program: Program


def train(
    inputs: NDArray[np.float32],
    labels: NDArray[np.float32],
    plan: Mapping[str, Any],
    *,
    until: int | None = None,
    vectorised: bool = False,
    precision: str = "float32",
) -> Trained:
    """Train a plan's members: the same seeds in each of its folds.

    Args:
        inputs: shape (n, k), standardised.
        labels: shape (n,).
        plan: as `world.World.plan` writes it.
        until: the epoch to stop at, or none for the plan's last.
        vectorised: all members as one program instead of each on a core.
        precision: of the arithmetic.
    """
    began, cpu_began = time.perf_counter(), time.process_time()
    data = prepared(inputs, labels, plan)
    program, states, hypers = beginning(plan, inputs.shape[1], precision)
    runner = Runner(program, data, vectorised, log=print)
    last = plan["epochs"] if until is None else until
    for reached in range(0, last + 1, _SLICE):
        states = runner.advance(states, hypers, min(reached + _SLICE, last))
    seconds = time.perf_counter() - began - runner.compile_seconds
    cpu_seconds = time.process_time() - cpu_began
    steps_of_epoch = [max(int(fold.count) // plan["batch"], 1) for fold in data]
    steps = int((states.epoch * np.array(steps_of_epoch)[:, None]).sum())
    return Trained(seconds, cpu_seconds, runner.compile_seconds, steps, states, program)


def prepared(
    inputs: NDArray[np.float32], labels: NDArray[np.float32], plan: Mapping[str, Any]
) -> tuple[FoldData, ...]:
    """The rows of each fold of a plan on the device."""
    folds = [plan["folds"][number] for number in sorted({fold for fold, _ in plan["members"]})]
    fit, validation = (
        [(inputs[slice(*fold[part])], labels[slice(*fold[part])]) for fold in folds]
        for part in ("fit", "validation")
    )
    return fold_data(fit, validation)


def beginning(
    plan: Mapping[str, Any], columns: int, precision: str = "float32"
) -> tuple[Program, State, Hyper]:
    """The program of a plan, and where its members begin."""
    folds, seeds = (sorted(set(each)) for each in zip(*plan["members"], strict=True))
    assert [(fold, seed) for fold in folds for seed in seeds] == list(map(tuple, plan["members"]))
    nets = [network("mlp", Inputs(columns), tuple(plan["hidden_units"]), seed) for seed in seeds]
    program = Program(nets[0][0], plan["epochs"], plan["batch"], precision)
    hypers = Hyper(
        np.array(seeds, np.uint32),
        np.full(len(seeds), plan["learning_rate"], np.float32),
        np.full(len(seeds), plan["weight_decay"], np.float32),
    )
    return program, population(program, [[params for _, params in nets] for _ in folds]), hypers
