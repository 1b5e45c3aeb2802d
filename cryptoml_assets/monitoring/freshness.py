"""How old the newest rows of a table are, whatever was written last.

Dagster's freshness asks when an asset was last materialised: a backfill of last month turns it
green. Here the rows themselves are asked, so only rows of now make a table fresh.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

from cryptoml_assets.days import days_between

if TYPE_CHECKING:
    from cryptoml_assets.resources.lake import Lake
    from cryptoml_assets.settings import Settings

_DAY = timedelta(days=1)
#: Days whose files are opened to find the newest rows; older ones are stale in any case.
LOOK_BACK = 3 * _DAY


@dataclass(frozen=True)
class Source:
    """A table that ages.

    Attributes:
        table: its name.
        instant: column that says when a row could first be known, but for ``delay``.
        delay: time from that instant until the row is stored.
        period: time from one row to the next.
        by_symbol: whether each symbol ages for itself.
        reads: tables it is made of: while one of them is stale, it is no trouble of its own.
    """

    table: str
    instant: str
    delay: timedelta
    period: timedelta
    by_symbol: bool = False
    reads: tuple[str, ...] = ()


@dataclass(frozen=True)
class Age:
    """How old a table's newest rows are.

    Attributes:
        table: its name.
        newest: instant of the newest row, of the symbol that is furthest behind; none where
            :data:`LOOK_BACK` has no row.
        due: when the row after it should have been there at the latest; none where unknown.
        behind: the symbols that are stale.
    """

    table: str
    newest: datetime | None
    due: datetime | None
    behind: tuple[str, ...] = ()

    def is_stale(self, now: datetime) -> bool:
        """Whether the next row is overdue."""
        return self.due is None or self.due < now


def sources(configured: Settings) -> tuple[Source, ...]:
    """The raw and feature tables, and how each ages."""
    bar, final = configured.bar, configured.finality_delay
    prices = Source("raw_prices", "close_time", timedelta(0), bar, by_symbol=True)
    return (
        prices,
        Source("onchain_blocks", "timestamp", final, timedelta(0)),
        Source("network_metrics", "available_at", timedelta(0), _DAY),
        Source(
            "price_features",
            "event_timestamp",
            timedelta(0),
            bar,
            by_symbol=True,
            reads=("raw_prices",),
        ),
        Source(
            "onchain_features",
            "event_timestamp",
            timedelta(0),
            _DAY,
            reads=("onchain_blocks", "network_metrics"),
        ),
    )


def measure(lake: Lake, source: Source, configured: Settings, now: datetime) -> Age | None:
    """The age of a table's newest rows; none for a table that was never written.

    Args:
        lake: holds it.
        source: which table.
        configured: names the symbols, and the age that is allowed.
        now: the world's present instant, UTC.
    """
    if not lake.exists(source.table):
        return None
    # Two days more for tables whose rows are known a day and longer after their day.
    days = days_between((now - LOOK_BACK - 2 * _DAY).date(), now.date())
    columns = [source.instant, *(["symbol"] if source.by_symbol else [])]
    rows = lake.scan(source.table, days).select(columns).filter(pl.col(source.instant) <= now)
    symbols = configured.symbols if source.by_symbol else ()
    return age(source, rows.collect(), symbols, configured.freshness, now)


def age(
    source: Source,
    rows: pl.DataFrame,
    symbols: Sequence[str],
    allowed: timedelta,
    now: datetime,
) -> Age:
    """The age of the newest of ``rows``.

    Args:
        source: how the table ages.
        rows: its newest rows: the instant and, where symbols age for themselves, the symbol.
        symbols: those that must be there.
        allowed: how late the next row may be.
        now: the present instant, UTC.
    """
    newest: dict[str, datetime | None] = dict.fromkeys(symbols)
    if symbols:
        grouped = rows.group_by("symbol").agg(pl.col(source.instant).max())
        newest |= {s: at for s, at in grouped.iter_rows() if s in newest}
    else:
        newest[""] = rows[source.instant].max()  # type: ignore[assignment]
    due = {
        name: None if at is None else at + source.delay + source.period + allowed
        for name, at in newest.items()
    }
    behind = tuple(sorted(s for s, at in due.items() if s and (at is None or at < now)))
    # One without any row is behind all others.
    last = min(newest, key=lambda name: (newest[name] is not None, newest[name] or now))
    return Age(source.table, newest[last], due[last], behind)


def roots(stale: Mapping[str, Age], known: Sequence[Source]) -> tuple[Age, ...]:
    """The stale tables that are made of none that is stale itself."""
    reads = {source.table: source.reads for source in known}
    return tuple(
        each for table, each in stale.items() if not any(read in stale for read in reads[table])
    )


def days_due(found: Age, now: datetime) -> tuple[date, date]:
    """First and last of the days, at most the two that are still open, whose rows are missing."""
    yesterday = (now - _DAY).date()
    if found.newest is None:
        return yesterday, now.date()
    return max(yesterday, min(found.newest.date(), now.date())), now.date()
