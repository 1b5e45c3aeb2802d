"""Whatever a chain does between runs and whatever they cover, the end is that of one fresh run."""

from __future__ import annotations

import tempfile
from datetime import timedelta

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoml_assets.errors import UnusableAnswerError
from cryptoml_assets.onchain.blocks import SCHEMA
from cryptoml_assets.onchain.ingest import ingest_blocks
from cryptoml_assets.onchain.stored import TABLE
from cryptoml_assets.resources.lake import Lake
from tests.fake_chain import START, FakeChain

HOUR = 3600
DAYS = [(START + timedelta(days=n)).date() for n in range(30)]

EXTEND = st.tuples(st.just("extend"), st.integers(1, 40), st.sampled_from([HOUR, 4 * HOUR]))
# A branch that ends where the old one parts from it cannot be told from a node that is behind.
REORG = st.tuples(st.just("reorg"), st.integers(1, 40), st.integers(1, 50))
READ = st.tuples(st.just("read"), st.integers(0, 6), st.integers(1, 4))


def content(lake):
    return lake.scan(TABLE).select(SCHEMA.names()).sort("number").collect()


def bring(node, lake, days):
    return ingest_blocks(node, lake, days, chain_id=1, receipts=False)


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(st.one_of(EXTEND, REORG, READ, READ), min_size=1, max_size=10))
def test_the_end_is_that_of_a_fresh_run(steps):
    node = FakeChain(30, pace=2 * HOUR)
    with tempfile.TemporaryDirectory() as folder:
        lake, fresh = Lake(f"{folder}/lake"), Lake(f"{folder}/fresh")
        for what, one, two in steps:
            if what == "extend":
                node.extend(one, two)
            elif what == "reorg":
                node.reorganise(min(one, node.latest), two)
            else:
                days = DAYS[one : one + two]
                try:
                    report = bring(node, lake, days)
                except UnusableAnswerError:
                    # All stored blocks around are past its tip: it may as well be behind.
                    assert final_around(lake, days) > node.latest
                    continue
                told = {day for reorg in report.reorgs for day in reorg.days}
                assert told <= set(report.stored.days_changed)
                check_days_are_the_nodes(node, lake, days)
                for reorg in report.reorgs[-1:]:
                    check_nothing_of_the_old_branch_is_left(node, lake, reorg.first_replaced)
        node.extend(50, HOUR)  # past whatever was stored
        bring(node, lake, DAYS)
        bring(node, fresh, DAYS)
        assert content(lake).equals(content(fresh))
        node.forget()
        version = lake.version(TABLE)
        assert bring(node, lake, DAYS).blocks_read == 0
        assert (node.full, lake.version(TABLE)) == ([], version)


def final_around(lake, days):
    """Number of the newest finalized block that is stored of ``days`` and those next to them."""
    near = [days[0] - timedelta(days=1), *days, days[-1] + timedelta(days=1)]
    final = content(lake).filter(pl.col("date").is_in(near), finality="finalized")
    return final["number"].max()


def stored_hashes(lake, condition):
    return dict(content(lake).filter(condition).select("number", "hash").iter_rows())


def hashes_of(node):
    return {int(block["number"], 16): block["hash"] for block in node.blocks}


def check_days_are_the_nodes(node, lake, days):
    """The rows of the days of a run are the node's, all of them; it may lack the newest."""
    stored = stored_hashes(lake, pl.col("date").is_in(days) & (pl.col("number") <= node.latest))
    times = {int(b["number"], 16): int(b["timestamp"], 16) - START.timestamp() for b in node.blocks}
    own = {n for n, seconds in times.items() if (START + timedelta(seconds=seconds)).date() in days}
    assert stored == {n: h for n, h in hashes_of(node).items() if n in own}


def check_nothing_of_the_old_branch_is_left(node, lake, first):
    """From right below the first replaced block on, on whatever days, all rows are the node's."""
    stored = stored_hashes(lake, pl.col("number") >= first - 1)
    assert stored.items() <= hashes_of(node).items()
