"""What each day of a derived table is computed from, and whether that has changed since.

A day remembers the versions of what it was computed from as one text. It is out of date when, and
only when, the lake now gives another text: whatever wrote the change, however old the day is, and
whether or not anything was watching at the time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import polars as pl

from cryptoml_assets.days import day_start
from cryptoml_assets.resources.lake import Lake

#: Rows of all inputs that a run over many days reads at a time, as far as whole days allow.
ROWS_AT_A_TIME = 250_000
_DAY = timedelta(days=1)
#: Dagster's tags hold 63 characters.
_TEXT_LENGTH = 32


@dataclass(frozen=True)
class Reads:
    """What a day of a table is computed from.

    Attributes:
        tables: input tables, each with the number of days before a day that it is read of.
        delay: time after the end of a day from which its rows can be known; none when its rows
            can be known as soon as what they are made of.
        history: whether it matters to a day if anything is stored before the days it reads.
        code: text that changes with the formulas that compute it.
    """

    tables: Mapping[str, int]
    delay: timedelta | None = None
    history: bool = False
    code: str = ""

    def known(self, day: date, now: datetime) -> bool:
        """Whether the rows of ``day`` can be known at ``now``."""
        return self.delay is None or day_start(day) + _DAY + self.delay <= now

    def versions(
        self,
        lake: Lake,
        days: Sequence[date],
        now: datetime,
        at: Mapping[str, int] | None = None,
    ) -> dict[date, str]:
        """For each of ``days`` a text that changes when, and only when, its inputs or code do.

        Args:
            lake: where the input tables are; one that does not exist holds no rows.
            days: days of the derived table.
            now: the present instant.
            at: version of each table; the newest where not given.
        """
        found = {
            day: hashlib.sha256(f"{self.code}\n{self.known(day, now)}".encode()) for day in days
        }
        for table, before in sorted(self.tables.items()):
            version = None if at is None else at[table]
            stored = lake.day_versions(table, version=version) if lake.exists(table) else {}
            first = min(stored, default=date.max)
            for day, text in found.items():
                older = self.history and first < day - before * _DAY
                read = [stored.get(each, "") for each in days_read([day], before)]
                text.update("\n".join([table, str(older), *read]).encode())
        return {day: text.hexdigest()[:_TEXT_LENGTH] for day, text in found.items()}


@dataclass(frozen=True)
class Reading:
    """What one run reads: its inputs, each at the version it had when the run began.

    Attributes:
        reads: what the table is computed from.
        lake: where that is.
        days: the run's days, oldest first, without gaps.
        now: the present instant when the run began.
        at: version of each input table.
    """

    reads: Reads
    lake: Lake
    days: tuple[date, ...]
    now: datetime
    at: Mapping[str, int]

    @classmethod
    def begin(cls, reads: Reads, lake: Lake, days: tuple[date, ...], now: datetime) -> Reading:
        """Hold on to the newest version of every input table.

        Raises:
            LakeError: an input table that does not exist.
        """
        return cls(reads, lake, days, now, {table: lake.version(table) for table in reads.tables})

    def scan(self, table: str, days: Sequence[date]) -> pl.LazyFrame:
        """The rows of ``table`` that ``days`` are computed from."""
        return self.lake.scan(table, days_read(days, self.reads.tables[table]), self.at[table])

    def history(self, table: str) -> pl.LazyFrame:
        """All rows of ``table``."""
        return self.lake.scan(table, version=self.at[table])

    def versions(self) -> dict[date, str]:
        """What each of the run's days is computed from; see :meth:`Reads.versions`."""
        return self.reads.versions(self.lake, self.days, self.now, self.at)

    def slices(self) -> list[tuple[date, ...]]:
        """The run's days in order, in parts of at most :data:`ROWS_AT_A_TIME` or of one day."""
        counts = dict.fromkeys(self.days, 0)
        for table, version in self.at.items():
            for day, count in self.lake.day_rows(table, self.days, version).items():
                counts[day] += count
        slices: list[list[date]] = []
        held = 0
        for day, count in counts.items():
            if not slices or held + count > ROWS_AT_A_TIME:
                slices.append([])
                held = 0
            slices[-1].append(day)
            held += count
        return [tuple(part) for part in slices]


def days_read(days: Sequence[date], before: int) -> tuple[date, ...]:
    """``days``, which have no gaps, and as many days ``before`` the first of them."""
    first = min(days) - before * _DAY
    return tuple(first + _DAY * count for count in range((max(days) - first).days + 1))
