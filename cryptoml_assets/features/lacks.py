"""What the windows of a grid lack: what a formula needs, against what there is.

A term names the steps of each column that a value is made of (:func:`needs`). Where one of them is
not there the value has none, and the reason is that of the column.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, reduce

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cryptoml_assets.features.feature import METRICS, Feature
from cryptoml_assets.features.grid import Grid, Span
from cryptoml_assets.features.reasons import (
    BEFORE_HISTORY,
    MISSING_BAR,
    NO_FINAL_BLOCKS,
    NOT_PUBLISHED,
    OTHER_SYMBOL_MISSING,
)
from cryptoml_assets.features.terms import Apply, Column, Lag, Term, rank_rows

Mask = NDArray[np.bool_]

#: Which of some symbols have rows before those at hand.
Older = Callable[[Sequence[str]], Collection[str]]


@dataclass(frozen=True)
class Others:
    """Some other symbol's value of ``term``."""

    term: Term


@dataclass(frozen=True)
class _Source:
    """Something that is there or not at each step; ``symbol`` when it is of that one alone."""

    name: str
    symbol: str


#: What a value is made of. Bit ``n`` of the number stands for the step ``n`` steps earlier.
Needs = dict[Column | Others, int]
_Demand = dict[_Source | Others, int]


@cache
def needs(term: Term) -> Needs:
    """The steps of every column that a value of ``term`` is made of, and no others.

    A rank needs one other symbol that has a value as well (:class:`Others`).
    """
    if isinstance(term, Column):
        return {term: 1}
    if isinstance(term, Lag):
        return {key: steps << term.steps for key, steps in needs(term.term).items()}
    found: Needs = {}
    if isinstance(term, Apply):
        operands = [operand for operand in term.operands if isinstance(operand, Term)]
        for operand in operands:
            for key, steps in needs(operand).items():
                found[key] = found.get(key, 0) | steps
        if term.function is rank_rows:
            found[Others(operands[0])] = 1
    return found


def runs(steps: int) -> Iterator[tuple[int, int]]:
    """First and last of each unbroken run of steps in a number of :data:`Needs`."""
    place = 0
    while steps:
        gap = (steps & -steps).bit_length() - 1
        steps >>= gap
        length = (~steps & (steps + 1)).bit_length() - 1
        yield place + gap, place + gap + length - 1
        steps >>= length
        place += gap + length


def nobody(_: Sequence[str]) -> Collection[str]:
    """No symbol has older rows."""
    return ()


class Lacks:
    """What a grid lacks of the windows that end on its wanted steps.

    Masks have a row for each symbol, or one for all, and a column for each step after the first
    ``halo`` ones.
    """

    def __init__(self, grid: Grid, halo: int, older: Older = nobody) -> None:
        """Remember the grid.

        Args:
            grid: The columns of the features that will be asked about.
            halo: Steps before the first wanted one; no window reaches further.
            older: Tells symbols that have rows before the grid from those whose first row of all is
                in it. Asked only about those that lack the grid's first steps.
        """
        self._grid, self._halo = grid, halo
        self._older = older
        self._away: dict[_Source | Others, NDArray[np.int32]] = {}
        self._without: dict[Others, Mask] = {}

    @property
    def span(self) -> Span:
        """The steps of the grid."""
        return self._grid.span

    def of(self, terms: Sequence[Term]) -> dict[str, Mask]:
        """By reason, where a value of one of ``terms`` lacks something for it."""
        found: dict[str, Mask] = {}
        for key, steps in self._demand(terms).items():
            for reason, mask in self._reasons(key, steps):
                found[reason] = found[reason] | mask if reason in found else mask
        return found

    def any_of(self, term: Term) -> Mask:
        """Where a value of ``term`` lacks anything."""
        return self._any_of(term, self._halo, self._grid.span.count)

    def count(self, term: Term, wanted: Mask, steps: Sequence[slice]) -> int:
        """Places of ``wanted``, within some of the steps, where ``term`` lacks anything."""
        return sum(
            int(np.count_nonzero(self._any_of(term, *self._ends(each)) & wanted[:, each]))
            for each in steps
        )

    def _ends(self, steps: slice) -> tuple[int, int]:
        return self._halo + steps.start, self._halo + steps.stop

    def missing_of(self, term: Term, symbol: str, step: int) -> Iterator[tuple[str, str, int]]:
        """What a value of ``term`` lacks at a step of the grid: reason, symbol and step of each.

        The symbol is empty where it could be any other one, or where all have the same.
        """
        own = self._grid.symbols.to_list().index(symbol)
        for key, steps in self._demand((term,)).items():
            places = self._places(key)
            row = own if len(places) > 1 else 0
            at = np.array([step - lag for lag in range(steps.bit_length()) if steps >> lag & 1])
            for place in np.sort(at[places[row, at]]).tolist():
                yield self._reason(key, symbol, place), self._whose(key, symbol), place

    def _reason(self, source: _Source | Others, symbol: str, step: int) -> str:
        """Why a place of a source is missing to a symbol."""
        if isinstance(source, Others) or source.symbol not in {"", symbol}:
            return OTHER_SYMBOL_MISSING
        if source.name in self._grid.shared:
            return NO_FINAL_BLOCKS
        if source.name in METRICS:
            return NOT_PUBLISHED
        first = self._first[self._grid.symbols.to_list().index(symbol), 0]
        return BEFORE_HISTORY if step < first else MISSING_BAR

    def _whose(self, source: _Source | Others, symbol: str) -> str:
        if isinstance(source, Others) or source.name in self._grid.shared:
            return ""
        return source.symbol or symbol

    def alike(self, features: Sequence[Feature]) -> list[list[int]]:
        """Places of ``features``, those together that lack something at the same steps."""
        groups: dict[frozenset[tuple[_Source | Others, int]], list[int]] = {}
        for place, feature in enumerate(features):
            demand = frozenset(self._demand((feature.term,)).items())
            groups.setdefault(demand, []).append(place)
        return list(groups.values())

    def _any_of(self, term: Term, start: int, stop: int) -> Mask:
        """Where a value of ``term`` lacks anything, from step ``start`` of the grid to ``stop``."""
        none = np.zeros((1, stop - start), np.bool_)
        demand = self._demand((term,)).items()
        return reduce(np.logical_or, (self._missing(*each, start, stop) for each in demand), none)

    def _demand(self, terms: Sequence[Term]) -> _Demand:
        """What ``terms`` need together; columns that are there at the same steps are one."""
        found: _Demand = {}
        for term in terms:
            for key, steps in needs(term).items():
                source = self._source(key) if isinstance(key, Column) else key
                found[source] = found.get(source, 0) | steps
        return found

    def _source(self, column: Column) -> _Source:
        name = "" if column.name in self._whole else column.name
        return _Source(name, column.symbol)

    @cached_property
    def _whole(self) -> frozenset[str]:
        """Columns of bars that have a number in every row."""
        grid = self._grid
        count = np.count_nonzero(self._absent)
        return frozenset(
            name
            for name, values in grid.values.items()
            # A row of the chain may have no metric, whatever the others have.
            if name not in METRICS and np.count_nonzero(np.isnan(values)) == count
        )

    @cached_property
    def _absent(self) -> Mask:
        return self._grid.row_at < 0

    @cached_property
    def _first(self) -> NDArray[np.int32]:
        """Step of each symbol's first row of all; below any when it has rows before the grid."""
        first = (~self._absent).argmax(axis=1).astype(np.int32)
        late = self._grid.symbols.filter(pl.Series(first > 0)).to_list()
        older = self._grid.symbols.is_in(list(self._older(late)) if late else []).to_numpy()
        return np.where(older, np.int32(-self._absent.shape[1]), first)[:, np.newaxis]

    def _places(self, source: _Source | Others) -> Mask:
        """Where something is not there, over the whole grid."""
        if isinstance(source, Others):
            return self._none_other(source)
        grid = self._grid
        if source.name in grid.shared:
            return np.isnan(grid.shared[source.name])
        if not source.symbol:
            return np.isnan(grid.values[source.name]) if source.name else self._absent
        at = grid.symbols.index_of(source.symbol)
        if at is None:
            return np.ones((1, grid.span.count), np.bool_)
        return self._places(_Source(source.name, ""))[at : at + 1]

    def _none_other(self, others: Others) -> Mask:
        """Where no other symbol has all that ``others`` needs."""
        if others not in self._without:
            start, shape = others.term.reach, self._absent.shape
            lacking = self._any_of(others.term, start, shape[1])
            have = np.broadcast_to(~lacking, (shape[0], lacking.shape[1]))
            count = have.sum(axis=0, dtype=np.int32)
            alone = np.zeros(shape, np.bool_)
            few = np.flatnonzero(count <= 1)
            alone[:, start + few] = count[few] - have[:, few] < 1
            self._without[others] = alone
        return self._without[others]

    def _missing(self, source: _Source | Others, steps: int, start: int, stop: int) -> Mask:
        """Where something is not there at one of ``steps`` earlier, from ``start`` to ``stop``."""
        found = []
        for newest, oldest in runs(steps):
            window = slice(start - newest, stop - newest)
            if newest == oldest:
                found.append(self._places(source)[:, window])
            else:
                found.append(self._away_from(source)[:, window] <= oldest - newest)
        return reduce(np.logical_or, found)

    def _away_from(self, source: _Source | Others) -> NDArray[np.int32]:
        """Steps since something was last not there."""
        if source not in self._away:
            missing = self._places(source)
            step = np.arange(missing.shape[1], dtype=np.int32)
            self._away[source] = np.stack([step - _newest(row) for row in missing])
        return self._away[source]

    def _reasons(self, source: _Source | Others, steps: int) -> Iterator[tuple[str, Mask]]:
        """The reasons for which something may be missing, and where it is."""
        every = (self._halo, self._grid.span.count)
        if isinstance(source, Others):
            yield OTHER_SYMBOL_MISSING, self._missing(source, steps, *every)
        elif source.name in self._grid.shared:
            yield NO_FINAL_BLOCKS, self._missing(source, steps, *every)
        elif source.name in METRICS:
            yield NOT_PUBLISHED, self._missing(source, steps, *every)
        elif not source.symbol:
            yield from self._of_bars(source, steps, self._first)
        else:
            yield from self._of_named(source, steps)

    def _of_named(self, source: _Source, steps: int) -> Iterator[tuple[str, Mask]]:
        """Another symbol's bars, which to that symbol itself are its own."""
        own = (self._grid.symbols == source.symbol).to_numpy()
        lacking = self._missing(source, steps, self._halo, self._grid.span.count)
        yield OTHER_SYMBOL_MISSING, lacking & ~own[:, np.newaxis]
        for reason, mask in self._of_bars(source, steps, self._first[own]):
            everywhere = np.zeros((len(own), mask.shape[1]), np.bool_)
            everywhere[own] = mask
            yield reason, everywhere

    def _of_bars(
        self, source: _Source, steps: int, first: NDArray[np.int32]
    ) -> Iterator[tuple[str, Mask]]:
        """A symbol's own bars: before its first one, or since."""
        step = np.arange(self._grid.span.count, dtype=np.int32)
        yield BEFORE_HISTORY, step[self._halo :] < first + (steps.bit_length() - 1)
        holes = []
        for newest, oldest in runs(steps):
            window = slice(self._halo - newest, self._grid.span.count - newest)
            away = self._away_from(source)[:, window]
            # The nearest missing bar of all is one since the first, unless none of the run is.
            holes.append((away <= oldest - newest) & (step[window] - away >= first))
        yield MISSING_BAR, reduce(np.logical_or, holes)


def _newest(missing: Mask) -> NDArray[np.int32]:
    """At each step the newest one that is missing, or one long before the first."""
    places = np.flatnonzero(missing)
    edges = np.append(places, len(missing))
    before = np.int32(-len(missing))
    return np.repeat(np.append(before, places).astype(np.int32), np.diff(edges, prepend=0))
