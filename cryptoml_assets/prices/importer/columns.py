"""Which columns of a file hold times and figures, by their names; the others are junk."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from cryptoml_assets.errors import RecordingError
from cryptoml_assets.prices.importer.notes import listed

#: Figures that a file must have.
FIGURES = ("open", "high", "low", "close", "volume")
_ALIASES = {
    "open": ("open", "o", "openprice", "priceopen"),
    "high": ("high", "h", "highprice", "pricehigh"),
    "low": ("low", "l", "lowprice", "pricelow"),
    "close": ("close", "c", "closeprice", "priceclose"),
    "volume": ("volume", "vol", "v", "basevolume", "volumebase"),
}
_OPENS = ("opentime", "timeopen", "opentimestamp", "timestampopen", "starttime", "timestart")
_CLOSES = ("closetime", "timeclose", "closetimestamp", "timestampclose", "endtime", "timeend")
_TIMES = ("timestamp", "time", "ts", "t", "unix", "unixtimestamp", "unixtime", "epoch")
_DATES = ("datetime", "date")
_SYMBOLS = ("symbol", "pair", "ticker", "market")


@dataclass(frozen=True)
class Columns:
    """Names of the columns that are read.

    Attributes:
        opens: time at which the bar opens, by the column's name.
        closes: time at which it closes, by the column's name.
        times: times whose names do not say which of both they are, the preferred first.
        figures: column of each figure.
    """

    opens: str | None
    closes: str | None
    times: tuple[str, ...]
    figures: dict[str, str]


def is_figure(names: Sequence[str], figure: str) -> bool:
    """Whether one of ``names`` stands for ``figure``."""
    return any(_plain(name) in _ALIASES[figure] for name in names)


def symbol_column(table: pl.DataFrame) -> str | None:
    """The column of ``table`` that names the symbol of each row."""
    return _only(table, _SYMBOLS)


def pick_columns(table: pl.DataFrame, base: str | None) -> Columns:
    """Which columns of ``table`` to read.

    Args:
        table: the file's columns.
        base: base currency of the symbol, by which one of several volumes is told; while it is not
            known, any of them stands for all.

    Raises:
        RecordingError: a figure or the time is absent, or there twice with different content.
    """
    figures = {name: _only(table, aliases) for name, aliases in _ALIASES.items()}
    if figures["volume"] is None:
        figures["volume"] = _volume(table, base)
    times = tuple(filter(None, (_only(table, (name,)) for name in (*_TIMES, *_DATES))))
    opens, closes = _only(table, _OPENS), _only(table, _CLOSES)
    found = {name: column for name, column in figures.items() if column is not None}
    absent = [name for name in FIGURES if name not in found]
    if not (times or opens or closes):
        absent.append("a time")
    if absent:
        raise RecordingError(
            f"no column for {', '.join(absent)}; the file has {listed(table.columns)}"
        )
    return Columns(opens, closes, times, found)


def _volume(table: pl.DataFrame, base: str | None) -> str | None:
    """The column of amounts in ``base``, named after it."""
    if base is None:
        named = (name for name in table.columns if re.match(r"vol(ume)?[a-z]", _plain(name)))
        return next(named, None)
    return _only(table, (f"volume{base.lower()}", f"vol{base.lower()}"))


def _only(table: pl.DataFrame, aliases: Sequence[str]) -> str | None:
    """The column that goes by the first of ``aliases`` there is."""
    for alias in aliases:
        names = [name for name in table.columns if _plain(name) == alias]
        if any(not table[name].equals(table[names[0]]) for name in names[1:]):
            raise RecordingError(f"columns {' and '.join(names)} hold different figures")
        if names:
            return names[0]
    return None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9.]", "", name.lower())
