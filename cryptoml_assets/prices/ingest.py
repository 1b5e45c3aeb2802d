"""A backfill of bars: what the ledger lacks is fetched, stored chunk by chunk, and written down."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

from cryptoml_assets.days import day_span
from cryptoml_assets.prices.bars import KEY, SCHEMA, bars_frame, check_one_source, merge_bars
from cryptoml_assets.prices.chunk import Harvest, Plan, plan_chunk, read_chunk
from cryptoml_assets.prices.exchange import Listing
from cryptoml_assets.prices.fetch import BarReader, BarRequest, closed_end
from cryptoml_assets.prices.history import History
from cryptoml_assets.prices.ledger import (
    LEDGER_SCHEMA,
    LEDGER_TABLE,
    RECEIVED,
    merge_ledger,
    received,
)
from cryptoml_assets.prices.resample import scan_ledger
from cryptoml_assets.prices.tally import BARS_TABLE, IngestReport, Progress, Tally
from cryptoml_assets.resources.venue import connect_venue

if TYPE_CHECKING:
    from cryptoml_assets.prices.exchange import Exchange
    from cryptoml_assets.resources.lake import Lake
    from cryptoml_assets.settings import Settings

#: Bars of all symbols in one chunk, about: few enough to be held several times over, many enough
#: that commits cost little.
_CHUNK_BARS = 60_000
#: Chunks read at once, so that requests flow on while the last pages of a chunk come in.
_CHUNKS_AHEAD = 2
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Change:
    """What a write did to the bars of its days.

    Attributes:
        new: bars that were not stored before.
        changed: bars that replaced one of other figures.
        days: the days it was about: those of new bars and of new ledger rows.
        days_changed: those of them whose bars it changed.
        bars: all bars of the days as they are now.
        ledger: all ledger rows of the days as they are now.
    """

    new: int
    changed: int
    days: tuple[date, ...]
    days_changed: tuple[date, ...]
    bars: pl.DataFrame
    ledger: pl.DataFrame


def run_ingest(
    configured: Settings,
    lake: Lake,
    days: Sequence[date],
    *,
    refetch: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> IngestReport:
    """Bring the bars of ``days``, contiguous and oldest first, up to date as settings say.

    Raises:
        CryptomlError: as ``ingest_prices`` does.
        SettingsError: ccxt has no such exchange.
    """
    start, end = day_span(days)
    request = BarRequest(
        symbols=configured.symbols,
        timeframe=configured.timeframe,
        bar=configured.bar,
        start=start,
        end=end,
        source=configured.world,
        revision_window=configured.revision_window,
        refetch=refetch,
    )

    async def run() -> IngestReport:
        async with connect_venue(configured) as exchange:
            return await ingest_prices(exchange, lake, request, progress=progress)

    return asyncio.run(run())


async def ingest_prices(
    exchange: Exchange,
    lake: Lake,
    request: BarRequest,
    *,
    progress: Callable[[Progress], None] | None = None,
) -> IngestReport:
    """Fetch what the ledger lacks of ``request``; store bars and ledger chunk by chunk.

    Bars are committed before the ledger rows that claim them, and a failure leaves the chunks
    before it stored, so that the next run goes on from there.

    Raises:
        UnknownSymbolError: a symbol that the venue does not list and the lake holds nothing of.
        UnusableAnswerError: an answer that cannot be trusted.
        WorldUnreachableError: the venue stayed down through every retry.
        LakeError: the lake holds bars of another world, or cannot be written.
    """
    exchange.check_timeframe(request.timeframe)
    shelf = _Shelf(lake, exchange.venue, request)
    listings = await exchange.listings(request.symbols, request.what, held=request.symbols)
    if Listing.GONE in listings.values():
        held = await asyncio.to_thread(shelf.held_since)
        listings = await exchange.listings(request.symbols, request.what, held=held)
    clock = await exchange.clock(request.what)
    reader = BarReader(exchange, request.what)
    history = History(reader, request, listings, clock.at, shelf.held_since)
    tally = Tally(request, closed_end(request, clock.at))
    await _Run(shelf, history, tally, progress).all_chunks()
    gone = tuple(symbol for symbol in request.symbols if history.is_gone(symbol))
    return await asyncio.to_thread(tally.report, lake, exchange, clock, gone)


def store_bars(lake: Lake, bars: pl.DataFrame, ledger: pl.DataFrame) -> Change:
    """Merge ``bars`` into the lake, and then what ``ledger`` says of the same days.

    Args:
        lake: where they go.
        bars: rows of ``raw_prices``, each once, in the order of their key, of one source.
        ledger: ledger rows that claim no bar but these and stored ones.

    Raises:
        LakeError: the lake holds bars of another world, or cannot be written.
    """
    days = pl.concat([bars["date"], ledger["date"]]).unique().sort().to_list()
    held = {"before": bars.clear(), "after": bars, "ledger": ledger}

    def merge(stored: pl.DataFrame) -> pl.DataFrame:
        if bars.height:
            check_one_source(stored, bars["source"][0])
        held["before"] = stored
        held["after"] = merge_bars(stored, bars) if stored.height else bars
        return held["after"]

    def learn(known: pl.DataFrame) -> pl.DataFrame:
        held["ledger"] = merge_ledger(known, ledger)
        return held["ledger"]

    written = lake.rewrite_days(BARS_TABLE, days, merge, SCHEMA)
    lake.rewrite_days(LEDGER_TABLE, days, learn, LEDGER_SCHEMA)
    before, after = held["before"], held["after"]
    return Change(
        new=after.height - before.height,
        changed=_changed(before, bars),
        days=tuple(days),
        days_changed=written.days_changed,
        bars=after,
        ledger=held["ledger"],
    )


def _changed(before: pl.DataFrame, bars: pl.DataFrame) -> int:
    """How many of ``bars`` replace one of other figures."""
    if before.is_empty():
        return 0
    replaced = bars.join(before, on=KEY, how="semi")
    return replaced.height - replaced.join(before, on=bars.columns, how="semi").height


@dataclass(frozen=True)
class _Shelf:
    """The part of the lake that a run reads and writes."""

    lake: Lake
    venue: str
    request: BarRequest

    def known(self, days: Sequence[date]) -> pl.DataFrame:
        """The ledger's rows of ``days``, of the run's venue and timeframe.

        Raises:
            LakeError: they are of another world.
        """
        rows = self._ledger(days).collect()
        check_one_source(rows, self.request.source)
        return rows

    def held_since(self) -> Mapping[str, datetime]:
        """Since when the lake holds bars of each symbol."""
        rows = self._ledger(None).filter(status=RECEIVED)
        return dict(rows.group_by("symbol").agg(pl.col("start").min()).collect().iter_rows())

    def store(self, harvest: Harvest, settled_until: datetime) -> tuple[int, Change]:
        """Put what came into the lake; how many bars that were, and what they changed.

        Raises:
            UnusableAnswerError: naming the first bar that is none.
            LakeError: as for ``store_bars``.
        """
        request = self.request
        frames = [
            bars_frame(
                rows,
                venue=self.venue,
                symbol=symbol,
                timeframe=request.timeframe,
                bar=request.bar,
                source=request.source,
            )
            for symbol, rows in sorted(harvest.rows.items())
        ]
        bars = pl.concat(frames)
        claims = received(bars, settled_until=settled_until)
        change = store_bars(self.lake, bars, pl.concat([claims, harvest.missing]))
        return bars.height, replace(change, ledger=self._own(change.ledger.lazy()).collect())

    def bars(self, days: Sequence[date]) -> pl.LazyFrame:
        """The stored bars of ``days``, of whatever venue and timeframe."""
        if not self.lake.exists(BARS_TABLE):
            return pl.LazyFrame(schema=SCHEMA)
        return self.lake.scan(BARS_TABLE, days)

    def _ledger(self, days: Sequence[date] | None) -> pl.LazyFrame:
        return self._own(scan_ledger(self.lake, days))

    def _own(self, ledger: pl.LazyFrame) -> pl.LazyFrame:
        return ledger.filter(venue=self.venue, timeframe=self.request.timeframe)


@dataclass(frozen=True)
class _Run:
    """Reads chunk after chunk, and stores each in a thread while the next ones come in."""

    shelf: _Shelf
    history: History
    tally: Tally
    progress: Callable[[Progress], None] | None

    async def all_chunks(self) -> None:
        """Bring every day of the request up to date, the oldest first."""
        request = self.history.request
        pending = deque(_chunks(request))
        reads: deque[asyncio.Task[Harvest]] = deque()
        storing: asyncio.Task[None] | None = None
        began = time.perf_counter()
        try:
            while pending or reads:
                while pending and len(reads) < _CHUNKS_AHEAD:
                    reads.append(asyncio.create_task(self._read(pending.popleft())))
                harvest = await reads[0]
                reads.popleft()
                if storing is not None:
                    await storing
                storing = asyncio.create_task(self._store(harvest, began))
            if storing is not None:
                await storing
        finally:
            for read in reads:
                read.cancel()
            await asyncio.gather(*reads, *filter(None, [storing]), return_exceptions=True)
            await self.history.close()

    async def _read(self, days: tuple[date, ...]) -> Harvest:
        plan = await asyncio.to_thread(self._plan, days)
        return await read_chunk(self.history, plan)

    def _plan(self, days: tuple[date, ...]) -> Plan:
        known = self.shelf.known(days)
        return plan_chunk(self.history.request, days, self.tally.closed_until, known)

    async def _store(self, harvest: Harvest, began: float) -> None:
        await asyncio.to_thread(self._keep, harvest)
        if self.progress is not None:
            rate = self.tally.received / max(time.perf_counter() - began, 1e-9)
            self.progress(self.tally.progress(rate))

    def _keep(self, harvest: Harvest) -> None:
        plan = harvest.plan
        if plan.is_done:
            self.tally.count_known(plan.days, self.shelf.bars(plan.days), plan.ledger)
            return
        settled_until = self.history.venue_time - self.history.request.revision_window
        bars, change = self.shelf.store(harvest, settled_until)
        others = [day for day in plan.days if day not in change.days]
        unchanged = plan.ledger.filter(pl.col("date").is_in(others))
        self.tally.count_known(change.days, change.bars.lazy(), change.ledger)
        self.tally.count_known(others, self.shelf.bars(others), unchanged)
        self.tally.count_change(bars, change.new, change.changed, change.days_changed)


def _chunks(request: BarRequest) -> Iterator[tuple[date, ...]]:
    """The days of ``request`` in pieces of whole days, oldest first."""
    bars_a_day = len(request.symbols) * (_DAY // request.bar)
    size = max(_CHUNK_BARS // bars_a_day, 1)
    for start in range(0, len(request.days), size):
        yield request.days[start : start + size]
