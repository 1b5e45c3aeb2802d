"""Rows of several symbols laid out by time, and feature values laid back into rows.

A grid holds one row of values for each symbol and one column for each step of time; what did not
happen is NaN. Features are computed on grids (:mod:`~cryptoml_assets.features.engine`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import TypeVar

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from cryptoml_assets.days import day_start
from cryptoml_assets.errors import LakeError
from cryptoml_assets.features.engine import Store
from cryptoml_assets.features.terms import Column, Values

Number = TypeVar("Number", np.float64, np.int64)

UTC_TIME = pl.Datetime("us", "UTC")
_DAY = timedelta(days=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class Span:
    """Steps of time: ``count`` of ``step`` each, the first beginning at ``start``."""

    start: datetime
    step: timedelta
    count: int

    @classmethod
    def of_days(cls, days: Sequence[date], step: timedelta, halo: int) -> Span:
        """From ``halo`` steps before the first of ``days`` to the end of the last."""
        start = day_start(min(days)) - halo * step
        return cls(start, step, (day_start(max(days)) + _DAY - start) // step)

    @cached_property
    def begins(self) -> NDArray[np.int64]:
        """Begin of each step, in microseconds since 1970."""
        first = (self.start - _EPOCH) // _MICROSECOND
        return first + np.arange(self.count) * (self.step // _MICROSECOND)

    def days(self) -> NDArray[np.int64]:
        """UTC day each step begins on, in days since 1970."""
        return self.begins // (_DAY // _MICROSECOND)


@dataclass(frozen=True)
class Grid:
    """Columns of numbers by symbol and step.

    Attributes:
        span: The steps.
        symbols: The symbols, sorted.
        row_at: For each symbol and step the row it was made of, -1 where there is none.
        values: Each column by name, symbols by steps.
        shared: Each column that is the same for all symbols, one row of steps.
    """

    span: Span
    symbols: pl.Series
    row_at: NDArray[np.int64]
    values: dict[str, Values]
    shared: dict[str, Values]

    def __getitem__(self, column: Column) -> Values:
        """What a term's column stands for; all missing for a symbol that is not there."""
        if column.name in self.shared:
            return self.shared[column.name]
        values = self.values[column.name]
        if not column.symbol:
            return values
        at = self.symbols.index_of(column.symbol)
        return np.full((1, self.span.count), np.nan) if at is None else values[at : at + 1]


def lay_out(
    rows: pl.DataFrame,
    span: Span,
    names: Sequence[str],
    shared: dict[str, Values],
) -> Grid:
    """The grid of ``rows``, which hold ``symbol``, ``open_time`` within the span, and ``names``.

    Raises:
        LakeError: two rows of a symbol for one step, or one that begins within a step.
    """
    length = span.step // _MICROSECOND
    since = rows["open_time"].cast(UTC_TIME).to_physical().to_numpy() - span.begins[:1]
    step = since // length
    if count := np.count_nonzero(step * length - since):
        message = f"{count} bars do not open on a whole step of {span.step} since midnight"
        raise LakeError(message)
    runs = rows["symbol"].rle().struct.unnest()
    symbols = runs["value"].unique().sort().alias("symbol")
    order = runs["value"].cast(pl.Enum(symbols)).to_physical().cast(pl.Int64).to_numpy()
    place = np.repeat(order * span.count, runs["len"].to_numpy()) + step
    shape = (len(symbols), span.count)
    row_at = _scattered(np.arange(rows.height), place, shape, -1)
    if twice := rows.height - np.count_nonzero(row_at >= 0):
        message = f"{twice} bars are there more than once"
        raise LakeError(message)
    values = {
        name: _scattered(rows[name].cast(pl.Float64).to_numpy(), place, shape, np.nan)
        for name in names
    }
    return Grid(span, symbols, row_at, values, shared)


#: The rows that a block fills for one symbol, and the steps they come from; none for all.
_Pick = tuple[slice, NDArray[np.intp] | None]


class Rows:
    """The wanted places of a grid as rows, one symbol after the other, oldest first.

    Attributes:
        places: Symbol and step of each row.
        height: Number of rows.
    """

    def __init__(self, wanted: NDArray[np.bool_], halo: int) -> None:
        """Arguments are the wanted symbols and steps of a grid, and the steps before the first."""
        self._wanted = wanted[:, halo:]
        symbol, step = np.nonzero(wanted)
        self.places: tuple[NDArray[np.intp], NDArray[np.intp]] = (symbol, step)
        self.height = len(symbol)
        before = np.cumsum(self._wanted.sum(axis=1)) - self._wanted.sum(axis=1)
        inside = np.cumsum(self._wanted, axis=1, dtype=np.int64) - self._wanted
        self._row = inside + before[:, np.newaxis]
        self._picks: dict[int, list[_Pick]] = {}

    def collect(self, count: int, fill: Callable[[Store], None]) -> list[pl.Series]:
        """``count`` columns of values, from a function that hands over each block of them.

        What is not finite is null.
        """
        columns = [np.empty(self.height) for _ in range(count)]
        finite = np.empty((count, self.height), np.bool_)

        def store(index: int, begin: int, values: Values) -> None:
            picks = self._pick(begin, values.shape[1])
            for row, (target, chosen) in zip(
                np.broadcast_to(values, (len(picks), values.shape[1])), picks, strict=True
            ):
                column = columns[index][target]
                if chosen is None:
                    column[:] = row
                else:
                    # Only "clip" writes straight into the column; the places are all there.
                    np.take(row, chosen, out=column, mode="clip")
                np.isfinite(column, out=finite[index][target])

        fill(store)
        with ThreadPoolExecutor(pl.thread_pool_size()) as pool:
            return list(pool.map(_series, columns, finite))

    def _pick(self, begin: int, width: int) -> list[_Pick]:
        if begin not in self._picks:
            picks: list[_Pick] = []
            for symbol, wanted in enumerate(self._wanted[:, begin : begin + width]):
                chosen = np.flatnonzero(wanted)
                first = int(self._row[symbol, begin])
                whole = len(chosen) == width
                picks.append((slice(first, first + len(chosen)), None if whole else chosen))
            self._picks[begin] = picks
        return self._picks[begin]


def _scattered(
    values: NDArray[Number], place: NDArray[np.int64], shape: tuple[int, int], empty: float
) -> NDArray[Number]:
    laid = np.full(shape, empty, values.dtype)
    laid.reshape(-1)[place] = values
    return laid


def _series(values: Values, finite: NDArray[np.bool_]) -> pl.Series:
    """A column over the memory of ``values``, null where they are not finite."""
    nulls = len(values) - np.count_nonzero(finite)
    mask = pa.py_buffer(np.packbits(finite, bitorder="little")) if nulls else None
    buffers = [mask, pa.py_buffer(values)]
    return pl.Series(pa.Array.from_buffers(pa.float64(), len(values), buffers, nulls))
