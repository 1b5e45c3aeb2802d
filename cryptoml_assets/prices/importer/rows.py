"""The rows of a file as times and figures, and whether its columns say what the times are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from cryptoml_assets.errors import RecordingError
from cryptoml_assets.prices.bars import PRICES
from cryptoml_assets.prices.importer.columns import FIGURES, Columns, pick_columns, symbol_column
from cryptoml_assets.prices.importer.files import Form, Recording
from cryptoml_assets.prices.importer.notes import Answers, Notes, listed, refuse_rows
from cryptoml_assets.prices.importer.times import Times, in_zone, read_times

Stamp = Literal["open", "close"]


@dataclass(frozen=True)
class Rows:
    """Rows of a file.

    Attributes:
        frame: ``row``, counted from 1, ``time``, ``other`` and the figures; ``other`` is the close
            time where ``time`` is the open time and the file has both, else null.
        stamp: whether ``time`` opens or closes the bar, where format or columns say so.
        why: what says so.
        zoned: whether the times are UTC instants; else they are local to a zone that is asked for.
    """

    frame: pl.DataFrame
    stamp: Stamp | None
    why: str
    zoned: bool


def read_rows(recording: Recording, base: str | None, answers: Answers, notes: Notes) -> Rows:
    """The rows of ``recording``.

    Args:
        recording: the file.
        base: base currency of the symbol, if it is known.
        answers: what the file's owner says.
        notes: gets each decision and question.

    Raises:
        RecordingError: an absent column, or rows that hold no bar, each named.
    """
    table = recording.table
    if table.is_empty():
        raise RecordingError("the file holds no rows")
    columns = pick_columns(table, base)
    used, times = _times(table, columns)
    read = {*used, *columns.figures.values(), symbol_column(table)}
    junk = [name for name in table.columns if name not in read]
    if junk:
        notes.decide(f"left out: column {listed(junk)}", "holds nothing of a bar by its name")
    notes.decide(f"times from column {used[0]}", times[0].how)
    zone = _zone(recording, times, answers, notes)
    values = [each.values if zone is None else in_zone(each, zone) for each in times]
    other = (
        values[1] if len(values) > 1 else pl.Series([None] * table.height, dtype=values[0].dtype)
    )
    figures = (_figure(table, column).alias(name) for name, column in columns.figures.items())
    frame = table.select(figures).select(
        pl.int_range(1, pl.len() + 1).alias("row"),
        values[0].alias("time"),
        other.alias("other"),
        *FIGURES,
    )
    _refuse_impossible(frame)
    stamp, why = _said_stamp(recording, columns)
    return Rows(frame, stamp, why, values[0].dtype == pl.Datetime("us", "UTC"))


def _times(table: pl.DataFrame, columns: Columns) -> tuple[list[str], list[Times]]:
    """The columns to take times from, and the times: of the opening first, where there are two."""
    if columns.opens or columns.closes:
        names = [name for name in (columns.opens, columns.closes) if name]
        return names, [read_times(table[name]) for name in names]
    read = {name: read_times(table[name]) for name in columns.times}
    instants = [name for name, times in read.items() if times.zoned]
    for name in instants[1:]:
        if not read[name].values.equals(read[instants[0]].values):
            raise RecordingError(f"columns {instants[0]} and {name} hold different times")
    used = (instants or list(read))[0]
    # A local time beside an instant says nothing more.
    return [used, *(name for name in instants if name != used)], [read[used]]


def _zone(
    recording: Recording, times: Sequence[Times], answers: Answers, notes: Notes
) -> str | None:
    """The zone of local times; none where there are none, or where it has to be asked."""
    if all(each.zoned for each in times):
        return None
    if recording.form is not Form.PLAIN:
        notes.decide("times are UTC", f"{recording.form} writes no others")
        return "UTC"
    if answers.zone is None:
        notes.ask(f"the times are {times[0].how}: in which zone?", "--zone UTC")
        return None
    notes.decide(f"times are of zone {answers.zone}", "--zone")
    return answers.zone


def _said_stamp(recording: Recording, columns: Columns) -> tuple[Stamp | None, str]:
    if recording.form is not Form.PLAIN:
        return "open", f"{recording.form} stamps bars so"
    if columns.opens:
        return "open", f"column {columns.opens}"
    if columns.closes:
        return "close", f"column {columns.closes}"
    return None, ""


def _figure(table: pl.DataFrame, column: str) -> pl.Expr:
    text = table.schema[column] == pl.String
    value = pl.col(column).str.strip_chars() if text else pl.col(column)
    return value.cast(pl.Float64, strict=False)


def _refuse_impossible(frame: pl.DataFrame) -> None:
    prices, volume = [pl.col(name) for name in PRICES], pl.col("volume")
    high, low = pl.col("high"), pl.col("low")
    rules = {
        "no number": [figure.is_finite() for figure in (*prices, volume)],
        "a price that is not positive": [price > 0 for price in prices],
        "a negative volume": [volume >= 0],
        "high or low between the other prices": [
            high >= pl.max_horizontal("open", "close", "low"),
            low <= pl.min_horizontal("open", "close"),
        ],
    }
    for what, kept in rules.items():
        sound = pl.all_horizontal(rule.fill_null(value=False) for rule in kept)
        refuse_rows(frame.filter(~sound).select("row", "time", *FIGURES), what)
