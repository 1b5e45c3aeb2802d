"""Bringing ``onchain_blocks`` up to date: missing blocks are read, replaced ones rewritten."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import chain

import polars as pl

from cryptoml_assets.days import day_start
from cryptoml_assets.errors import ChainMovedError
from cryptoml_assets.onchain.blocks import SCHEMA
from cryptoml_assets.onchain.reading import first_at, first_break, read_blocks
from cryptoml_assets.onchain.receipts import Receipts
from cryptoml_assets.onchain.reorg import Reorganisation, Standing, around, reorganisation, standing
from cryptoml_assets.onchain.search import gaps, joined
from cryptoml_assets.onchain.stored import HEADER, TABLE, StoredChain, risen
from cryptoml_assets.onchain.tips import Node, Tips, read_tips
from cryptoml_assets.resources.lake import Lake, Stored

#: Times the blocks of some days are read anew because the chain was reorganised meanwhile.
_PASSES = 5
#: Days whose stored blocks are held in memory at once.
_WINDOW = 31
#: Blocks after which those of the whole days among them are written.
_CHUNK = 20_000

_DAY = timedelta(days=1)
_log = logging.getLogger(__name__)

#: Told, after each commit, how many of how many missing blocks of a stretch of days it has.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ChainReport:
    """What bringing blocks up to date did.

    Attributes:
        stored: the table afterwards: rows of the days asked for, and all days that changed.
        reorgs: the reorganisations found, in the order in which they were.
        blocks_read: full blocks read from the node.
        blocks_kept: blocks of the days asked for that were stored before and still hold.
    """

    stored: Stored
    reorgs: tuple[Reorganisation, ...]
    blocks_read: int
    blocks_kept: int


def ingest_blocks(
    node: Node,
    lake: Lake,
    days: Sequence[date],
    *,
    chain_id: int,
    receipts: bool,
    progress: Progress | None = None,
    on_reorg: Callable[[Reorganisation], None] | None = None,
) -> ChainReport:
    """Store every block of ``days`` that the node has, and nothing that is not of its chain.

    Stored blocks are kept and not read again as long as the node still has them, which is asked of
    the newest of each unbroken run of them. Where it has another, the rows above the common
    ancestor are replaced by the new branch in one commit, however deep that is and whichever days
    they are of. What is new is written as it comes, in commits of whole days.

    Args:
        node: where to read.
        lake: where ``onchain_blocks`` is.
        days: consecutive UTC days, oldest first.
        chain_id: the chain the node must be on.
        receipts: whether to read receipts, without which fees are null.
        progress: called as blocks are stored.
        on_reorg: called with a reorganisation as soon as its commit is made.

    Raises:
        WrongChainError: the node is on another chain than ``chain_id``.
        UnusableAnswerError: the node is behind what is stored as finalized; or blocks are malformed
            or not a chain, each time they are read.
        WorldUnreachableError: the node stayed down through every retry.
        LakeError: the stored blocks are of another chain or world.
    """
    work = _Ingest(node, StoredChain(lake), chain_id, Receipts(receipts), progress, on_reorg)
    for start in range(0, len(days), _WINDOW):
        work.bring_up_to_date(days[start : start + _WINDOW])
    rows = lake.scan(TABLE, days).select(pl.len()).collect().item()
    stored = Stored(lake.version(TABLE), rows, tuple(sorted(work.days_changed)))
    return ChainReport(stored, tuple(work.reorgs), work.blocks_read, work.blocks_kept)


@dataclass
class _Ingest:
    """Work on one table; what it does is counted over all of its days."""

    node: Node
    stored: StoredChain
    chain_id: int
    receipts: Receipts
    progress: Progress | None
    on_reorg: Callable[[Reorganisation], None] | None
    reorgs: list[Reorganisation] = field(default_factory=list)
    days_changed: set[date] = field(default_factory=set)
    blocks_read: int = 0
    blocks_kept: int = 0

    def bring_up_to_date(self, days: Sequence[date]) -> None:
        """Store the blocks of ``days``; again from the start where the chain moves meanwhile."""
        kept_before = self.blocks_kept
        for left in reversed(range(_PASSES)):
            try:
                self._one_pass(days)
            except ChainMovedError as moved:
                if not left:
                    raise
                _log.warning("%s; reading %s on anew", moved, days[0])
                self.blocks_kept = kept_before
            else:
                return

    def _one_pass(self, days: Sequence[date]) -> None:
        tips = read_tips(self.node, self.chain_id)
        self.stored.check_fits(around(days), self.chain_id, self.node.source)
        found = standing(self.node, self.stored, days, tips)
        self.blocks_kept += found.valid.filter(pl.col("date").is_in(list(days))).height
        writer = _Writer(self, tips, found, days)
        span = self._span(found.valid, tips, days[0], days[-1])
        held = _runs(pl.concat([found.valid, found.ahead])["number"])
        branch = self._replacing(found, tips)
        urgent = list(chain.from_iterable(gaps(each, held) for each in branch))
        rest = gaps(span, joined([*held, *urgent]))
        writer.missing = sum(map(len, [*urgent, *rest]))
        if found.stale.height:
            writer.replace(self._read(urgent, tips))
        for rows in _whole_days(self._read(rest, tips)):
            writer.write(rows)
        writer.finish()

    def _read(self, spans: Sequence[range], tips: Tips) -> Iterator[pl.DataFrame]:
        for rows in read_blocks(self.node, spans, tips, self.receipts, self.chain_id):
            self.blocks_read += rows.height
            yield rows

    def _span(self, valid: pl.DataFrame, tips: Tips, first: date, last: date) -> range:
        """Numbers of the blocks of ``first`` to ``last``."""
        start, stop = (self._first_of(valid, tips, day) for day in (first, last + _DAY))
        return range(start, stop)

    def _first_of(self, valid: pl.DataFrame, tips: Tips, day: date) -> int:
        """Number of the first block from midnight of ``day`` on, known of ``valid`` or searched."""
        midnight = day_start(day)
        second = int(midnight.timestamp())
        if tips.timestamp < second:
            return tips.latest + 1
        before, after = (
            valid.filter(condition)["number"]
            for condition in (pl.col("timestamp") < midnight, pl.col("timestamp") >= midnight)
        )
        low = 0 if before.is_empty() else int(before[-1]) + 1
        # The newest block is known to be past midnight.
        high = (tips.latest if after.is_empty() else int(after[0])) - 1
        return first_at(self.node, second, low, high)

    def _replacing(self, found: Standing, tips: Tips) -> list[range]:
        """Numbers of the new branch, from each stale block to the end of the last stale day."""
        last = dict(found.stale.select("number", "date").iter_rows())
        return joined(
            range(run.start, self._first_of(found.valid, tips, last[run.stop - 1] + _DAY))
            for run in _runs(found.stale["number"])
        )


@dataclass
class _Writer:
    """Rows on their way into the lake, checked to link up with what is there.

    The first commit brings the stored rows up to date as well: their finality, and, where the
    table lacks some, the columns of ``days``.
    """

    work: _Ingest
    tips: Tips
    found: Standing
    days: Sequence[date]
    missing: int = 0
    written: int = 0

    def __post_init__(self) -> None:
        self._known = self.found.valid
        outdated = self._known.filter(risen(self.tips) != pl.col("finality"))
        lacking = () if self.work.stored.is_up_to_date() else self.days
        self._pending: set[date] = {*outdated["date"], *lacking}

    def replace(self, frames: Iterator[pl.DataFrame]) -> None:
        """Put the rows of ``frames`` in the place of the stale ones, in one commit."""
        rows = pl.concat([pl.DataFrame(schema=SCHEMA), *frames])
        self._write(rows, self.found.stale)
        reorg = reorganisation(self.found.stale, rows)
        if reorg is not None:
            _log.warning("%s: blocks from %d on were reorganised", TABLE, reorg.first_replaced)
            self.work.reorgs.append(reorg)
            if self.work.on_reorg is not None:
                self.work.on_reorg(reorg)

    def write(self, rows: pl.DataFrame) -> None:
        """Add ``rows``."""
        self._write(rows, self.found.stale.clear())

    def finish(self) -> None:
        """Write what has to change without a new row."""
        if self._pending:
            self.write(pl.DataFrame(schema=SCHEMA))

    def _write(self, rows: pl.DataFrame, stale: pl.DataFrame) -> None:
        self._check_links(rows)
        days = sorted({*rows["date"], *stale["date"], *self._pending})
        stored = self.work.stored.rewrite(days, rows, stale, self.tips)
        self.work.days_changed |= set(stored.days_changed)
        self._pending = set()
        self.written += rows.height
        if self.work.progress is not None:
            self.work.progress(self.written, self.missing)
        self._known = pl.concat([self._known, rows.select(HEADER.names())]).sort("number")

    def _check_links(self, rows: pl.DataFrame) -> None:
        """Refuse rows that do not link up with each other and with the stored ones next to them."""
        if rows.is_empty():
            return
        first, last = rows["number"][0], rows["number"][-1]
        near = self._known.filter(pl.col("number").is_between(first - 1, last + 1))
        links = ["number", "hash", "parent_hash"]
        linked = pl.concat([near.select(links), rows.select(links)]).sort("number")
        broken = first_break(linked.iter_rows())
        if broken is not None:
            node = self.work.node
            message = (
                f"POST {node.address}: {node.work}: block {broken} does not follow the block "
                "before it; the chain was reorganised while it was read, or the node is "
                "inconsistent"
            )
            raise ChainMovedError(message)


def _whole_days(frames: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The rows of ``frames`` in pieces of about ``_CHUNK``, cut at a midnight where one is near."""
    waiting: list[pl.DataFrame] = []
    height = 0
    for frame in frames:
        waiting.append(frame)
        height += frame.height
        if height < _CHUNK:
            continue
        rows = pl.concat(waiting)
        whole = rows.filter(pl.col("date") < rows["date"][-1])
        piece = whole if whole.height else rows
        yield piece
        waiting = [rows.slice(piece.height)]
        height -= piece.height
    if height:
        yield pl.concat(waiting)


def _runs(numbers: pl.Series) -> list[range]:
    """Rising numbers as ranges."""
    begins = numbers.diff().fill_null(0) != 1
    starts = numbers.filter(begins)
    lengths = begins.cum_sum().value_counts(sort=False).sort(begins.name)["count"]
    return [range(start, start + length) for start, length in zip(starts, lengths, strict=True)]
