from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl

from cryptoml_assets.onchain.blocks import SCHEMA, frame_of, summarise
from cryptoml_assets.onchain.quality import (
    backward_times,
    broken_links,
    incomplete_rows,
    midnight_gaps,
    overdue_finality,
    repeated_keys,
    schema_problems,
)
from cryptoml_assets.onchain.tips import Tips
from tests.fake_chain import FakeChain

START = datetime(2024, 3, 1, tzinfo=UTC)


def chain(numbers, hours=4, **overrides):
    """Blocks of four hours: six a day from number 0 on 2024-03-01."""
    rows = [
        {
            "chain_id": 1,
            "number": n,
            "hash": f"h{n}",
            "parent_hash": f"h{n - 1}",
            "timestamp": START + timedelta(hours=hours * n),
            "finality": "finalized",
        }
        | overrides.get(f"block_{n}", {})
        for n in numbers
    ]
    return pl.DataFrame(rows).with_columns(date=pl.col("timestamp").dt.date())


def test_a_sound_chain_has_no_broken_link_in_whatever_order():
    blocks = chain(range(24))
    for stored in (blocks, blocks.reverse(), blocks.head(0), blocks.head(1)):
        assert broken_links(stored).is_empty()
        assert midnight_gaps(stored).is_empty()


def test_another_parent_is_a_broken_link_within_a_day_and_across_midnight():
    within = broken_links(chain(range(12), block_4={"parent_hash": "other"}))
    across = broken_links(chain(range(12), block_6={"parent_hash": "other"}))
    assert within.select("number", "previous_number", "previous_hash").rows() == [(4, 3, "h3")]
    assert across["number"].to_list() == [6]


def test_blocks_missing_within_a_day_are_a_broken_link():
    assert broken_links(chain([0, 1, 3, 4]))["number"].to_list() == [3]


def test_blocks_missing_before_midnight_are_an_unfinished_day():
    blocks = chain([0, 1, 2, 6, 7])
    assert broken_links(blocks).is_empty()
    assert midnight_gaps(blocks)["number"].to_list() == [6]


def test_days_never_read_are_no_gap():
    blocks = chain([*range(6), *range(18, 24)])
    assert broken_links(blocks).is_empty()
    assert midnight_gaps(blocks).is_empty()


def test_repeated_keys_are_counted():
    blocks = pl.concat([chain(range(6)), chain([2, 2, 4])])
    assert repeated_keys(blocks, ("chain_id", "number")).rows() == [(1, 2, 3), (1, 4, 2)]
    assert repeated_keys(chain(range(6)), ("chain_id", "number")).is_empty()


def test_old_blocks_that_are_not_final_are_overdue():
    blocks = chain(range(4), hours=1, block_1={"finality": "safe"}, block_3={"finality": "latest"})
    now = START + timedelta(hours=3, minutes=20)
    delay = timedelta(minutes=15)
    assert overdue_finality(blocks, now, delay)["number"].to_list() == [1]
    later = now + timedelta(minutes=11)
    assert overdue_finality(blocks, later, delay)["number"].to_list() == [1, 3]


def test_a_block_earlier_than_the_one_before_is_listed():
    blocks = chain(range(9))
    assert backward_times(blocks.reverse()).is_empty()
    early = pl.col("timestamp") - timedelta(hours=9)
    torn = blocks.with_columns(
        timestamp=pl.when(pl.col("number") == 5).then(early).otherwise("timestamp")
    )
    (found,) = backward_times(torn).rows(named=True)
    assert (found["number"], found["previous_number"]) == (5, 4)


def test_columns_that_are_not_as_described_are_listed():
    assert schema_problems(SCHEMA).is_empty()
    other = {name: kind for name, kind in SCHEMA.items() if name != "fees_wei"}
    other |= {"gas_used": pl.Float64, "mood": pl.String}
    assert schema_problems(pl.Schema(other)).rows() == [
        ("gas_used", "Int64", "Float64"),
        ("fees_wei", "Decimal(precision=38, scale=0)", "none"),
        ("mood", "no such column", "String"),
    ]


def test_rows_without_what_every_block_has_are_listed():
    blocks = FakeChain(4).blocks
    rows = frame_of(
        summarise(b, chain_id=1, source="simulated", tips=Tips(3, None, None)) for b in blocks
    )
    assert incomplete_rows(rows.lazy()).is_empty()  # fees and blobs may be null
    torn = rows.with_columns(
        pl.when(pl.col("number") == 2).then(None).otherwise(pl.col(name)).alias(name)
        for name in ("hash", "source", "base_fee_per_gas")
    )
    (found,) = incomplete_rows(torn.lazy()).rows(named=True)
    assert (found["number"], found["nulls"]) == (2, "hash, source")
