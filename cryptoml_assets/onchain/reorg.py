"""Which stored blocks are no longer of the node's chain, found by asking for few of their hashes.

Stored blocks form segments in which each is the child of the one below. A hash names all that came
before it, so a segment whose newest block the node has is of its chain as a whole; else the newest
one that it has, the common ancestor, is found by search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import polars as pl

from cryptoml_assets.errors import UnusableAnswerError
from cryptoml_assets.onchain.reading import hashes
from cryptoml_assets.onchain.search import last_holding
from cryptoml_assets.onchain.stored import TABLE, StoredChain
from cryptoml_assets.onchain.tips import Node, Tips

_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Standing:
    """Stored blocks as rows of ``HEADER``, sorted by what the node says of them.

    Attributes:
        valid: they are of the node's chain.
        ahead: newer than the node's newest block, and may be of its chain.
        stale: they are not of its chain, or damaged.
    """

    valid: pl.DataFrame
    ahead: pl.DataFrame
    stale: pl.DataFrame

    def and_also(self, other: Standing) -> Standing:
        """The rows of both, by number."""
        pairs = zip(self._frames(), other._frames(), strict=True)
        return Standing(*(pl.concat(pair).sort("number") for pair in pairs))

    def _frames(self) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
        return self.valid, self.ahead, self.stale


@dataclass(frozen=True)
class Reorganisation:
    """Stored blocks that another branch of the chain took the place of.

    Attributes:
        first_replaced: number of the lowest of them.
        depth: from there up to the newest of them, that one included.
        blocks_replaced: how many were stored.
        old_hash: hash that the first replaced block had.
        new_hash: hash of the block in its place; none if the new branch does not reach it.
        days: the days whose rows it changed.
    """

    first_replaced: int
    depth: int
    blocks_replaced: int
    old_hash: str
    new_hash: str | None
    days: tuple[date, ...]


def standing(node: Node, stored: StoredChain, days: Sequence[date], tips: Tips) -> Standing:
    """What the node says of the stored blocks of ``days`` and of the days next to them.

    Where some are stale, so may be blocks of any later day, and of earlier ones as long as the
    oldest that was looked at is stale: those are looked at as well.

    Raises:
        UnusableAnswerError: the node is behind blocks that are stored as finalized.
        WorldUnreachableError: the node stayed down through every retry.
    """
    first, *_, last = near = around(days)
    found = compare(node, stored.headers(near), tips)
    if found.stale.height:
        others = stored.days()
        found = found.and_also(
            compare(node, stored.headers([day for day in others if day > last]), tips)
        )
        for day in reversed([day for day in others if day < first]):
            if not _goes_deeper(found):
                break
            found = found.and_also(compare(node, stored.headers([day]), tips))
        # What is newer than the node's newest block was built on what it no longer has.
        found = Standing(
            found.valid, found.ahead.clear(), pl.concat([found.stale, found.ahead]).sort("number")
        )
    _refuse_behind(found.ahead)
    return found


def around(days: Sequence[date]) -> list[date]:
    """``days`` with the day before and the day after."""
    return [days[0] - _DAY, *days, days[-1] + _DAY]


def compare(node: Node, headers: pl.DataFrame, tips: Tips) -> Standing:
    """What the node says of ``headers``, rows of ``HEADER`` by number."""
    repeated = pl.len().over("number") > 1
    damaged, sound = headers.filter(repeated), headers.filter(~repeated)
    segments = _segments(sound)
    ends = [min(rows["number"][-1], tips.latest) for rows in segments]
    agreed = _agree(node, segments, ends)
    parts = [
        _split(node, rows, end, agrees=agrees, tips=tips)
        for rows, end, agrees in zip(segments, ends, agreed, strict=True)
    ]
    empty = headers.clear()
    whole = Standing(empty, empty, damaged)
    for part in parts:
        whole = whole.and_also(part)
    return _without_damaged(whole)


def reorganisation(stale: pl.DataFrame, rows: pl.DataFrame) -> Reorganisation | None:
    """The reorganisation in which ``rows`` took the place of ``stale`` ones, if it is one.

    It is none where the same blocks came back, which only mends damaged rows.
    """
    new = dict(rows.select("number", "hash").iter_rows())
    replaced = stale.filter(~pl.col("hash").is_in(list(new.values())))
    if replaced.is_empty():
        return None
    first, newest = replaced["number"][0], replaced["number"][-1]
    changed = rows.filter(pl.col("number") >= first)["date"]
    return Reorganisation(
        first_replaced=first,
        depth=newest - first + 1,
        blocks_replaced=replaced["number"].n_unique(),
        old_hash=replaced["hash"][0],
        new_hash=new.get(first),
        days=tuple(sorted({*replaced["date"], *changed})),
    )


def _segments(headers: pl.DataFrame) -> list[pl.DataFrame]:
    """``headers``, by unique numbers, in runs in which each is the child of the one below."""
    follows = (pl.col("number") == pl.col("number").shift(1) + 1) & (
        pl.col("parent_hash") == pl.col("hash").shift(1)
    )
    begins = headers.select((~follows).fill_null(value=True).cum_sum().alias("segment"))
    return headers.with_columns(begins).partition_by(
        "segment", maintain_order=True, include_key=False
    )


def _agree(node: Node, segments: Sequence[pl.DataFrame], ends: Sequence[int]) -> list[bool]:
    """Whether the node has the block at each segment's end, all asked at once."""
    asked = [i for i, rows in enumerate(segments) if ends[i] >= rows["number"][0]]
    found = dict(zip(asked, hashes(node, [ends[i] for i in asked]), strict=True))
    return [
        i in found and rows["hash"][end - rows["number"][0]] == found[i]
        for i, (rows, end) in enumerate(zip(segments, ends, strict=True))
    ]


def _split(node: Node, rows: pl.DataFrame, end: int, *, agrees: bool, tips: Tips) -> Standing:
    """One segment, whose block number ``end`` the node has or not."""
    first, last = rows["number"][0], rows["number"][-1]
    newest = end if agrees else _ancestor(node, rows, min(last, tips.latest) - 1)
    valid, above = rows.head(newest - first + 1), rows.slice(newest - first + 1)
    # Up to the node's end all is the same: it need not have left this branch.
    prefix = newest == tips.latest or first > tips.latest
    return Standing(valid, above if prefix else above.clear(), above.clear() if prefix else above)


def _ancestor(node: Node, rows: pl.DataFrame, highest: int) -> int:
    """Number of the newest block of ``rows`` up to ``highest`` that the node has, if any."""
    first = int(rows["number"][0])

    def held(numbers: Sequence[int]) -> list[bool]:
        stored = [rows["hash"][number - first] for number in numbers]
        return [ours == theirs for ours, theirs in zip(stored, hashes(node, numbers), strict=True)]

    return last_holding(first, highest, held)


def _without_damaged(found: Standing) -> Standing:
    """Valid rows that name another parent than the valid block below them are damaged."""
    follows = pl.col("number") == pl.col("number").shift(1) + 1
    torn = (follows & (pl.col("parent_hash") != pl.col("hash").shift(1))).fill_null(value=False)
    marked = found.valid.with_columns(torn=torn)
    whole, damaged = (marked.filter(pl.col("torn") == kind).drop("torn") for kind in (False, True))
    return Standing(whole, found.ahead, pl.concat([found.stale, damaged]).sort("number"))


def _goes_deeper(found: Standing) -> bool:
    """Whether the lowest of all blocks is stale, so that the ancestor must lie further below."""
    rest = pl.concat([found.valid, found.ahead])["number"]
    lowest = found.stale["number"][0]
    return rest.is_empty() or lowest < rest[0]


def _refuse_behind(ahead: pl.DataFrame) -> None:
    final = ahead.filter(pl.col("finality") == "finalized").tail(1)
    if final.is_empty():
        return
    number, day = final["number"].item(), final["date"].item()
    message = (
        f"{TABLE} {day}: the node has no block {number} of that day, which is stored as "
        "finalized: it is behind. Wait for it to catch up, or read from another node"
    )
    raise UnusableAnswerError(message)
