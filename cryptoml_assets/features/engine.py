"""Evaluates terms over a grid: in blocks, on every core, each common part once.

Terms are laid out as one sequence of whole-array operations over a handful of reused buffers. A
block of steps with its halo runs through the sequence; blocks run on threads, because numpy lets go
of the interpreter inside an operation on large arrays.

Within a block the symbols lie one behind the other in flat memory, and a lag is a shift of all of
it. What a symbol's first steps read of the one before it stays in the halo, which is never stored.
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

from cryptoml_assets.features.terms import (
    Apply,
    Column,
    Function,
    Lag,
    Operand,
    Term,
    Values,
    apply,
)

#: Values of one buffer: large enough for the threads to overlap, small enough for the caches.
BLOCK = 160_000

#: Takes the values of output ``index`` (symbols by steps) from step ``begin`` on.
Store = Callable[[int, int, Values], None]


@dataclass(frozen=True)
class _Input:
    """An operand: a buffer or a column, ``lag`` steps earlier."""

    place: int | Column
    shared: bool
    lag: int


@dataclass(frozen=True)
class _Step:
    """One operation into a buffer, from column ``start`` on, and the outputs it completes.

    An output is the values in the buffer, or those some steps earlier: its number and the steps.
    """

    function: Function
    operands: tuple[_Input | float, ...]
    buffer: int
    shared: bool
    start: int
    outputs: tuple[tuple[int, int], ...]


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
    if not symbols or length <= 0:
        return
    width = max(BLOCK // symbols, 4 * plan.halo, 1)
    local = threading.local()

    def run(begin: int) -> None:
        if not hasattr(local, "memory"):
            local.memory = _Memory(plan, columns, symbols, min(width, length) + plan.halo)
        stop = min(begin + width, length) + plan.halo
        calls = local.memory.load(begin, stop)
        with np.errstate(all="ignore"):
            for call in calls:
                call.function(*call.operands, out=call.out)
                for index, values in call.outputs:
                    store(index, begin, values)

    begins = range(0, length, width)
    workers = min(pl.thread_pool_size(), len(begins))
    if workers == 1:
        for begin in begins:
            run(begin)
        return
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(run, begins):
            pass


@dataclass(frozen=True)
class _Call:
    """A step over the memory of one thread, and its outputs with where their values then are."""

    function: Function
    operands: tuple[Values | float, ...]
    out: Values
    outputs: tuple[tuple[int, Values], ...]


class _Memory:
    """What one thread works on: the columns of a block and the buffers, and the calls over them."""

    def __init__(
        self, plan: Program, columns: Mapping[Column, Values], symbols: int, widest: int
    ) -> None:
        self._plan = plan
        self._columns = columns
        self._symbols = symbols
        own, shared = plan.buffers
        # One piece of memory each: pages of a large one cost less.
        self._buffers = (np.empty((own, symbols * widest)), np.empty((shared, widest)))
        self._copies = {each: np.empty(len(values) * widest) for each, values in columns.items()}
        self._calls: dict[int, list[_Call]] = {}

    def load(self, begin: int, stop: int) -> list[_Call]:
        """Copy the columns of a block, and give the calls that work on them."""
        width = stop - begin
        for each, values in self._columns.items():
            self._copies[each][: len(values) * width].reshape(-1, width)[:] = values[:, begin:stop]
        if width not in self._calls:
            self._calls[width] = [self._call(step, width) for step in self._plan.steps]
        return self._calls[width]

    def _call(self, step: _Step, width: int) -> _Call:
        # A ufunc does not mind where symbols end, unless one row goes with those of all symbols.
        flat = isinstance(step.function, np.ufunc) and all(
            each.shared == step.shared for each in step.operands if isinstance(each, _Input)
        )
        rows = self._rows(step.buffer, step.shared, width)
        out = rows.reshape(-1)[step.start :] if flat else rows[:, step.start :]
        operands = tuple(self._operand(each, width, step.start, flat) for each in step.operands)
        halo = self._plan.halo
        outputs = tuple((index, rows[:, halo - lag : width - lag]) for index, lag in step.outputs)
        return _Call(step.function, operands, out, outputs)

    def _operand(self, each: _Input | float, width: int, start: int, flat: bool) -> Values | float:
        """The steps of an operand from ``start`` on, as many steps earlier as it lags."""
        if isinstance(each, float):
            return each
        rows = self._rows(each.place, each.shared, width)
        if flat:
            return rows.reshape(-1)[start - each.lag : rows.size - each.lag]
        return rows[:, start - each.lag : width - each.lag]

    def _rows(self, place: int | Column, shared: bool, width: int) -> Values:
        rows = 1 if shared else self._symbols
        memory = self._copies[place] if isinstance(place, Column) else self._buffers[shared][place]
        return memory[: rows * width].reshape(rows, width)


class _Layout:
    """Orders terms depth first and gives each a buffer until its last use."""

    def __init__(self, outputs: tuple[Term, ...]) -> None:
        # A column is an output once it is copied; earlier steps of something are read where it is.
        self._outputs = [
            each if isinstance(_base(each)[0], Apply) else apply(np.positive, each)
            for each in outputs
        ]
        self._order: dict[Apply, None] = {}
        self._uses: Counter[Term] = Counter()
        self._place: dict[Apply, int] = {}
        self._free: tuple[list[int], list[int]] = ([], [])
        self._made = [0, 0]
        for output in self._outputs:
            self._visit(_base(output)[0])

    def _visit(self, term: Term) -> None:
        if not isinstance(term, Apply) or term in self._order:
            return
        for base in _bases(term):
            self._visit(base)
        self._order[term] = None

    def program(self) -> Program:
        """The finished layout."""
        halo = max((output.reach for output in self._outputs), default=0)
        wanted: dict[Term, list[tuple[int, int]]] = {}
        for index, output in enumerate(self._outputs):
            base, lag = _base(output)
            wanted.setdefault(base, []).append((index, lag))
        for term in self._order:
            self._uses.update(_bases(term))
        steps = [self._step(term, wanted.get(term, [])) for term in self._order]
        return Program(halo, tuple(steps), (self._made[0], self._made[1]))

    def _step(self, term: Apply, outputs: Sequence[tuple[int, int]]) -> _Step:
        operands = tuple(self._input(operand) for operand in term.operands)
        lagged = {each.term for each in term.operands if isinstance(each, Lag)}
        spent = []
        for base in _bases(term):
            self._uses[base] -= 1
            if isinstance(base, Apply) and not self._uses[base]:
                spent.append(base)
        # An operand's buffer can take the result unless other steps of it are still to be read.
        for base in spent:
            if base not in lagged:
                self._free[base.shared].append(self._place[base])
        self._place[term] = self._take(term.shared)
        for base in spent:
            if base in lagged:
                self._free[base.shared].append(self._place[base])
        place = self._place[term]
        step = _Step(term.function, operands, place, term.shared, term.reach, tuple(outputs))
        if not self._uses[term]:
            self._free[term.shared].append(self._place[term])
        return step

    def _take(self, shared: bool) -> int:
        if self._free[shared]:
            return self._free[shared].pop()
        self._made[shared] += 1
        return self._made[shared] - 1

    def _input(self, operand: Operand) -> _Input | float:
        if not isinstance(operand, Term):
            return float(operand)
        base, lag = _base(operand)
        place = base if isinstance(base, Column) else self._place[base]  # type: ignore[index]
        return _Input(place, base.shared, lag)


def _bases(term: Apply) -> tuple[Term, ...]:
    """The terms that ``term`` is made of, without their lags, each once."""
    operands = (each for each in term.operands if isinstance(each, Term))
    return tuple(dict.fromkeys(_base(each)[0] for each in operands))


def _base(term: Term) -> tuple[Term, int]:
    """A term without its lag, and the lag."""
    return (term.term, term.steps) if isinstance(term, Lag) else (term, 0)
