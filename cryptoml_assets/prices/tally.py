"""What a run over bars adds up to, kept small however long the run is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING

import polars as pl

from cryptoml_assets.prices.bars import SCHEMA
from cryptoml_assets.prices.ledger import LEDGER_SCHEMA, LEDGER_TABLE, day_summary, gap_ranges
from cryptoml_assets.resources.lake import Lake, Stored

if TYPE_CHECKING:
    from cryptoml_assets.prices.exchange import Exchange, VenueClock
    from cryptoml_assets.prices.fetch import BarRequest

BARS_TABLE = "raw_prices"
#: Bars kept of each symbol for the picture of a run.
_SAMPLE = 1500
#: Gaps kept for the report of a run.
_GAPS = 1000


@dataclass(frozen=True)
class Progress:
    """How far a run has come.

    Attributes:
        days_done: days that are up to date.
        days: days of the run.
        bars: bars read.
        rate: bars read a second.
    """

    days_done: int
    days: int
    bars: int
    rate: float


@dataclass(frozen=True)
class IngestReport:
    """What a run found and did.

    Attributes:
        venue: ccxt id of the exchange.
        clock: the venue's clock.
        requests: requests made, each retry included.
        received: bars read.
        new: bars that were not stored before.
        changed: bars that replaced one of other figures.
        stored: the table of bars as the run left it.
        summary: completeness of each day and symbol, as ``day_summary`` tells it.
        gaps: the first missing ranges of the run's days, as ``gap_ranges`` tells them.
        gaps_total: how many there are.
        closes: a sample of the bars in the lake, at most 1500 a symbol.
        gone: symbols of the run that the venue does not know any more.
    """

    venue: str
    clock: VenueClock
    requests: int
    received: int
    new: int
    changed: int
    stored: Stored
    summary: pl.DataFrame
    gaps: pl.DataFrame
    gaps_total: int
    closes: pl.DataFrame
    gone: tuple[str, ...]


@dataclass
class Tally:
    """Adds up the chunks of a run.

    Attributes:
        request: the run.
        closed_until: end of its newest closed slot.
        received: bars read so far.
    """

    request: BarRequest
    closed_until: datetime
    received: int = 0
    _new: int = 0
    _changed: int = 0
    _days_done: int = 0
    _days_changed: list[date] = field(default_factory=list)
    _summaries: list[pl.DataFrame] = field(default_factory=list)
    _closes: list[pl.DataFrame] = field(default_factory=list)
    _gaps: pl.DataFrame = field(
        default_factory=lambda: gap_ranges(pl.DataFrame(schema=LEDGER_SCHEMA))
    )
    _gaps_left_out: int = 0

    def count_known(self, days: Sequence[date], bars: pl.LazyFrame, ledger: pl.DataFrame) -> None:
        """Take up what is known of ``days``: their bars, and the ledger rows of the venue."""
        request = self.request
        own = ledger.filter(pl.col("symbol").is_in(list(request.symbols)))
        self._days_done += len(days)
        self._summaries.append(
            day_summary(own, request.symbols, days, request.bar, self.closed_until)
        )
        gaps = gap_ranges(pl.concat([self._gaps, gap_ranges(own)]))
        self._gaps, more = gaps.head(_GAPS), gaps.height - _GAPS
        self._gaps_left_out += max(more, 0)
        self._closes.append(self._sample(bars))

    def count_change(
        self, received: int, new: int, changed: int, days_changed: Sequence[date]
    ) -> None:
        """Take up what a write did: bars read, new ones, replaced ones, and the days changed."""
        self.received += received
        self._new += new
        self._changed += changed
        self._days_changed += days_changed

    def progress(self, rate: float) -> Progress:
        """How far the run is, at ``rate`` bars a second."""
        return Progress(self._days_done, len(self.request.days), self.received, rate)

    def report(
        self, lake: Lake, exchange: Exchange, clock: VenueClock, gone: tuple[str, ...]
    ) -> IngestReport:
        """What it all adds up to; makes the tables where the run had nothing to write."""
        nothing = tuple(pl.DataFrame(schema=schema) for schema in (SCHEMA, LEDGER_SCHEMA))
        for table, none in zip((BARS_TABLE, LEDGER_TABLE), nothing, strict=True):
            if not lake.exists(table):
                lake.replace_days(table, none, [])
        rows = lake.scan(BARS_TABLE, self.request.days).select(pl.len()).collect().item()
        return IngestReport(
            venue=exchange.venue,
            clock=clock,
            requests=exchange.requests,
            received=self.received,
            new=self._new,
            changed=self._changed,
            stored=Stored(lake.version(BARS_TABLE), rows, tuple(self._days_changed)),
            summary=pl.concat(self._summaries).sort("date", "symbol"),
            gaps=self._gaps,
            gaps_total=self._gaps.height + self._gaps_left_out,
            closes=pl.concat(self._closes).sort("symbol", "open_time"),
            gone=gone,
        )

    def _sample(self, bars: pl.LazyFrame) -> pl.DataFrame:
        """Evenly spaced bars, so few that those of the whole run stay below the bound."""
        request = self.request
        stride = -(-((request.end - request.start) // request.bar) // _SAMPLE)
        length = request.bar * stride
        since = (pl.col("open_time") - request.start).dt.total_microseconds()
        return (
            bars.filter(
                pl.col("symbol").is_in(list(request.symbols)),
                pl.col("timeframe") == request.timeframe,
                since % (length // request.bar.resolution) == 0,
            )
            .select("symbol", "open_time", "close_time", "close")
            .collect()
        )
