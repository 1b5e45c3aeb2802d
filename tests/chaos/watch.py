"""What a reader of the lake may see: at any version whole days, unique keys and one chain."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

import polars as pl

from cryptoml_assets.prices.ledger import LEDGER_SCHEMA
from tests.chaos.content import (
    Difference,
    broken_chain,
    empty_claims,
    halved_days,
    repeated,
    versions,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime, timedelta
    from types import TracebackType

    from cryptoml_assets.resources.lake import Lake


def check_prices_at(
    bars: pl.DataFrame, right: pl.DataFrame, settled_until: datetime, vanishing: str | None
) -> Difference:
    """One version of the bars: keys, values, and no day of which only a part is stored."""
    twice = repeated("raw_prices", bars)
    lasting = bars.filter(pl.col("symbol") != (vanishing or ""))
    half = halved_days(lasting, right, settled_until)
    seen = [f"raw_prices, while it ran: {row}" for row in (*twice.to_dicts(), *half.to_dicts())]
    return Difference(0, twice.height, half.height, tuple(seen[:3]))


def check_claims(ledger: pl.DataFrame, bars: pl.DataFrame, bar: timedelta) -> Difference:
    """The ledger, read before the bars: keys, and nothing claimed that is not stored."""
    twice, empty = repeated("price_ledger", ledger), empty_claims(ledger, bars, bar)
    seen = [f"price_ledger, while it ran: {row}" for row in (*twice.to_dicts(), *empty.to_dicts())]
    return Difference(0, twice.height, empty.height, tuple(seen[:3]))


def check_blocks_at(blocks: pl.DataFrame) -> Difference:
    """One version of the blocks: keys, and that each is a child of the one below it."""
    twice, broken = repeated("onchain_blocks", blocks), broken_chain(blocks)
    shown = broken.select("number", "date", "hash", "parent_hash").to_dicts()
    seen = [f"onchain_blocks, while it ran: {row}" for row in (*twice.to_dicts(), *shown)]
    return Difference(0, twice.height, broken.height, tuple(seen[:3]))


def look_at_prices(
    lake: Lake, right: pl.DataFrame, settled_until: datetime, bar: timedelta, vanishing: str | None
) -> Difference:
    """The newest bars and ledger, the ledger read first: bars are written before it."""
    if not lake.exists("raw_prices"):
        return Difference()
    empty_ledger = pl.DataFrame(schema=LEDGER_SCHEMA)
    ledger = lake.scan("price_ledger").collect() if lake.exists("price_ledger") else empty_ledger
    bars = lake.scan("raw_prices").collect()
    return check_prices_at(bars, right, settled_until, vanishing) + check_claims(ledger, bars, bar)


def look_at_blocks(lake: Lake) -> Difference:
    """The newest blocks."""
    if not lake.exists("onchain_blocks"):
        return Difference()
    return check_blocks_at(lake.scan("onchain_blocks").collect())


def walk_prices(
    lake: Lake, right: pl.DataFrame, settled_until: datetime, bar: timedelta, vanishing: str | None
) -> Difference:
    """Every version of the bars, and every one of the ledger over the bars of its instant."""
    stored, found = versions(lake, "raw_prices"), Difference()
    for _, _, bars in stored:
        found += check_prices_at(bars, right, settled_until, vanishing)
    for at, _, ledger in versions(lake, "price_ledger"):
        earlier = [bars for instant, _, bars in stored if instant <= at]
        found += check_claims(ledger, earlier[-1] if earlier else right.clear(), bar)
    return found


def walk_blocks(lake: Lake, *, shrinks: bool) -> Difference:
    """Every version of the blocks; unless one ``shrinks``, none lacks what one before had."""
    found, before = Difference(), None
    for _, number, blocks in versions(lake, "onchain_blocks"):
        found += check_blocks_at(blocks)
        if before is not None and not shrinks:
            gone = before.join(blocks, on=["chain_id", "number", "hash"], how="anti").height
            text = (f"onchain_blocks: version {number} lacks {gone} blocks of the one before",)
            found += Difference(lost=gone, seen=text if gone else ())
        before = blocks
    return found


class Reader:
    """Reads the lake over and over while a block runs, from a thread of its own.

    Args:
        look: reads once and tells what is not as it should be.
    """

    def __init__(self, look: Callable[[], Difference]) -> None:
        self.found = Difference()
        self.looks = 0
        self._look = look
        self._done = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._read, name="reader of the lake")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error

    def _read(self) -> None:
        try:
            while not self._done.wait(0.005):
                self.found += self._look()
                self.looks += 1
        except Exception as error:  # noqa: BLE001 - handed to the thread that waits
            self._error = error
