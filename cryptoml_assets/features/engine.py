"""Evaluates terms over a grid: in blocks, on every core, each common part once.

Terms are laid out as one sequence of whole-array operations over a handful of reused buffers. A
block of steps with its halo runs through the sequence; blocks run on threads, because numpy lets go
of the interpreter inside an operation on large arrays.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np
import polars as pl

from cryptoml_assets.features.terms import Apply, Column, Function, Lag, Operand, Term, Values

#: Values of one buffer: large enough for the threads to overlap, small enough for the caches.
BLOCK = 160_000

#: Takes the values of output ``index`` (symbols by steps) from step ``begin`` on.
Store = Callable[[int, int, Values], None]


@dataclass(frozen=True)
class _Input:
    """An operand: a buffer, a column or a number, ``lag`` steps earlier."""

    place: int | Column | float
    shared: bool
    lag: int


@dataclass(frozen=True)
class _Step:
    """One operation into a buffer, from column ``start`` on, and the outputs it completes."""

    function: Function | None
    operands: tuple[_Input, ...]
    buffer: int
    shared: bool
    start: int
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Program:
    """Terms laid out as operations.

    Attributes:
        halo: Steps before the first wanted one that the grid must hold.
        steps: The operations, in order.
        buffers: Buffers with a row for each symbol, and with one row for all.
    """

    halo: int
    steps: tuple[_Step, ...]
    buffers: tuple[int, int]


@cache
def program(outputs: tuple[Term, ...]) -> Program:
    """The operations that give ``outputs``."""
    return _Layout(outputs).program()


def evaluate(
    outputs: Sequence[Term],
    columns: Mapping[Column, Values],
    shape: tuple[int, int],
    store: Store,
) -> None:
    """Hand the values of every output to ``store``, block by block, from several threads.

    Args:
        outputs: What to compute.
        columns: Of each column of the outputs its values: symbols by steps, or one row when it is
            shared; NaN where missing. They begin :attr:`Program.halo` steps before the first
            wanted one.
        shape: Symbols, and steps with those before the first wanted one.
        store: Called once for each output and block; the array is valid during the call alone.
    """
    plan = program(tuple(outputs))
    symbols, length = shape[0], shape[1] - plan.halo
    width = max(BLOCK // max(symbols, 1), 4 * plan.halo, 1)
    local = threading.local()

    def run(begin: int) -> None:
        stop = min(begin + width, length) + plan.halo
        if not hasattr(local, "buffers"):
            local.buffers = _allocate(plan, symbols, min(width, length) + plan.halo)
        block = {each: values[:, begin:stop] for each, values in columns.items()}
        with np.errstate(all="ignore"):
            _run(plan, block, local.buffers, stop - begin, lambda i, v: store(i, begin, v))

    begins = range(0, length, width)
    workers = min(pl.thread_pool_size(), len(begins))
    if workers <= 1:
        for begin in begins:
            run(begin)
        return
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(run, begins):
            pass


def _allocate(plan: Program, symbols: int, width: int) -> tuple[list[Values], list[Values]]:
    own, shared = plan.buffers
    return (
        [np.empty((symbols, width)) for _ in range(own)],
        [np.empty((1, width)) for _ in range(shared)],
    )


def _run(
    plan: Program,
    columns: Mapping[Column, Values],
    buffers: tuple[list[Values], list[Values]],
    width: int,
    store: Callable[[int, Values], None],
) -> None:
    for step in plan.steps:
        start = step.start
        if step.function is None:
            done = np.asarray(_view(step.operands[0], columns, buffers, plan.halo, width))
        else:
            out = buffers[step.shared][step.buffer][:, start:width]
            step.function(
                *(_view(each, columns, buffers, start, width) for each in step.operands), out=out
            )
            done = out[:, plan.halo - start :]
        for index in step.outputs:
            store(index, done)


def _view(
    each: _Input,
    columns: Mapping[Column, Values],
    buffers: tuple[list[Values], list[Values]],
    start: int,
    width: int,
) -> Values | float:
    place = each.place
    if isinstance(place, float):
        return place
    values = columns[place] if isinstance(place, Column) else buffers[each.shared][place]
    return values[:, start - each.lag : width - each.lag]


class _Layout:
    """Orders terms depth first and gives each a buffer until its last use."""

    def __init__(self, outputs: tuple[Term, ...]) -> None:
        self._outputs = outputs
        self._order: dict[Apply, None] = {}
        self._uses: Counter[Apply] = Counter()
        self._place: dict[Apply, int] = {}
        self._free: tuple[list[int], list[int]] = ([], [])
        self._made = [0, 0]
        for output in outputs:
            self._visit(_base(output)[0])

    def _visit(self, term: Term) -> None:
        if not isinstance(term, Apply) or term in self._order:
            return
        for operand in term.operands:
            if isinstance(operand, Term):
                self._visit(_base(operand)[0])
        self._order[term] = None

    def program(self) -> Program:
        """The finished layout."""
        halo = max((output.reach for output in self._outputs), default=0)
        wanted: dict[Term, list[int]] = {}
        for index, output in enumerate(self._outputs):
            wanted.setdefault(output, []).append(index)
        for term in self._order:
            for base in {_base(each)[0] for each in term.operands if isinstance(each, Term)}:
                if isinstance(base, Apply):
                    self._uses[base] += 1
        for output in wanted:
            base, lag = _base(output)
            if lag and isinstance(base, Apply):
                self._uses[base] += 1
        steps = [self._step(term, tuple(wanted.get(term, ()))) for term in self._order]
        for output, indexes in wanted.items():
            if not isinstance(output, Apply):
                steps.append(
                    _Step(None, (self._input(output),), 0, output.shared, 0, tuple(indexes))
                )
        return Program(halo, tuple(steps), (self._made[0], self._made[1]))

    def _step(self, term: Apply, outputs: tuple[int, ...]) -> _Step:
        operands = tuple(self._input(operand) for operand in term.operands)
        bases = [_base(each) for each in term.operands if isinstance(each, Term)]
        lagged = {base for base, lag in bases if lag}
        spent = []
        for base in dict.fromkeys(base for base, _ in bases):
            if isinstance(base, Apply):
                self._uses[base] -= 1
                if not self._uses[base]:
                    spent.append(base)
        # An operand's buffer can take the result unless other steps of it are still to be read.
        for base in spent:
            if base not in lagged:
                self._free[base.shared].append(self._place[base])
        self._place[term] = self._take(term.shared)
        for base in spent:
            if base in lagged:
                self._free[base.shared].append(self._place[base])
        step = _Step(term.function, operands, self._place[term], term.shared, term.reach, outputs)
        if not self._uses[term]:
            self._free[term.shared].append(self._place[term])
        return step

    def _take(self, shared: bool) -> int:
        if self._free[shared]:
            return self._free[shared].pop()
        self._made[shared] += 1
        return self._made[shared] - 1

    def _input(self, operand: Operand) -> _Input:
        if not isinstance(operand, Term):
            return _Input(float(operand), shared=False, lag=0)
        base, lag = _base(operand)
        place = base if isinstance(base, Column) else self._place[base]  # type: ignore[index]
        return _Input(place, base.shared, lag)


def _base(term: Term) -> tuple[Term, int]:
    """A term without its lag, and the lag."""
    return (term.term, term.steps) if isinstance(term, Lag) else (term, 0)
