"""The blocks that the lake has, as far as telling branches of a chain apart needs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import polars as pl

from cryptoml_assets.errors import LakeError
from cryptoml_assets.onchain.blocks import SCHEMA
from cryptoml_assets.onchain.tips import Tips
from cryptoml_assets.resources.lake import Lake, Stored
from cryptoml_serving.contract.settings import World

TABLE = "onchain_blocks"
#: Columns of a stored block that are held in memory.
HEADER = pl.Schema(
    {
        name: SCHEMA[name]
        for name in ("number", "hash", "parent_hash", "timestamp", "finality", "date")
    }
)


@dataclass(frozen=True)
class StoredChain:
    """The rows of ``onchain_blocks`` in a lake."""

    lake: Lake

    def headers(self, days: Sequence[date]) -> pl.DataFrame:
        """Rows of ``HEADER`` of ``days``, by number."""
        if not days or not self.lake.exists(TABLE):
            return pl.DataFrame(schema=HEADER)
        return self.lake.scan(TABLE, days).select(HEADER.names()).sort("number").collect()

    def days(self) -> tuple[date, ...]:
        """The days that have rows, oldest first."""
        if not self.lake.exists(TABLE):
            return ()
        rows = self.lake.scan(TABLE).select(pl.col("date").unique().sort()).collect()
        return tuple(rows["date"].to_list())

    def is_up_to_date(self) -> bool:
        """Whether the table exists and has every column of ``SCHEMA``."""
        return self.lake.exists(TABLE) and set(SCHEMA) <= set(self.lake.schema(TABLE))

    def check_fits(self, days: Sequence[date], chain_id: int, source: str) -> None:
        """Refuse blocks of a chain or world that cannot stand next to those of ``days``.

        Raises:
            LakeError: the stored blocks are of another chain, or live ones and others would mix.
        """
        if not self.lake.exists(TABLE):
            return
        kinds = self.lake.scan(TABLE, days).select("chain_id", "source").unique().collect()
        live = World.LIVE.value
        for stored_id, stored_source in kinds.iter_rows():
            if stored_id != chain_id or (stored_source == live) != (source == live):
                message = (
                    f"{TABLE} holds {stored_source} blocks of chain {stored_id}, and {source} ones "
                    f"of chain {chain_id} do not go with them: give each its own CRYPTOML_LAKE"
                )
                raise LakeError(message)

    def rewrite(
        self, days: Sequence[date], rows: pl.DataFrame, stale: pl.DataFrame, tips: Tips
    ) -> Stored:
        """Put ``rows`` in the place of ``stale`` ones, in one commit.

        Other rows of ``days`` stay; of those that a tip has reached meanwhile, ``finality`` rises.

        Args:
            days: the days that ``rows`` and ``stale`` are of, and more.
            rows: new rows of ``SCHEMA``; a stored one of the same number goes.
            stale: rows of ``HEADER`` to remove.
            tips: what is safe and finalized.
        """

        def change(stored: pl.DataFrame) -> pl.DataFrame:
            gone = pl.col("hash").is_in(stale["hash"].implode()) | pl.col("number").is_in(
                rows["number"].implode()
            )
            kept = stored.filter(~gone).with_columns(risen(tips).alias("finality"))
            return pl.concat([kept, rows], how="diagonal").sort("number")

        return self.lake.rewrite_days(TABLE, days, change, SCHEMA)


def risen(tips: Tips) -> pl.Expr:
    """``finality`` of blocks that are still of the chain; a tag once had is never taken back."""
    number, finality = pl.col("number"), pl.col("finality")
    return (
        pl.when(number <= _or_none(tips.finalized))
        .then(pl.lit("finalized"))
        .when((number <= _or_none(tips.safe)) & (finality == "latest"))
        .then(pl.lit("safe"))
        .otherwise(finality)
    )


def _or_none(number: int | None) -> int:
    """``number``, or one below every block's."""
    return -1 if number is None else number
