"""What a lake holds against what it should: rows lost, duplicated and torn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl
from deltalake import DeltaTable

from cryptoml_assets.onchain.blocks import KEY as BLOCK_KEY
from cryptoml_assets.prices.bars import KEY as BAR_KEY
from cryptoml_assets.prices.ledger import LEDGER_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime, timedelta

    from cryptoml_assets.resources.lake import Lake

KEYS = {
    "raw_prices": tuple(BAR_KEY),
    "price_ledger": tuple(LEDGER_KEY),
    "onchain_blocks": tuple(BLOCK_KEY),
}
Content = dict[str, pl.DataFrame]


@dataclass(frozen=True)
class Difference:
    """How much of a lake is not as it should be, and the first of it in words."""

    lost: int = 0
    duplicated: int = 0
    torn: int = 0
    seen: tuple[str, ...] = ()

    def __add__(self, other: Difference) -> Difference:
        return Difference(
            self.lost + other.lost,
            self.duplicated + other.duplicated,
            self.torn + other.torn,
            (self.seen + other.seen)[:10],
        )

    def __bool__(self) -> bool:
        return bool(self.lost or self.duplicated or self.torn)


def content(lake: Lake, tables: tuple[str, ...]) -> Content:
    """Every row of ``tables``; a table that does not exist has none."""
    return {table: lake.scan(table).collect() for table in tables if lake.exists(table)}


def compare(found: Mapping[str, pl.DataFrame], reference: Mapping[str, pl.DataFrame]) -> Difference:
    """All tables of a lake against those of an undisturbed one: every row, every column."""
    difference = Difference()
    for table, right in reference.items():
        if table in found:
            difference += compare_rows(table, found[table], right)
        else:
            difference += Difference(lost=right.height, seen=(f"{table}: no such table",))
    return difference


def compare_rows(table: str, found: pl.DataFrame, right: pl.DataFrame) -> Difference:
    """Rows of one table: absent ones, keys that are there twice, and ones that differ or invent."""
    if found.schema != right.schema:
        return Difference(torn=1, seen=(f"{table}: columns {found.schema} not {right.schema}",))
    key = KEYS[table]
    twice = repeated(table, found)
    lost = right.join(found, on=key, how="anti", nulls_equal=True)
    # What is there but in neither equal form nor lost: another row than the right one.
    torn = found.join(right, on=right.columns, how="anti", nulls_equal=True)
    seen = [f"{table}: {name} {row}" for name, rows in _named(lost, twice, torn) for row in rows]
    difference = Difference(lost.height, twice.height, torn.height, tuple(seen))
    same = found.sort(pl.all()).equals(right.sort(pl.all()))
    assert same == (not difference), f"{table}: the counts do not tell what sorted rows tell"
    return difference


def _named(
    lost: pl.DataFrame, twice: pl.DataFrame, torn: pl.DataFrame
) -> Iterator[tuple[str, list[dict[str, object]]]]:
    for name, rows in (("lost", lost), ("duplicated", twice), ("torn", torn)):
        yield name, rows.head(2).to_dicts()


def repeated(table: str, rows: pl.DataFrame) -> pl.DataFrame:
    """The keys that ``rows`` holds more than once."""
    return rows.group_by(KEYS[table]).len().filter(pl.col("len") > 1)


def broken_chain(blocks: pl.DataFrame) -> pl.DataFrame:
    """The blocks that are no child of the block one lower that is stored with them."""
    ordered = blocks.sort("number")
    follows = pl.col("number").diff() == 1
    return ordered.filter(follows & (pl.col("parent_hash") != pl.col("hash").shift(1)))


def halved_days(bars: pl.DataFrame, right: pl.DataFrame, settled_until: datetime) -> pl.DataFrame:
    """Symbols and days of which some settled bars are stored and others are not."""
    grain = ["symbol", "date"]
    settled = pl.col("close_time") <= settled_until
    have = bars.filter(settled).group_by(grain).len("have")
    want = right.filter(settled).group_by(grain).len("want")
    return have.join(want, on=grain, how="left").filter(pl.col("have").ne_missing(pl.col("want")))


def empty_claims(ledger: pl.DataFrame, bars: pl.DataFrame, bar: timedelta) -> pl.DataFrame:
    """Slots the ledger calls received without a stored bar."""
    return slots(ledger.filter(status="received"), bar).join(bars, on=BAR_KEY, how="anti")


def slots(ledger: pl.DataFrame, bar: timedelta) -> pl.DataFrame:
    """The rows of a ledger once for each of their slots, which opens at ``open_time``."""
    opened = pl.datetime_ranges("start", "end", bar, closed="left").alias("open_time")
    return ledger.with_columns(opened).explode("open_time")


def versions(lake: Lake, table: str) -> list[tuple[int, int, pl.DataFrame]]:
    """Every version of ``table`` a reader could have met: instant in ms, number, rows."""
    if not lake.exists(table):
        return []
    commits = DeltaTable(lake.address(table)).history()
    numbered = sorted((entry["timestamp"], entry["version"]) for entry in commits)
    return [(at, number, lake.scan(table, version=number).collect()) for at, number in numbered]
