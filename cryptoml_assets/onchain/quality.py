"""What can be wrong with stored blocks, as frames of the offending rows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import polars as pl

from cryptoml_assets.onchain.blocks import REQUIRED, SCHEMA


def schema_problems(schema: pl.Schema) -> pl.DataFrame:
    """Columns that ``onchain_blocks`` lacks, has of another type, or should not have.

    Columns: column, expected, found.
    """
    names = dict.fromkeys((*SCHEMA, *schema))
    rows = [
        (name, str(SCHEMA.get(name, "no such column")), str(schema.get(name, "none")))
        for name in names
        if SCHEMA.get(name) != schema.get(name)
    ]
    columns = {"column": pl.String, "expected": pl.String, "found": pl.String}
    return pl.DataFrame(rows, schema=columns, orient="row")


def incomplete_rows(blocks: pl.LazyFrame) -> pl.DataFrame:
    """Blocks in which a column is null that every block of every chain has.

    Columns: number, hash, date, nulls (the names of those columns).
    """
    columns = set(blocks.collect_schema())
    absent = [
        pl.when(pl.col(name).is_null()).then(pl.lit(name)) for name in REQUIRED if name in columns
    ]
    nulls = pl.concat_list(absent).list.drop_nulls().list.join(", ")
    shown = [name for name in ("number", "hash", "date") if name in columns]
    return blocks.select(*shown, nulls=nulls).filter(pl.col("nulls") != "").collect()


def broken_links(blocks: pl.DataFrame) -> pl.DataFrame:
    """Neighbouring stored blocks that cannot be of one chain: one row per such block.

    Columns: number, date, hash, parent_hash, previous_number, previous_hash. A block breaks the
    chain when its parent hash is not the hash of the block one below, or when blocks are missing
    between it and the block before it of the same day. Repeated numbers are not looked at here.
    """
    pairs = _pairs(blocks)
    follows = pl.col("number") == pl.col("previous_number") + 1
    other_parent = follows & (pl.col("parent_hash") != pl.col("previous_hash"))
    missing = (pl.col("number") > pl.col("previous_number") + 1) & (
        pl.col("date") == pl.col("previous_date")
    )
    return pairs.filter(other_parent | missing).drop("previous_date")


def midnight_gaps(blocks: pl.DataFrame) -> pl.DataFrame:
    """First blocks of days whose day before is stored, but not up to midnight.

    Columns as of ``broken_links``. The day before was read while it was in progress.
    """
    next_day = pl.col("date") == pl.col("previous_date") + pl.duration(days=1)
    missing = pl.col("number") > pl.col("previous_number") + 1
    return _pairs(blocks).filter(next_day & missing).drop("previous_date")


def backward_times(blocks: pl.DataFrame) -> pl.DataFrame:
    """Blocks that carry an earlier timestamp than the stored block before them.

    Columns: number, hash, timestamp, previous_number, previous_timestamp.
    """
    columns = ["number", "hash", "timestamp"]
    return (
        blocks.select(columns)
        .sort("number")
        .with_columns(
            previous_number=pl.col("number").shift(1),
            previous_timestamp=pl.col("timestamp").shift(1),
        )
        .filter(pl.col("timestamp") < pl.col("previous_timestamp"))
    )


def repeated_keys(rows: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    """Keys that more than one row has, with their number of rows in ``rows``."""
    counts = rows.group_by(key).agg(rows=pl.len())
    return counts.filter(pl.col("rows") > 1).sort(key)


def overdue_finality(blocks: pl.DataFrame, now: datetime, delay: timedelta) -> pl.DataFrame:
    """Blocks older than twice ``delay`` that were not yet finalized when they were read."""
    # Ethereum finalizes after 13 to 20 minutes when healthy; twice the delay is not jitter.
    return blocks.filter(
        (pl.col("timestamp") < now - 2 * delay) & (pl.col("finality") != "finalized")
    ).sort("number")


def _pairs(blocks: pl.DataFrame) -> pl.DataFrame:
    """Each block next to the stored block before it; the very first has none and is left out."""
    columns = ["number", "date", "hash", "parent_hash"]
    ordered = blocks.select(columns).unique().sort("number")
    return ordered.with_columns(
        previous_number=pl.col("number").shift(1),
        previous_hash=pl.col("hash").shift(1),
        previous_date=pl.col("date").shift(1),
    ).filter(pl.col("previous_number").is_not_null())
