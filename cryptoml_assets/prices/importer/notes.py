"""What is decided about a file, why, and what only its owner can say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import polars as pl

from cryptoml_assets.errors import RecordingError

_SHOWN = 5


@dataclass(frozen=True)
class Answers:
    """What the owner of the files says of them; none where nothing was said.

    Attributes:
        symbol: BASE/QUOTE.
        venue: ccxt id of the exchange the bars come from.
        stamp: whether a time is that at which its bar opens or closes.
        last: whether the last bar is complete and kept, or dropped.
        zone: IANA name of the time zone of times without one.
    """

    symbol: str | None = None
    venue: str | None = None
    stamp: Literal["open", "close"] | None = None
    last: Literal["keep", "drop"] | None = None
    zone: str | None = None


@dataclass
class Notes:
    """Decisions about one file with their reasons, and questions that stay open."""

    decisions: list[str] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)

    def decide(self, what: str, why: str) -> None:
        """Note a decision and its reason."""
        self.decisions.append(f"{what}: {why}")

    def ask(self, question: str, flag: str) -> None:
        """Note a question and the option that answers it."""
        self.questions.append(f"{question} {flag}")


def refuse_rows(rows: pl.DataFrame, what: str) -> None:
    """Refuse a file some of whose rows are unusable.

    Args:
        rows: those rows; the column ``row`` counts the file's rows from 1.
        what: what is wrong with them.

    Raises:
        RecordingError: naming the first of ``rows``, where there are any.
    """
    if rows.height:
        shown = "; ".join(_row(row) for row in rows.head(_SHOWN).to_dicts())
        more = f"; and {rows.height - _SHOWN} more" if rows.height > _SHOWN else ""
        raise RecordingError(f"{what}: {shown}{more}")


def listed(names: Sequence[str]) -> str:
    """``names``, the first of them where there are many."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _row(row: dict[str, object]) -> str:
    number = row.pop("row")
    return f"row {number} ({', '.join(f'{name} {value}' for name, value in row.items())})"
