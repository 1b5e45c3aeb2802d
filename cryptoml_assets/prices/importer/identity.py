"""Whose bars a file holds: venue and symbol."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from cryptoml_assets.errors import RecordingError
from cryptoml_assets.prices.importer.columns import symbol_column
from cryptoml_assets.prices.importer.files import Form, Recording
from cryptoml_assets.prices.importer.notes import Answers, Notes

_PAIR = re.compile(r"[A-Z0-9]+/[A-Z0-9]+")
_VISION_VENUE = "binance"


@dataclass(frozen=True)
class Identity:
    """Venue and symbol of a file; ``symbol`` is none while it has to be asked."""

    venue: str
    symbol: str | None

    @property
    def base(self) -> str | None:
        """Base currency of the symbol."""
        return None if self.symbol is None else self.symbol.partition("/")[0]


def identify(
    recording: Recording, answers: Answers, venue: str, symbols: Sequence[str], notes: Notes
) -> Identity:
    """Venue and symbol of ``recording``.

    Args:
        recording: the file.
        answers: what its owner says.
        venue: the venue of the settings.
        symbols: the symbols of the settings, by which a name without a slash is understood.
        notes: gets each decision, or the question.

    Raises:
        RecordingError: an answer that contradicts the file.
    """
    return Identity(
        _venue(recording, answers, venue, notes), _symbol(recording, answers, symbols, notes)
    )


def _venue(recording: Recording, answers: Answers, venue: str, notes: Notes) -> str:
    if recording.form is Form.VISION:
        if answers.venue not in (None, _VISION_VENUE):
            raise RecordingError(f"--venue {answers.venue}: {recording.form} files are of binance")
        notes.decide(f"venue {_VISION_VENUE}", f"{recording.form} publishes no other")
        return _VISION_VENUE
    if answers.venue is not None:
        notes.decide(f"venue {answers.venue}", "--venue")
        return answers.venue
    notes.decide(f"venue {venue}", "CRYPTOML_VENUE, since the file names none")
    return venue


def _symbol(
    recording: Recording, answers: Answers, symbols: Sequence[str], notes: Notes
) -> str | None:
    asked = answers.symbol
    if asked is not None and not _PAIR.fullmatch(asked):
        raise RecordingError(f"--symbol {asked}: expected base and quote like BTC/USDT")
    said, where = recording.pair or recording.ticker, "the file name"
    if said is None:
        said, where = _column_symbol(recording.table), "its own column"
    if said is None:
        if asked is None:
            notes.ask("which symbol is it?", "--symbol BASE/QUOTE")
        else:
            notes.decide(f"symbol {asked}", "--symbol")
        return asked
    pair = re.sub(r"[-_]", "/", said.upper())
    if "/" not in pair:
        named = [s for s in (*symbols, *filter(None, [asked])) if s.replace("/", "") == pair]
        if not named and asked is None:
            notes.ask(f"which symbol is {said}?", "--symbol BASE/QUOTE")
            return None
        pair = (named or [pair])[-1]
    if asked not in (None, pair):
        raise RecordingError(f"--symbol {asked}: {where} says {said}")
    notes.decide(f"symbol {pair}", f"{where} says {said}")
    return pair


def _column_symbol(table: pl.DataFrame) -> str | None:
    column = symbol_column(table)
    if column is None or table[column].dtype != pl.String:
        return None
    found = table[column].drop_nulls().unique().sort().to_list()
    if len(found) > 1:
        raise RecordingError(
            f"column {column} holds {len(found)} symbols ({found[0]}, {found[1]} …): "
            "expected one symbol a file"
        )
    return str(found[0]).strip() if found else None
