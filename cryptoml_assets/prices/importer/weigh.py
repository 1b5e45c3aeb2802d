"""Bars of a file against those stored: what is new, what is the same, what differs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import polars as pl

from cryptoml_assets.errors import RecordingError
from cryptoml_assets.prices import quality
from cryptoml_assets.prices.importer.columns import FIGURES
from cryptoml_assets.prices.importer.shape import Shaped
from cryptoml_assets.prices.ledger import MISSING
from cryptoml_assets.prices.outliers import Returns

_ON = ("venue", "symbol", "timeframe", "open_time")
_SHOWN = 3


@dataclass(frozen=True)
class Weighed:
    """What an import of one file would do.

    Attributes:
        new: bars to store.
        equal: bars that are stored with the same figures.
        other: bars that are stored with other figures, which stay: the columns of ``raw_prices``
            and those of the stored bar with the ending ``_stored``.
        filled: new bars in slots of which the venue said that it has none.
        absent: slots without a row between the first bar of the file and its last.
        longest: the longest of those ranges, in slots.
        outliers: returns far from the rest, as ``Returns.outliers`` gives them.
    """

    new: pl.DataFrame
    equal: int
    other: pl.DataFrame
    filled: int
    absent: int
    longest: int
    outliers: pl.DataFrame

    @property
    def differences(self) -> str:
        """The first bars whose figures differ from the stored ones."""
        shown = []
        for row in self.other.head(_SHOWN).to_dicts():
            figures = [f for f in FIGURES if row[f] != row[f"{f}_stored"]]
            pairs = (f"{f} {row[f]}, stored {row[f'{f}_stored']}" for f in figures)
            shown.append(f"{row['open_time']:%Y-%m-%d %H:%M} {'; '.join(pairs)}")
        return " / ".join(shown)


def weigh(shaped: Shaped, ledger: pl.DataFrame, bar: timedelta, iqrs: float) -> Weighed:
    """Hold the bars of a file against the checks of ``raw_prices`` and against what is stored.

    Args:
        shaped: the file's bars and the stored ones.
        ledger: rows of ``price_ledger`` for the same days.
        bar: length of a bar.
        iqrs: distance past which a return is an outlier.

    Raises:
        RecordingError: bars that a blocking check of ``raw_prices`` would stop.
    """
    bars = shaped.bars
    _check(bars)
    known = bars.join(shaped.stored, on=_ON, suffix="_stored")
    same = pl.all_horizontal(pl.col(f) == pl.col(f"{f}_stored") for f in FIGURES)
    new = bars.join(shaped.stored, on=_ON, how="anti")
    steps = bars["open_time"].diff().drop_nulls().dt.total_microseconds()
    holes = steps // (bar // timedelta(microseconds=1)) - 1
    returns = Returns()
    returns.add(bars)
    return Weighed(
        new=new,
        equal=known.filter(same).height,
        other=known.filter(~same),
        filled=_filled(new, ledger),
        absent=int(holes.sum()),
        longest=int(holes.max() or 0),  # type: ignore[arg-type]
        outliers=returns.outliers(iqrs),
    )


def _check(bars: pl.DataFrame) -> None:
    problems = quality.schema_problems(bars.schema)
    rules = (quality.duplicate_keys, quality.broken_bars, quality.untimely_bars)
    problems += [f"{rule.__name__} {rows.row(0)}" for rule in rules if (rows := rule(bars)).height]
    if problems:
        raise RecordingError(f"not fit for raw_prices: {'; '.join(problems)}")


def _filled(new: pl.DataFrame, ledger: pl.DataFrame) -> int:
    """How many of ``new`` open in a range that ``ledger`` calls missing."""
    series = _ON[:-1]
    missing = ledger.filter(pl.col("status") == MISSING).select(*series, "start", "end")
    placed = new.sort("open_time").join_asof(
        missing.sort("start"),
        left_on="open_time",
        right_on="start",
        by=series,
        check_sortedness=False,
    )
    return placed.filter(pl.col("open_time") < pl.col("end")).height
