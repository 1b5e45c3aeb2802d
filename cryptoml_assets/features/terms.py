"""Formulas of features: terms over the columns of a regular grid, older steps reached by lags.

A term is a column, a term some steps earlier, or a function of terms at the same step; windows are
built of these alone (:mod:`~cryptoml_assets.features.windows`). There is no running state, so a
value depends on the grid between :attr:`Term.reach` steps before it and itself, and on nothing else.

Equal terms are the same object, so whatever two features have in common is computed once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

#: Works at each step alone, as ``function(*operands, out=...)``, where ``out`` may be one of the
#: operands; numpy's ufuncs do.
Function = Callable[..., Any]


class Term:
    """A quantity at each step of the grid; missing (NaN) where anything it needs is missing.

    Attributes:
        reach: Steps before the newest one that a value needs (0: the newest step alone).
        shared: Whether all symbols have the same value.
    """

    reach: int
    shared: bool

    def __add__(self, other: Operand) -> Term:
        return apply(np.add, self, other)

    def __radd__(self, other: float) -> Term:
        return apply(np.add, other, self)

    def __sub__(self, other: Operand) -> Term:
        return apply(np.subtract, self, other)

    def __rsub__(self, other: float) -> Term:
        return apply(np.subtract, other, self)

    def __mul__(self, other: Operand) -> Term:
        return apply(np.multiply, self, other)

    def __rmul__(self, other: float) -> Term:
        return apply(np.multiply, other, self)

    def __truediv__(self, other: Operand) -> Term:
        return apply(np.divide, self, other)

    def __rtruediv__(self, other: float) -> Term:
        return apply(np.divide, other, self)

    def lag(self, steps: int) -> Term:
        """The same quantity ``steps`` steps earlier.

        Raises:
            ValueError: it would be a later one.
        """
        if steps < 0:
            raise ValueError(f"a lag of {steps} steps looks ahead; accepted are 0 and more")
        return _lag(self, steps) if steps else self

    def of(self, symbol: str) -> Term:
        """The same quantity of ``symbol``, at every symbol; missing where it has no row."""
        return _of(self, symbol)


Operand = Term | float


@dataclass(frozen=True, eq=False)
class Column(Term):
    """A column of the grid.

    Attributes:
        name: What it holds.
        symbol: Whose; at each symbol its own when empty.
        shared: Whether the grid has it once for all symbols.
        reach: None.
    """

    name: str
    symbol: str
    shared: bool
    reach: int = 0


@dataclass(frozen=True, eq=False)
class Lag(Term):
    """A term some steps earlier."""

    term: Term
    steps: int

    @property
    def reach(self) -> int:  # type: ignore[override]
        """Steps before the newest one that a value needs."""
        return self.term.reach + self.steps

    @property
    def shared(self) -> bool:  # type: ignore[override]
        """Whether all symbols have the same value."""
        return self.term.shared


@dataclass(frozen=True, eq=False)
class Apply(Term):
    """A function of terms and numbers at each step."""

    function: Function
    operands: tuple[Operand, ...]
    reach: int
    shared: bool


@cache
def column(name: str, *, shared: bool = False) -> Term:
    """The column ``name`` of the grid; ``shared`` when it is the same for all symbols."""
    return Column(name, "", shared)


@cache
def apply(function: Function, *operands: Operand) -> Term:
    """``function`` of ``operands`` at each step."""
    terms = [operand for operand in operands if isinstance(operand, Term)]
    return Apply(
        function,
        operands,
        max(term.reach for term in terms),
        all(term.shared for term in terms),
    )


def log(term: Term) -> Term:
    """Natural logarithm."""
    return apply(np.log, term)


def sqrt(term: Term) -> Term:
    """Square root."""
    return apply(np.sqrt, term)


def larger(left: Operand, right: Operand) -> Term:
    """The larger of two; missing where one is."""
    return apply(np.maximum, left, right)


def smaller(left: Operand, right: Operand) -> Term:
    """The smaller of two; missing where one is."""
    return apply(np.minimum, left, right)


def cross_rank(term: Term) -> Term:
    """Rank among the symbols that have a value at the same step, over their number.

    Equal values share the mean of their ranks, so the answer lies in (0, 1]. Missing where fewer
    than two symbols have a value.
    """
    return apply(rank_rows, term)


def columns_of(terms: Iterable[Term]) -> tuple[Column, ...]:
    """Every column that ``terms`` are made of, each once."""
    found: dict[Term, None] = {}
    ahead = list(terms)
    while ahead:
        term = ahead.pop()
        if term in found:
            continue
        found[term] = None
        if isinstance(term, Lag):
            ahead.append(term.term)
        elif isinstance(term, Apply):
            ahead += [operand for operand in term.operands if isinstance(operand, Term)]
    return tuple(term for term in found if isinstance(term, Column))


@cache
def digest(term: Term) -> str:
    """A text that two terms share when they are made of the same parts, in every process."""
    if isinstance(term, Column):
        parts = ["column", term.name, term.symbol]
    elif isinstance(term, Lag):
        parts = ["lag", str(term.steps), digest(term.term)]
    else:
        assert isinstance(term, Apply)
        parts = ["apply", term.function.__name__]
        parts += [
            digest(each) if isinstance(each, Term) else float(each).hex() for each in term.operands
        ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def looks_across(term: Term) -> bool:
    """Whether a symbol's value depends on the rows of other symbols."""
    if isinstance(term, Column):
        return bool(term.symbol)
    if isinstance(term, Lag):
        return looks_across(term.term)
    return _across(term)


def rank_rows(values: Values, out: Values) -> None:
    """Ranks of :func:`cross_rank`: one row of ``values`` for each symbol, one column for a step."""
    below = np.zeros(values.shape, np.int32)
    for row in values:
        below += row < values
        below += row <= values
    known = np.isfinite(values)
    count = known.sum(axis=0, dtype=np.int32)
    # Twice the mean rank is the number below, plus the number not above, plus one.
    np.divide(below + 1, 2 * count, out=out)
    out[~known | (count < 2)] = np.nan  # noqa: PLR2004


@cache
def _lag(term: Term, steps: int) -> Term:
    return _lag(term.term, term.steps + steps) if isinstance(term, Lag) else Lag(term, steps)


@cache
def _of(term: Term, symbol: str) -> Term:
    if isinstance(term, Column):
        return term if term.shared else _column_of(term.name, symbol)
    if isinstance(term, Lag):
        return _of(term.term, symbol).lag(term.steps)
    assert isinstance(term, Apply)
    operands = (
        _of(operand, symbol) if isinstance(operand, Term) else operand for operand in term.operands
    )
    return apply(term.function, *operands)


@cache
def _column_of(name: str, symbol: str) -> Term:
    return Column(name, symbol, shared=True)


@cache
def _across(term: Term) -> bool:
    assert isinstance(term, Apply)
    return term.function is rank_rows or any(
        looks_across(operand) for operand in term.operands if isinstance(operand, Term)
    )
