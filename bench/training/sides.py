"""The sides of the benchmark, each run as a process of its own over a plan's members."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.processes import pins, ready, worker
from bench.training.scores import Scores, scored
from bench.training.world import Config, World

WORKERS = Path(__file__).parent / "workers"
#: Where a GPU is at hand, the comparison on cores must not use it.
ON_CPU = {"JAX_PLATFORMS": "cpu"}
Members = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Side:
    """One run of one side.

    Attributes:
        seconds: of training, from rows in memory to trained members.
        said: by the worker, besides.
        scores: of the answers on the test rows.
    """

    seconds: float
    said: dict[str, Any]
    scores: Scores

    @property
    def mean_epochs(self) -> float:
        """Epochs that a member took."""
        each = self.said["epochs"].values()
        return float(sum(each) / len(each))


@dataclass(frozen=True)
class Sides:
    """What the sides need: the rows, the cores, and a folder for our compiled programs."""

    world: World
    cores: int
    cache: Path

    def ours(self, config: Config, members: Members, *options: int) -> Side:
        """The product's training."""
        plan = self.world.plan("ours", config, members)
        script = WORKERS / "our_training.py"
        done = worker(script, plan, self.cache, *options, variables=ON_CPU)
        return self._side("ours", members, done.said)

    def compile_ours(self, config: Config, members: Members) -> float:
        """Seconds of compiling the program of a suite, which the next processes find compiled."""
        return float(self.ours(config, members, 0).said["compile_seconds"])

    def torch(
        self, config: Config, members: Members, threads: int, *options: str, name: str = "torch"
    ) -> Side:
        """A PyTorch loop in one process."""
        plan = self.world.plan(name, config, members)
        python = ready("torch") / "python"
        done = worker(WORKERS / "torch_loop.py", plan, threads, *options, python=python)
        return self._side(name, members, done.said)

    def fastest_torch(self, config: Config, members: Members) -> Side:
        """The loop with the number of threads that one epoch of its first member liked best."""
        return self.torch(config, members, self.best_threads(config))

    def best_threads(self, config: Config) -> int:
        """Threads with which the loop is fastest, by an epoch of a member of the oldest fold."""
        once = replace(config, epochs=1)
        return self._fastest(lambda threads: self.torch(once, [(0, 0)], threads))

    def torch_processes(self, config: Config, members: Members) -> float:
        """Seconds of the same loop as one process of one thread for each core, members dealt out.

        They are those of the process that took longest.
        """
        shares = [members[core :: self.cores] for core in range(self.cores)]
        with ThreadPoolExecutor(self.cores) as threads:
            runs = [
                threads.submit(self.torch, config, share, 1, name=f"torch{core}")
                for core, share in enumerate(shares)
                if share
            ]
            return max(run.result().seconds for run in runs)

    def trees(self, config: Config, folds: int) -> Side:
        """LightGBM on each fold, with the number of threads that the oldest fold liked best."""
        members = [(fold, 0) for fold in range(folds)]
        threads = self._fastest(lambda number: self._trees(config, members[:1], number))
        return self._trees(config, members, threads)

    def start(self, config: Config, cache: Path) -> dict[str, float]:
        """When a new process, with the rows of every fold, reached what on its way to an epoch."""
        plan = self.world.plan(
            "start", config, [(fold, 0) for fold in range(len(self.world.folds))]
        )
        script = WORKERS / "our_start.py"
        return worker(script, plan, cache, time.monotonic(), variables=ON_CPU).said

    def population(self, config: Config, sizes: Sequence[int]) -> dict[str, Any]:
        """Rows a second against the size of the population, on the device that JAX chooses."""
        newest = len(self.world.folds) - 1
        plan = self.world.plan("population", config, [(newest, 0)])
        return worker(WORKERS / "our_population.py", plan, self.cache, *sizes).said

    def _fastest(self, run: Callable[[int], Side]) -> int:
        found = {threads: run(threads).seconds for threads in range(1, self.cores + 1)}
        return min(found, key=found.__getitem__)

    def _trees(self, config: Config, members: Members, threads: int) -> Side:
        plan = self.world.plan("trees", config, members)
        python = ready("lightgbm") / "python"
        done = worker(WORKERS / "trees.py", plan, threads, python=python)
        return self._side("trees", members, done.said)

    def _side(self, name: str, members: Members, said: dict[str, Any]) -> Side:
        scores = scored(self.world, self.world.folder / f"{name}.npz", members)
        return Side(said["seconds"], said, scores)


def torch_name() -> str:
    """The peer and its version, for a claim."""
    return pins("torch").partition(",")[0].replace("==", " ")
