"""Why values are null, found the slow way: every formula walked over what is there."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryptoml_assets.features.feature import METRICS
from cryptoml_assets.features.grid import Grid
from cryptoml_assets.features.reasons import (
    BEFORE_HISTORY,
    MISSING_BAR,
    NO_FINAL_BLOCKS,
    NOT_PUBLISHED,
    OTHER_SYMBOL_MISSING,
)
from cryptoml_assets.features.terms import Apply, Column, Lag, Term, rank_rows

KINDS = (BEFORE_HISTORY, MISSING_BAR, OTHER_SYMBOL_MISSING, NOT_PUBLISHED, NO_FINAL_BLOCKS)
Places = NDArray[np.bool_]


class Walk:
    """Steps at which a term of a symbol lacks something, of one kind at a time."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._known: dict[tuple[Term, str, str], Places] = {}

    def lacks(self, term: Term, symbol: str, kind: str) -> Places:
        key = (term, symbol, kind)
        if key not in self._known:
            self._known[key] = self._walk(term, symbol, kind)
        return self._known[key]

    def lacks_any(self, term: Term, symbol: str) -> Places:
        return np.any([self.lacks(term, symbol, kind) for kind in KINDS], axis=0)

    def _walk(self, term: Term, symbol: str, kind: str) -> Places:
        if isinstance(term, Column):
            return self._column(term, symbol, kind)
        if isinstance(term, Lag):
            now = self.lacks(term.term, symbol, kind)
            before = np.zeros_like(now)
            before[term.steps :] = now[: len(now) - term.steps]
            return before
        assert isinstance(term, Apply)
        operands = [each for each in term.operands if isinstance(each, Term)]
        found = np.any([self.lacks(each, symbol, kind) for each in operands], axis=0)
        if term.function is rank_rows and kind == OTHER_SYMBOL_MISSING:
            others = [each for each in self._grid.symbols if each != symbol]
            have = [~self.lacks_any(operands[0], each) for each in others]
            found |= ~np.any(have, axis=0) if have else True
        return found

    def _column(self, column: Column, symbol: str, kind: str) -> Places:
        grid = self._grid
        none = np.zeros(grid.span.count, np.bool_)
        if column.name in grid.shared:
            missing = np.isnan(grid.shared[column.name][0])
            return missing if kind == NO_FINAL_BLOCKS else none
        of = column.symbol or symbol
        if of not in grid.symbols:
            return ~none if kind == OTHER_SYMBOL_MISSING else none
        row = grid.symbols.to_list().index(of)
        missing = np.isnan(grid.values[column.name][row])
        before = np.arange(grid.span.count) < (grid.row_at[row] >= 0).argmax()
        if column.name in METRICS:
            return missing if kind == NOT_PUBLISHED else none
        if of != symbol:
            return missing if kind == OTHER_SYMBOL_MISSING else none
        return {BEFORE_HISTORY: missing & before, MISSING_BAR: missing & ~before}.get(kind, none)
