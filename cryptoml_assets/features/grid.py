"""Rows of several symbols laid out by time, and feature values laid back into rows.

A grid holds one row of values for each symbol and one column for each step of time; what did not
happen is NaN. Features are computed on grids (:mod:`~cryptoml_assets.features.engine`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from itertools import pairwise

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from cryptoml_assets.days import day_start
from cryptoml_assets.errors import LakeError
from cryptoml_assets.features.engine import Store
from cryptoml_assets.features.terms import Column, Values

UTC_TIME = pl.Datetime("us", "UTC")
_DAY = timedelta(days=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

#: Rows laid out at a time: few enough for what is made of them to stay in the caches.
_PART = 50_000

#: Rows from which a slice is faster than its places one by one.
_PER_SLICE = 32


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
    runs = rows["symbol"].rle().struct.unnest()
    symbols = runs["value"].unique().sort().alias("symbol")
    order = runs["value"].cast(pl.Enum(symbols)).to_physical().cast(pl.Int64).to_numpy()
    place = np.repeat(order * span.count, runs["len"].to_numpy())
    opens = rows["open_time"].cast(UTC_TIME).to_physical().to_numpy()
    columns = {name: rows[name].cast(pl.Float64).to_numpy() for name in names}
    shape = (len(symbols), span.count)
    length = span.step // _MICROSECOND
    with ThreadPoolExecutor(pl.thread_pool_size()) as pool:
        at = pool.submit(np.full, shape, -1, np.int64)
        laid = dict(zip(names, pool.map(lambda _: np.full(shape, np.nan), names), strict=True))
        row_at = at.result()

        def scatter(begin: int) -> int:
            """Lay out a part of the rows; how many do not open on a step."""
            part = slice(begin, begin + _PART)
            since = opens[part] - span.begins[0]
            step = since // length
            if count := int(np.count_nonzero(step * length - since)):
                return count
            step += place[part]
            for rows_of, places in _moves(step, begin):
                row_at.reshape(-1)[places] = np.arange(rows_of.start, rows_of.stop)
                for name in names:
                    laid[name].reshape(-1)[places] = columns[name][rows_of]
            return 0

        off = sum(pool.map(scatter, range(0, rows.height, _PART)))
    if off:
        message = f"{off} bars do not open on a whole step of {span.step} since midnight"
        raise LakeError(message)
    if twice := rows.height - np.count_nonzero(row_at >= 0):
        message = f"{twice} bars are there more than once"
        raise LakeError(message)
    return Grid(span, symbols, row_at, laid, shared)


#: Rows, and the places that belong to them one by one.
_Moves = list[tuple[slice, slice | NDArray[np.int64]]]


def _moves(places: NDArray[np.int64], begin: int) -> _Moves:
    """Rows from ``begin`` on and their places: slices where these mostly follow each other."""
    if not len(places):
        return []
    jumps = np.flatnonzero(np.diff(places) != 1) + 1
    if len(jumps) * _PER_SLICE > len(places):
        return [(slice(begin, begin + len(places)), places)]
    edges = [0, *jumps.tolist(), len(places)]
    return [
        (slice(begin + first, begin + end), slice(int(to), int(to) + end - first))
        for (first, end), to in zip(pairwise(edges), places[edges[:-1]], strict=True)
    ]


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
        self._first = np.searchsorted(symbol, np.arange(len(wanted)))
        self._picks: dict[int, list[_Moves]] = {}

    def collect(self, count: int, fill: Callable[[Store], None]) -> list[pl.Series]:
        """``count`` columns of values, from a function that hands over each block of them.

        What is not finite is null.
        """
        # One piece of memory: pages of a large one cost less.
        columns = np.empty((count, self.height))
        masks = [_Mask(self.height) for _ in range(count)]

        def store(index: int, begin: int, values: Values) -> None:
            column, mask = columns[index], masks[index]
            picks = self._pick(begin, values.shape[1])
            for row, moves in zip(
                np.broadcast_to(values, (len(picks), values.shape[1])), picks, strict=True
            ):
                for target, chosen in moves:
                    # Only "clip" writes straight into the column; the places are all there.
                    if isinstance(chosen, slice):
                        column[target] = row[chosen]
                    else:
                        np.take(row, chosen, out=column[target], mode="clip")
                if moves:
                    mask.set(moves[0][0].start, column[moves[0][0].start : moves[-1][0].stop])

        fill(store)
        return [mask.series(values) for mask, values in zip(masks, columns, strict=True)]

    def _pick(self, begin: int, width: int) -> list[_Moves]:
        if begin not in self._picks:
            picks = []
            for wanted, first in zip(self._wanted, self._first, strict=True):
                start = int(first) + int(np.count_nonzero(wanted[:begin]))
                picks.append(_moves(np.flatnonzero(wanted[begin : begin + width]), start))
            self._picks[begin] = picks
        return self._picks[begin]


class _Mask:
    """Which values of a column are there, as Arrow has it: a bit for each, the first the lowest."""

    def __init__(self, height: int) -> None:
        self._bits = np.zeros(-(-height // 8), np.uint8)
        self._lock = threading.Lock()

    def set(self, first: int, values: Values) -> None:
        """Take note of ``values``, those from row ``first`` on; end bytes may be shared."""
        lead = first % 8
        there = np.zeros(lead + len(values), np.bool_)
        np.isfinite(values, out=there[lead:])
        bits = np.packbits(there, bitorder="little")
        with self._lock:
            self._bits[first // 8 : first // 8 + len(bits)] |= bits

    def series(self, values: Values) -> pl.Series:
        """A column over the memory of ``values``."""
        nulls = len(values) - int(np.bitwise_count(self._bits).sum(dtype=np.int64))
        buffers = [pa.py_buffer(self._bits) if nulls else None, pa.py_buffer(values)]
        return pl.Series(pa.Array.from_buffers(pa.float64(), len(values), buffers, nulls))
