"""Formulas of features: terms over the columns of a regular grid, older steps reached by lags.

A term is a column, a term some steps earlier, or a function of terms at the same step; windows are
built of these alone (:mod:`~cryptoml_assets.features.windows`). There is no running state, so a
value depends on the grid from :attr:`Term.reach` steps before it up to itself, and on nothing else.

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
        across: Whether a symbol's value depends on rows of other symbols.
        digest: A text that two terms share when they are made of the same parts, in every process.
    """

    reach: int
    shared: bool
    across: bool
    digest: str

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
    """A column of the grid, of ``symbol`` when it names one, else of each symbol its own."""

    name: str
    symbol: str
    reach: int
    shared: bool
    across: bool
    digest: str


@dataclass(frozen=True, eq=False)
class Lag(Term):
    """A term some steps earlier."""

    term: Term
    steps: int
    reach: int
    shared: bool
    across: bool
    digest: str


@dataclass(frozen=True, eq=False)
class Apply(Term):
    """A function of terms and numbers at each step."""

    function: Function
    operands: tuple[Operand, ...]
    reach: int
    shared: bool
    across: bool
    digest: str


def column(name: str, *, shared: bool = False) -> Term:
    """The column ``name`` of the grid; ``shared`` when it is the same for all symbols."""
    return _column(name, "", shared=shared)


@cache
def apply(function: Function, *operands: Operand) -> Apply:
    """``function`` of ``operands``, a term among them, at each step."""
    terms = [operand for operand in operands if isinstance(operand, Term)]
    parts = [each.digest if isinstance(each, Term) else float(each).hex() for each in operands]
    return Apply(
        function,
        operands,
        reach=max(term.reach for term in terms),
        shared=all(term.shared for term in terms),
        across=function is rank_rows or any(term.across for term in terms),
        digest=_digest("apply", function.__name__, *parts),
    )


def log(term: Term) -> Term:
    """Natural logarithm."""
    return apply(np.log, term)


def sqrt(term: Term) -> Term:
    """Square root."""
    return apply(np.sqrt, term)


def sine(term: Term) -> Term:
    """Sine of an angle."""
    return apply(np.sin, term)


def cosine(term: Term) -> Term:
    """Cosine of an angle."""
    return apply(np.cos, term)


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


def rank_rows(values: Values, out: Values) -> None:
    """Ranks of :func:`cross_rank`: one row of ``values`` for each symbol, one column for a step."""
    values = np.where(np.isfinite(values), values, np.nan)
    kind = np.int8 if len(values) <= np.iinfo(np.int8).max else np.int32
    # A row's rank is half of: the rows below it, less those above, plus one more than there are.
    lead = np.zeros(values.shape, kind)
    for index, row in enumerate(values[:-1]):
        later = values[index + 1 :]
        ahead = (row <= later).view(np.int8) - (later <= row).view(np.int8)
        lead[index + 1 :] += ahead
        lead[index] -= ahead.sum(axis=0, dtype=kind)
    known = ~np.isnan(values)
    count = known.sum(axis=0, dtype=np.float64)
    np.add(lead, count + 1.0, out=out)
    out /= 2.0 * count
    out[~known | (count < 2)] = np.nan  # noqa: PLR2004


@cache
def _column(name: str, symbol: str, *, shared: bool) -> Term:
    digest = _digest("column", name, symbol)
    return Column(name, symbol, reach=0, shared=shared, across=bool(symbol), digest=digest)


@cache
def _lag(term: Term, steps: int) -> Term:
    if isinstance(term, Lag):
        return _lag(term.term, term.steps + steps)
    return Lag(
        term,
        steps,
        reach=term.reach + steps,
        shared=term.shared,
        across=term.across,
        digest=_digest("lag", str(steps), term.digest),
    )


@cache
def _of(term: Term, symbol: str) -> Term:
    if isinstance(term, Lag):
        return _of(term.term, symbol).lag(term.steps)
    if isinstance(term, Apply):
        return apply(
            term.function,
            *(_of(each, symbol) if isinstance(each, Term) else each for each in term.operands),
        )
    if isinstance(term, Column) and not term.shared:
        return _column(term.name, symbol, shared=True)
    return term


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
