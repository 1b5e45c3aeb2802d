"""A few whole days of a backfill: what is wanted of them, what came, and why the rest did not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import numpy as np
import numpy.typing as npt
import polars as pl

from cryptoml_assets.prices.bars import Mask, Rows, Span, held_slots
from cryptoml_assets.prices.causes import judge
from cryptoml_assets.prices.fetch import BarRequest, all_or_none
from cryptoml_assets.prices.history import History
from cryptoml_assets.prices.ledger import (
    CAUSES,
    DELISTED,
    LEDGER_SCHEMA,
    LISTED_LATER,
    NOTHING_TRADED,
    RECEIVED,
    VENUE_OUTAGE,
    covered,
    mask_spans,
    missing,
)

_DAY = timedelta(days=1)
#: For each slot the place of its cause in ``CAUSES``, or none.
_Codes = npt.NDArray[np.int8]
_NONE = -1
_LATER, _DELISTED, _OUTAGE, _NOTHING = (
    CAUSES.index(cause) for cause in (LISTED_LATER, DELISTED, VENUE_OUTAGE, NOTHING_TRADED)
)


@dataclass(frozen=True)
class Plan:
    """What a chunk of days lacks.

    Attributes:
        days: whole UTC days.
        start: midnight of the first.
        slots: slots of them that have closed, and a bit more where the last day goes on.
        ledger: what is known of the days: rows of the venue and timeframe of the run.
        wanted: by symbol, the slots that are unrecorded or unsettled.
    """

    days: tuple[date, ...]
    start: datetime
    slots: int
    ledger: pl.DataFrame
    wanted: Mapping[str, Mask]

    @property
    def is_done(self) -> bool:
        """Whether nothing is wanted."""
        return not any(mask.any() for mask in self.wanted.values())


@dataclass(frozen=True)
class Harvest:
    """What came of a plan.

    Attributes:
        plan: what was wanted.
        rows: by symbol, the bars that came.
        missing: ledger rows of the slots that stayed without a bar.
    """

    plan: Plan
    rows: Mapping[str, Rows]
    missing: pl.DataFrame


def plan_chunk(
    request: BarRequest, days: tuple[date, ...], closed_until: datetime, ledger: pl.DataFrame
) -> Plan:
    """What ``request`` lacks of ``days``.

    Args:
        request: the run.
        days: a contiguous part of its days.
        closed_until: end of the newest closed slot.
        ledger: rows of the days, of the venue and timeframe of the run.
    """
    start = datetime.combine(days[0], datetime.min.time(), request.start.tzinfo)
    end = min(closed_until, start + len(days) * _DAY)
    slots = max((end - start) // request.bar, 0)
    settled = ledger.clear() if request.refetch else ledger.filter("settled")
    wanted = {
        symbol: ~covered(settled.filter(symbol=symbol), start, slots, request.bar)
        for symbol in request.symbols
    }
    return Plan(days, start, slots, ledger, wanted)


async def read_chunk(history: History, plan: Plan) -> Harvest:
    """The bars of ``plan`` that the venue has, and the cause of each that it has not.

    Raises:
        UnusableAnswerError: an answer that cannot be trusted.
        WorldUnreachableError: the venue stayed down through every retry.
    """
    chunk = _Chunk(history, plan)
    symbols = history.request.symbols
    rows = await all_or_none([chunk.read(symbol) for symbol in symbols])
    return Harvest(plan, dict(zip(symbols, rows, strict=True)), await chunk.explain(rows))


@dataclass(frozen=True)
class _Chunk:
    history: History
    plan: Plan

    async def read(self, symbol: str) -> Rows:
        """The wanted bars of ``symbol``, but for slots in which it is known not to be listed."""
        history, wanted = self.history, self.plan.wanted[symbol]
        if not wanted.any() or history.is_gone(symbol):
            return await history.bars(symbol, [])
        asked = wanted.copy()
        asked[: self._slot(history.known_first(symbol) or self.plan.start)] = False
        end = await history.end(symbol)
        if end is not None:
            asked[self._slot(end) :] = False
        return await history.bars(symbol, mask_spans(asked, self.plan.start, history.request.bar))

    async def explain(self, rows: list[Rows]) -> pl.DataFrame:
        """Ledger rows of the wanted slots of which ``rows``, one array a symbol, hold no bar."""
        plan, bar = self.plan, self.history.request.bar
        symbols = self.history.request.symbols
        got = np.array([held_slots(part, plan.start, plan.slots, bar) for part in rows])
        unanswered = np.array([plan.wanted[symbol] for symbol in symbols]) & ~got
        if not unanswered.any():
            return pl.DataFrame(schema=LEDGER_SCHEMA)
        gone = [self.history.is_gone(symbol) for symbol in symbols]
        stored = np.array([self._recorded(symbol, status=RECEIVED) for symbol in symbols])
        held = got | stored
        absent = unanswered & ~held
        codes = np.full(absent.shape, _NONE, dtype=np.int8)
        for i, symbol in enumerate(symbols):
            if gone[i]:
                codes[i, absent[i]] = _DELISTED
            elif absent[i].any():
                await self._bound(symbol, absent[i], held[i], codes[i])
        await self._judge(absent & (codes == _NONE), held, self._listed(codes), codes)
        # A stored bar of which the venue no longer tells stays, but it was read again.
        codes[unanswered & (codes == _NONE)] = _NOTHING
        codes[np.array(gone)[:, None] & stored] = _NONE
        return pl.concat(
            [
                self._missing(symbol, codes[i], was_read=not gone[i])
                for i, symbol in enumerate(symbols)
            ]
        )

    async def _bound(self, symbol: str, absent: Mask, held: Mask, codes: _Codes) -> None:
        """Mark the ``absent`` slots of ``symbol`` before its first bar and after its last."""
        slots = np.arange(self.plan.slots)
        end = await self.history.end(symbol)
        if end is not None:
            codes[absent & (slots >= self._slot(end))] = _DELISTED
        front = int(np.argmax(held)) if held.any() else self.plan.slots
        lacks_front = bool(absent[:front].any())
        if lacks_front and not await self.history.held_before(symbol, self.plan.start):
            first = await self.history.first(symbol)
            if first is not None:
                codes[absent & (slots < min(self._slot(first), front))] = _LATER

    def _listed(self, codes: _Codes) -> Mask:
        """In which slots each symbol was listed, by the ledger and by ``codes``."""
        recorded = np.array(
            [
                self._recorded(symbol, cause=LISTED_LATER) | self._recorded(symbol, cause=DELISTED)
                for symbol in self.history.request.symbols
            ]
        )
        listed: Mask = ~recorded & (codes == _NONE)
        return listed

    async def _judge(self, absent: Mask, held: Mask, listed: Mask, codes: _Codes) -> None:
        """Mark the slots of ``absent`` in which the whole venue traded nothing."""
        verdicts = judge(absent, held, listed, _DAY // self.history.request.bar)
        codes[verdicts.outage] = _OUTAGE
        unheard: Mask = np.logical_or.reduce(verdicts.alone, axis=0)
        if unheard.any():
            silent = await self._witnessed_outage(unheard)
            codes[verdicts.alone & silent] = _OUTAGE

    async def _witnessed_outage(self, asked: Mask) -> Mask:
        """Those of the slots ``asked`` in which a busy symbol did not trade, though listed."""
        history, bar = self.history, self.history.request.bar
        witness = await history.witness()
        if witness is None:
            return np.zeros_like(asked)
        rows = await history.bars(witness, self._day_spans(asked))
        silent = asked & ~held_slots(rows, self.plan.start, self.plan.slots, bar)
        if silent.any():
            first = await history.first(witness)
            silent[: self.plan.slots if first is None else self._slot(first)] = False
        return silent

    def _day_spans(self, asked: Mask) -> list[Span]:
        """One span a day, from the first of its slots ``asked`` to the last."""
        bar = self.history.request.bar
        slots_a_day = _DAY // bar
        spans = []
        for start in range(0, len(asked), slots_a_day):
            found = start + np.flatnonzero(asked[start : start + slots_a_day])
            if len(found):
                first, last = int(found[0]), int(found[-1]) + 1
                spans.append((self.plan.start + first * bar, self.plan.start + last * bar))
        return spans

    def _missing(self, symbol: str, codes: _Codes, *, was_read: bool) -> pl.DataFrame:
        """Ledger rows of the slots that ``codes`` gives a cause.

        What was not read is not settled, so that it is asked for should the venue list it again.
        """
        request = self.history.request
        settled_until = self.history.venue_time - request.revision_window
        frames = [
            missing(
                mask_spans(codes == code, self.plan.start, request.bar),
                venue=self.history.reader.exchange.venue,
                symbol=symbol,
                timeframe=request.timeframe,
                bar=request.bar,
                cause=CAUSES[code],
                settled_until=settled_until if was_read else self.plan.start,
                source=request.source,
            )
            for code in np.unique(codes[codes != _NONE])
        ]
        return pl.concat([pl.DataFrame(schema=LEDGER_SCHEMA), *frames])

    def _recorded(self, symbol: str, **what: str) -> Mask:
        rows = self.plan.ledger.filter(symbol=symbol, **what)
        return covered(rows, self.plan.start, self.plan.slots, self.history.request.bar)

    def _slot(self, instant: datetime) -> int:
        """The slot of the chunk that opens at or after ``instant``, within the chunk's bounds."""
        slot = -((self.plan.start - instant) // self.history.request.bar)
        return min(max(slot, 0), self.plan.slots)
