"""Where in a venue's row each figure of a bar stands, to read whole pages as ccxt reads one row.

ccxt reads bars row by row, which is most of what a backfill spends its time on. Where it does no
more than pick places of a list, that is learnt from how it reads a row of known numbers, and held
against its own reading of the first and last row of every page. Everything else is left to ccxt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ccxt
import numpy as np
import numpy.typing as npt
import polars as pl

_SECOND = 1000
#: A number that no place of a row shares with another, nor with a thousand times another.
_BASE = 1_000_003

Parse = Callable[[Any], Sequence[Any]]


@dataclass(frozen=True)
class Layout:
    """Places of time and figures in a row, and the milliseconds in the row's unit of time."""

    places: tuple[int, ...]
    unit: int

    def read(self, rows: Sequence[Sequence[Any]]) -> npt.NDArray[np.float64] | None:
        """``rows`` as numbers, one bar a row; none where they are no numbers or of any length."""
        try:
            columns = list(zip(*rows, strict=True))
            read = np.column_stack([_numbers(columns[place]) for place in self.places])
        except (IndexError, TypeError, ValueError, pl.exceptions.PolarsError):
            return None
        read[:, 0] *= self.unit
        return read


def learn_layout(parse: Parse, width: int) -> Layout | None:
    """How ``parse`` reads a row of ``width`` places; none where it does more than to pick them."""
    probe = [_BASE + place for place in range(width)]
    try:
        time, *figures = parse(probe)
        unit = 1 if time in probe else _SECOND
        places = tuple(probe.index(value) for value in (time // unit, *figures))
    except (ccxt.BaseError, KeyError, IndexError, TypeError, ValueError):
        return None
    return Layout(places, unit)


def read_page(
    parse: Parse, rows: Sequence[Any], layout: Layout | None
) -> npt.NDArray[np.float64] | None:
    """``rows`` by ``layout``; none unless ``parse`` reads the first and the last one the same."""
    if layout is None:
        return None
    read = layout.read(rows)
    if read is None:
        return None
    parsed = np.array([parse(rows[0]), parse(rows[-1])], dtype=np.float64)
    return read if np.array_equal(read[[0, -1]], parsed, equal_nan=True) else None


def _numbers(column: tuple[Any, ...]) -> npt.NDArray[np.float64]:
    """The numbers of ``column``, given as numbers or all as texts."""
    if isinstance(column[0], str):
        return pl.Series(column, dtype=pl.String).cast(pl.Float64).to_numpy()
    if not isinstance(column[0], int | float):
        message = f"{column[0]!r} is no number"
        raise TypeError(message)
    return np.array(column, dtype=np.float64)
