"""How the members of a population share a machine: one by one on its cores, or as one program."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax import numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cryptoml_assets.errors import TrainingResourcesError
from cryptoml_assets.models.families.family import Inputs, network
from cryptoml_assets.models.population import FoldData, Hyper, Program, State, fold_data
from cryptoml_assets.models.resources import cores, training_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from cryptoml_assets.models.options import Layout

#: Size of the population that layouts are measured with.
_PROBE_ROWS, _PROBE_INPUTS, _PROBE_MEMBERS = 16_384, 32, 8
_PROBE_ROUNDS = 4
#: By how much one program must be faster to be chosen.
_CLEARLY = 1.5
_WORDS = {True: "clearly faster", False: "not clearly faster than one by one"}
_OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "out of memory", "Out of memory")


@dataclass
class Runner:
    """Trains the members of every fold, in the layout that it is told.

    Attributes:
        program: of every member.
        data: rows of each fold.
        vectorised: whether all members advance as one program; else each has a thread's time.
        log: receives what had to be done differently.
        compile_seconds: time spent on compiling so far.
    """

    program: Program
    data: Sequence[FoldData]
    vectorised: bool
    log: Callable[[str], None]
    compile_seconds: float = 0.0
    _compiled: dict[Any, Any] = field(default_factory=dict)
    _all_data: FoldData | None = None

    def advance(self, states: State, hypers: Hyper, until: int) -> State:
        """Train every member to an epoch, or to where it stops by itself.

        Args:
            states: of every fold and member, numpy arrays of shape (folds, members, ...).
            hypers: of every member, shape (members,), the same in every fold.
            until: the epoch.

        Returns:
            The states after it, of the same shapes.

        Raises:
            TrainingResourcesError: one member alone does not fit into the device's memory.
        """
        if self.vectorised:
            try:
                return self._together(states, hypers, until)
            except jax.errors.JaxRuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
                self.vectorised, self._all_data = False, None
                self._compiled.clear()
                self.log(
                    f"{states.epoch.size} members at once do not fit into the device's memory: "
                    "training them one by one"
                )
        try:
            return self._one_by_one(states, hypers, until)
        except jax.errors.JaxRuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            message = (
                f"a single network over {self.data[0].inputs.shape[0]} rows does not fit into the "
                "device's memory: lower CRYPTOML_BATCH_SIZE, CRYPTOML_TRAINING_DAYS or the symbols"
            )
            raise TrainingResourcesError(message) from error

    def _one_by_one(self, states: State, hypers: Hyper, until: int) -> State:
        """Each member on a core: small networks leave most of a machine idle by themselves."""
        after: State = jax.tree.map(np.copy, states)
        places = [tuple(place) for place in np.argwhere(self.program.goes_on(states))]
        if not places:
            return after
        first = (member_of(states, places[0]), member_of(hypers, places[0][1:]), self.data[0])
        program = self._program(self.program.advance, *first)

        def one(place: tuple[int, int]) -> None:
            fold, member = place
            state, hyper = member_of(states, place), member_of(hypers, (member,))
            trained = program(state, hyper, self.data[fold], np.int32(until))
            jax.tree.map(lambda all_of, own: all_of.__setitem__(place, own), after, trained)

        # One network at a time has a GPU to itself; on a processor each takes a core.
        on_cores = jax.default_backend() == "cpu"
        with ThreadPoolExecutor(training_threads(len(places), cores()) if on_cores else 1) as pool:
            list(pool.map(one, places))
        return after

    def _together(self, states: State, hypers: Hyper, until: int) -> State:
        """All members as one program, spread over the devices there are."""
        folds, members = states.epoch.shape
        devices = jax.devices()
        # Each device takes whole folds where they can be dealt out, else members; a few are then
        # trained twice and forgotten.
        by_fold = folds % len(devices) == 0
        extra = 0 if by_fold else -members % len(devices)
        states = jax.tree.map(partial(_repeat_last, axis=1, times=extra), states)
        hypers = jax.tree.map(partial(_repeat_last, axis=0, times=extra), hypers)
        place = partial(_placed, Mesh(np.array(devices), ("device",)))
        if self._all_data is None:
            together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *self.data)
            self._all_data = place(together, ("device",) if by_fold else ())
        data = self._all_data
        states = place(states, ("device",) if by_fold else (None, "device"))
        hypers = place(hypers, () if by_fold else ("device",))
        of_fold = jax.vmap(self.program.advance, in_axes=(0, 0, None, None))
        of_all = jax.vmap(of_fold, in_axes=(0, None, 0, None))
        program = self._program(of_all, states, hypers, data)
        after = program(states, hypers, data, np.int32(until))
        trained: State = jax.tree.map(lambda leaf: np.array(leaf[:, :members]), after)
        return trained

    def _program(self, function: Any, states: Any, hypers: Any, data: Any) -> Any:
        """The compiled function, once for each shape of its arguments."""
        leaves = jax.tree.leaves((states, hypers, data))
        key = (function.__name__, *(np.shape(leaf) for leaf in leaves))
        if key not in self._compiled:
            start = time.perf_counter()
            lowered = jax.jit(function).lower(states, hypers, data, np.int32(0))
            self._compiled[key] = lowered.compile()
            self.compile_seconds += time.perf_counter() - start
        return self._compiled[key]


def is_vectorised(layout: Layout, known: Path | None, log: Callable[[str], None]) -> bool:
    """Whether to train all members as one program: as told, or as measured on these devices.

    A processor is not measured. Its cores are as busy either way, so that a measurement would find
    now one and now the other ahead, and the last bits of a model would follow.

    Args:
        layout: what the settings say.
        known: file of earlier measurements, so that a machine answers alike every time.
        log: receives what was measured.
    """
    if layout != "auto":
        return layout == "vectorised"
    if jax.default_backend() == "cpu":
        return False
    devices = jax.devices()
    key = f"{len(devices)} x {devices[0].device_kind}, {cores()} cores, jax {jax.__version__}"
    measured: dict[str, bool] = {}
    if known is not None and known.exists():
        # What a killed process left half-written counts as not measured.
        with suppress(ValueError):
            measured = json.loads(known.read_text())
    if key not in measured:
        measured[key] = _measure()
        log(f"{key}: training all networks as one program is {_WORDS[measured[key]]}")
        if known is not None:
            known.parent.mkdir(parents=True, exist_ok=True)
            fresh = known.with_suffix(f".{os.getpid()}")
            fresh.write_text(json.dumps(measured, indent=2))
            fresh.replace(known)
    return measured[key]


def _measure() -> bool:
    """Train a small population both ways, and tell whether one program is the faster way."""
    random = np.random.default_rng(0)
    inputs = random.standard_normal((_PROBE_ROWS, _PROBE_INPUTS)).astype(np.float32)
    labels = random.standard_normal(_PROBE_ROWS).astype(np.float32)
    graph, params = network("mlp", Inputs(_PROBE_INPUTS), (64, 32), 0)
    program = Program(graph, 1, 1024)
    part = (inputs, labels)
    return is_faster_vectorised(program, fold_data([part], [part])[0], params, _PROBE_MEMBERS)


def is_faster_vectorised(program: Program, data: FoldData, params: Any, members: int) -> bool:
    """Measure on this device whether members advance clearly faster together, and tell.

    Close to a tie one by one is the answer every time: the last bits of a model depend on it, and
    should not depend on what else the machine was doing.

    Args:
        program: a network like those to be trained.
        data: rows like theirs.
        params: numbers the network starts from.
        members: how many to train.
    """
    states = population(program, [[params] * members])
    hypers = Hyper(
        np.arange(members, dtype=np.uint32),
        np.full(members, 1e-3, np.float32),
        np.zeros(members, np.float32),
    )
    runners = [
        Runner(program, [data], vectorised, log=lambda _: None) for vectorised in (False, True)
    ]
    seconds: list[list[float]] = [[], []]
    for _ in range(_PROBE_ROUNDS):
        for runner, taken in zip(runners, seconds, strict=True):
            start = time.perf_counter()
            before = runner.compile_seconds
            runner.advance(states, hypers, 1)
            compiling = runner.compile_seconds - before
            taken.append(time.perf_counter() - start - compiling)
    one_by_one, together = (min(taken) for taken in seconds)
    return _CLEARLY * together < one_by_one


def population(program: Program, params: Sequence[Sequence[Any]]) -> State:
    """All members before their first epoch, numpy arrays of shape (folds, members, ...).

    Args:
        program: of each.
        params: for each fold, the numbers each member starts from.
    """
    starts = _stack([_stack(fold) for fold in params])
    initial = jax.jit(jax.vmap(jax.vmap(program.initial)))
    states: State = jax.tree.map(np.array, initial(starts))
    return states


def member_of(tree: Any, place: tuple[int, ...]) -> Any:
    """What a tree of arrays of many members says of one."""
    return jax.tree.map(lambda leaf: leaf[place], tree)


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def _repeat_last(leaf: Any, *, axis: int, times: int) -> Any:
    last = np.take(leaf, [-1] * times, axis)
    return np.concatenate([leaf, last], axis)


def _placed(mesh: Mesh, tree: Any, axes: tuple[str | None, ...]) -> Any:
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(*axes)))


def _is_out_of_memory(error: Exception) -> bool:
    return any(text in str(error) for text in _OUT_OF_MEMORY)
