from __future__ import annotations

from datetime import timedelta

import polars as pl
import pytest

from cryptoml_assets.errors import UnusableAnswerError
from cryptoml_assets.onchain.blocks import frame_of, summarise
from cryptoml_assets.onchain.reorg import compare, reorganisation, standing
from cryptoml_assets.onchain.stored import HEADER, TABLE, StoredChain
from cryptoml_assets.onchain.tips import read_tips
from cryptoml_assets.resources.lake import Lake
from tests.fake_chain import START, FakeChain

HOUR = 3600
DAYS = [(START + timedelta(days=n)).date() for n in range(9)]


def rows_of(node, numbers=None):
    tips = read_tips(node, 1)
    asked = range(len(node.blocks)) if numbers is None else numbers
    return frame_of(
        summarise(node.blocks[n], chain_id=1, source="simulated", tips=tips) for n in asked
    )


def headers_of(node, numbers=None):
    return rows_of(node, numbers).select(HEADER.names())


def verdict(node, headers):
    found = compare(node, headers, read_tips(node, 1))
    return [frame["number"].to_list() for frame in (found.valid, found.ahead, found.stale)]


def test_blocks_of_the_chain_are_settled_by_one_hash():
    node = FakeChain(500)
    headers = headers_of(node)
    node.forget()
    assert verdict(node, headers) == [list(range(500)), [], []]
    assert node.headers == [499]


def test_every_unbroken_run_is_settled_by_itself():
    node = FakeChain(50)
    headers = headers_of(node, [*range(5, 9), *range(20, 30), 40])
    node.forget()
    assert verdict(node, headers) == [headers["number"].to_list(), [], []]
    assert node.headers == [8, 29, 40]


@pytest.mark.parametrize("depth", [1, 2, 13, 64, 499])
def test_blocks_of_another_branch_are_told_from_those_below_the_ancestor(depth):
    node = FakeChain(500)
    headers = headers_of(node)
    first = node.reorganise(depth, depth + 3)
    node.forget()
    assert verdict(node, headers) == [list(range(first)), [], list(range(first, 500))]
    assert node.batches <= 5


def test_a_chain_of_which_nothing_is_left_is_stale_as_a_whole():
    node, other = FakeChain(40), FakeChain(40, pace=30)
    assert verdict(other, headers_of(node, range(7, 40))) == [[], [], list(range(7, 40))]


def test_a_shorter_branch_leaves_nothing_of_the_longer_one():
    node = FakeChain(50)
    headers = headers_of(node)
    node.reorganise(10, 4)
    assert verdict(node, headers) == [list(range(40)), [], list(range(40, 50))]


def test_a_node_that_only_lacks_the_newest_blocks_is_behind_not_reorganised():
    node = FakeChain(50)
    headers = headers_of(node)
    del node.blocks[45:]
    assert verdict(node, headers) == [list(range(45)), list(range(45, 50)), []]
    assert verdict(node, headers_of(FakeChain(60), range(50, 60))) == [[], [*range(50, 60)], []]


def test_repeated_and_torn_rows_are_damaged():
    node = FakeChain(20)
    headers = headers_of(node)
    torn = headers.with_columns(
        parent_hash=pl.when(pl.col("number") == 7).then(pl.lit("0x0")).otherwise("parent_hash")
    )
    damaged = pl.concat([torn, torn.filter(pl.col("number") == 3)]).sort("number")
    valid, ahead, stale = verdict(node, damaged)
    assert (ahead, stale) == ([], [3, 3, 7])
    assert valid == [n for n in range(20) if n not in {3, 7}]


@pytest.fixture
def stored(tmp_path):
    return StoredChain(Lake(str(tmp_path / "lake")))


def put(stored, rows):
    stored.lake.replace_days(TABLE, rows, rows["date"].unique().to_list())


def test_the_ancestor_is_followed_back_past_the_days_of_the_run_and_their_neighbours(stored):
    node = FakeChain(24 * 8, pace=HOUR)
    put(stored, rows_of(node))
    node.reorganise(24 * 5 + 2, 24 * 5 + 3)
    found = standing(node, stored, DAYS[7:8], read_tips(node, 1))
    assert found.stale["number"].to_list() == list(range(24 * 3 - 2, 24 * 8))
    assert found.valid["date"].unique().sort().to_list() == DAYS[2:3]


def test_without_a_stale_block_only_the_days_around_the_run_are_looked_at(stored):
    node = FakeChain(24 * 8, pace=HOUR)
    put(stored, rows_of(node))
    found = standing(node, stored, DAYS[4:5], read_tips(node, 1))
    assert found.valid["date"].unique().sort().to_list() == DAYS[3:6]
    assert found.stale.is_empty()


def test_a_stale_block_puts_those_of_all_later_days_in_doubt(stored):
    node = FakeChain(24 * 8, pace=HOUR)
    put(stored, rows_of(node).filter(~pl.col("date").is_in(DAYS[3:6])))
    node.reorganise(24 * 6, 24 * 7)
    found = standing(node, stored, DAYS[1:2], read_tips(node, 1))
    assert found.stale["date"].unique().sort().to_list() == [DAYS[2], *DAYS[6:8]]
    assert found.valid["date"].unique().sort().to_list() == DAYS[:2]


def test_a_node_behind_what_is_stored_as_final_is_refused(stored):
    node = FakeChain(24 * 2, pace=HOUR)
    put(stored, rows_of(node))
    del node.blocks[36:]
    tips = read_tips(node, 1)
    with pytest.raises(UnusableAnswerError, match=r"2024-03-02: the node has no block 39 of that"):
        standing(node, stored, DAYS[:2], tips)


def test_a_node_behind_what_is_not_final_may_be_read_on_with(stored):
    node = FakeChain(24 * 2, pace=HOUR)
    put(stored, rows_of(node))
    del node.blocks[40:]
    found = standing(node, stored, DAYS[:2], read_tips(node, 1))
    assert found.ahead["number"].to_list() == list(range(40, 48))
    assert found.stale.is_empty()


def test_what_a_reorganisation_replaced():
    node = FakeChain(50, pace=HOUR)
    old = headers_of(node).filter(pl.col("number") >= 40)
    node.reorganise(10, 13)
    new = rows_of(node, range(40, 53))
    found = reorganisation(old, new)
    assert found is not None
    assert (found.first_replaced, found.depth, found.blocks_replaced) == (40, 10, 10)
    assert (found.old_hash, found.new_hash) == (old["hash"][0], new["hash"][0])
    assert found.days == tuple(DAYS[1:3])
    shorter = reorganisation(old, new.head(0))
    assert shorter is not None
    assert shorter.new_hash is None


def test_the_same_blocks_read_again_are_no_reorganisation():
    rows = rows_of(FakeChain(20), range(7, 9))
    assert reorganisation(rows.select(HEADER.names()), rows) is None
