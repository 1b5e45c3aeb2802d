"""Bringing blocks up to date, over a chain in memory and a lake in a folder."""

from __future__ import annotations

import logging
from datetime import timedelta

import polars as pl
import pytest

from cryptoml_assets.errors import LakeError, UnusableAnswerError
from cryptoml_assets.onchain import ingest
from cryptoml_assets.onchain.blocks import SCHEMA
from cryptoml_assets.onchain.ingest import ingest_blocks
from cryptoml_assets.onchain.stored import TABLE
from cryptoml_assets.resources.lake import Lake
from tests.fake_chain import START, FakeChain

HOUR = 3600
DAYS = [(START + timedelta(days=n)).date() for n in range(9)]


@pytest.fixture
def lake(tmp_path):
    return Lake(str(tmp_path / "lake"))


@pytest.fixture
def fresh(tmp_path):
    """What a first run over days leaves."""

    def read(node, days, name="fresh"):
        other = Lake(str(tmp_path / name))
        bring(node, other, days)
        return content(other)

    return read


def bring(node, lake, days=DAYS, receipts=False, **more):
    return ingest_blocks(node, lake, days, chain_id=1, receipts=receipts, **more)


def content(lake, days=None):
    return lake.scan(TABLE, days).select(SCHEMA.names()).sort("number").collect()


def test_every_block_of_the_days_is_stored_and_nothing_else(lake):
    node = FakeChain(24 * 6, pace=HOUR)
    report = bring(node, lake, DAYS[1:4])
    stored = content(lake)
    assert stored.schema == SCHEMA
    assert stored["number"].to_list() == list(range(24, 96)) == sorted(node.full)
    assert stored["hash"].to_list() == [block["hash"] for block in node.blocks[24:96]]
    assert (report.blocks_read, report.blocks_kept, report.stored.rows) == (72, 0, 72)
    assert report.stored.days_changed == tuple(DAYS[1:4])


def test_days_before_and_after_the_chain_have_no_block(lake):
    node = FakeChain(24, pace=HOUR)
    early = [START.date() - timedelta(days=n) for n in (3, 2)]
    assert bring(node, lake, early).stored.rows == 0
    assert bring(node, lake, DAYS[4:6]).stored.rows == 0
    assert content(lake).schema == SCHEMA


def test_what_is_stored_is_not_read_again(lake):
    node = FakeChain(24 * 6 + 5, pace=HOUR)
    bring(node, lake, DAYS)
    version = lake.version(TABLE)
    node.forget()
    report = bring(node, lake, DAYS)
    assert (node.full, node.batches) == ([], 2)  # the tips, and the newest hash
    assert (report.blocks_read, report.blocks_kept) == (0, 24 * 6 + 5)
    assert lake.version(TABLE) == version
    node.extend(3)
    node.forget()
    assert bring(node, lake, DAYS[5:7]).blocks_read == 3
    assert sorted(node.full) == [149, 150, 151]


def test_gaps_are_filled_and_their_neighbours_kept(lake, fresh):
    node = FakeChain(24 * 5, pace=HOUR)
    bring(node, lake, DAYS[:1])
    bring(node, lake, DAYS[3:4])
    holey = content(lake, DAYS[:1]).filter(~pl.col("number").is_in([7, 8, 20]))
    lake.replace_days(TABLE, holey, DAYS[:1])
    node.forget()
    bring(node, lake, DAYS[:5])
    assert sorted(node.full) == [7, 8, 20, *range(24, 72), *range(96, 120)]
    assert content(lake).equals(fresh(node, DAYS[:5]))


@pytest.mark.parametrize("depth", [1, 2, 7, 24, 64])
def test_a_reorganisation_rewrites_exactly_its_rows_in_one_commit(lake, fresh, depth):
    node = FakeChain(24 * 4 + 3, pace=HOUR)
    bring(node, lake)
    before, version = content(lake), lake.version(TABLE)
    first = node.reorganise(depth)
    node.forget()
    report = bring(node, lake, DAYS[4:5])
    after = content(lake)
    assert sorted(node.full) == list(range(first, 99))
    assert after.equals(fresh(node, DAYS))
    assert after.filter(pl.col("number") < first).equals(before.filter(pl.col("number") < first))
    assert lake.version(TABLE) == version + 1
    (reorg,) = report.reorgs
    assert (reorg.first_replaced, reorg.depth, reorg.blocks_replaced) == (first, depth, depth)
    assert reorg.days == report.stored.days_changed == tuple(DAYS[first // 24 : 5])


def test_a_reorganisation_in_the_middle_of_a_day_leaves_the_files_of_other_days(lake):
    node = FakeChain(24 * 4 + 3, pace=HOUR)
    bring(node, lake)
    before = lake.day_versions(TABLE, DAYS)
    node.reorganise(2)
    bring(node, lake)
    after = lake.day_versions(TABLE, DAYS)
    assert [day for day in DAYS if before[day] != after[day]] == DAYS[4:5]


@pytest.mark.parametrize("pace", [HOUR // 2, HOUR, 2 * HOUR])
def test_a_branch_of_another_pace_moves_blocks_to_other_days(lake, fresh, pace):
    node = FakeChain(24 * 3, pace=HOUR)
    bring(node, lake)
    node.reorganise(30, 50, pace=pace)
    bring(node, lake, DAYS[2:3])
    bring(node, lake, DAYS[2:])
    assert content(lake).equals(fresh(node, DAYS))


def test_two_reorganisations_in_a_row(lake, fresh):
    node = FakeChain(24 * 3, pace=HOUR)
    bring(node, lake)
    for depth in (5, 30):
        node.reorganise(depth, depth + 1)
        assert len(bring(node, lake).reorgs) == 1
    assert content(lake).equals(fresh(node, DAYS))


def test_a_reorganisation_while_blocks_are_read_starts_over(lake, fresh, caplog):
    node = FakeChain(24 * 3, pace=HOUR)
    told = []

    def strike(batch):
        if batch == 8:
            node.before = None
            node.reorganise(30)

    node.before = strike
    with caplog.at_level(logging.WARNING):
        report = bring(node, lake, on_reorg=told.append)
    assert "does not follow the block before it" in caplog.text
    assert content(lake).equals(fresh(node, DAYS))
    assert report.reorgs == tuple(told)


def test_a_reorganisation_between_commits_is_repaired_at_once(lake, fresh, monkeypatch):
    monkeypatch.setattr(ingest, "_CHUNK", 20)
    node = FakeChain(24 * 3, pace=HOUR)

    struck = []

    def strike(_done, _total):
        if not struck:
            struck.append(node.reorganise(60))

    assert len(bring(node, lake, progress=strike).reorgs) == 1
    assert struck == [12]
    assert content(lake).equals(fresh(node, DAYS))


def test_a_node_that_never_makes_sense_is_given_up(lake):
    node = FakeChain(24, pace=HOUR)
    node.blocks[7] = node.blocks[7] | {"hash": "0xother"}
    with pytest.raises(UnusableAnswerError, match=r"2024-03-01: block 8 does not follow"):
        bring(node, lake)
    assert not lake.exists(TABLE)


def test_a_block_the_node_has_lost_is_asked_for_again_and_then_refused(lake):
    node = FakeChain(24, pace=HOUR)
    node.blocks[7] = node.blocks[6]
    with pytest.raises(UnusableAnswerError, match="asked for block 7, got"):
        bring(node, lake)
    assert node.headers.count(7) == 5


def test_a_node_that_is_behind_loses_nothing(lake):
    node = FakeChain(24 * 3, pace=HOUR)
    bring(node, lake)
    before, blocks = content(lake), list(node.blocks)
    del node.blocks[67:]
    bring(node, lake)
    assert content(lake).equals(before)  # none of the missing ones is final
    del node.blocks[40:]
    with pytest.raises(UnusableAnswerError, match="it is behind"):
        bring(node, lake)
    node.blocks = blocks
    assert bring(node, lake).blocks_read == 0
    assert content(lake).equals(before)


def test_finality_rises_without_reading_a_block_and_never_falls(lake):
    node = FakeChain(24 * 2, pace=HOUR)
    bring(node, lake)
    tags = ["latest"] * 4 + ["safe"] * 4
    assert content(lake)["finality"].tail(9).to_list() == ["finalized", *reversed(tags)]
    node.extend(10)
    node.forget()
    report = bring(node, lake, DAYS[2:3])  # yesterday's rows rise as well
    assert sorted(node.full) == list(range(48, 58))
    assert report.stored.days_changed == tuple(DAYS[1:3])
    assert content(lake, DAYS[1:2])["finality"].unique().to_list() == ["finalized"]
    before = content(lake)
    node.safe = node.finalized = None
    bring(node, lake)
    assert content(lake).equals(before)


def test_damaged_rows_are_mended_and_no_reorganisation(lake, fresh):
    node = FakeChain(24 * 2, pace=HOUR)
    bring(node, lake)
    torn = content(lake, DAYS[:1]).with_columns(
        parent_hash=pl.when(pl.col("number") == 7).then(pl.lit("0x0")).otherwise("parent_hash")
    )
    lake.replace_days(TABLE, pl.concat([torn, torn.head(1)]), DAYS[:1])
    node.forget()
    assert bring(node, lake).reorgs == ()
    assert sorted(node.full) == [0, 7]
    assert content(lake).equals(fresh(node, DAYS))


def test_long_backfills_are_written_as_they_come(lake, fresh, monkeypatch):
    monkeypatch.setattr(ingest, "_CHUNK", 30)
    monkeypatch.setattr(ingest, "_WINDOW", 3)
    node = FakeChain(24 * 8, pace=HOUR)
    seen = []
    report = bring(node, lake, progress=lambda done, total: seen.append((done, total)))
    assert lake.version(TABLE) >= 5
    assert seen[-1] == (48, 48)  # of the last window
    assert report.blocks_read == 192
    monkeypatch.undo()
    assert content(lake).equals(fresh(node, DAYS))


def test_what_was_written_before_a_failure_is_kept_and_built_on(lake, fresh, monkeypatch):
    monkeypatch.setattr(ingest, "_CHUNK", 30)
    node = FakeChain(24 * 8, pace=HOUR)

    def fail(batch):
        if batch == 14:
            message = "the node went away"
            raise RuntimeError(message)

    node.before = fail
    with pytest.raises(RuntimeError):
        bring(node, lake)
    kept = lake.row_count(TABLE)
    assert kept % 24 == 0
    assert kept > 0
    node.before = None
    node.forget()
    bring(node, lake)
    assert len(node.full) == 192 - kept
    assert content(lake).equals(fresh(node, DAYS))


def test_a_table_of_fewer_columns_is_widened(lake):
    node = FakeChain(24 * 2, pace=HOUR)
    bring(node, lake)
    whole = content(lake)
    older = Lake(lake.uri + "-older")
    lacking = ["fees_wei", "blob_gas_used", "withdrawn_gwei"]
    older.replace_days(TABLE, whole.drop(lacking), DAYS)
    node.receipts = fees
    node.extend(2)
    bring(node, older, DAYS[1:3], receipts=True)
    assert set(older.schema(TABLE)) == set(SCHEMA)
    assert content(older)["fees_wei"].to_list() == [*[None] * 48, 42000, 42000]
    assert content(older).drop(lacking).head(36).equals(whole.drop(lacking).head(36))


def fees(block):
    receipt = {"blockHash": block["hash"], "effectiveGasPrice": "0x1", "gasUsed": hex(21000)}
    return {"result": [receipt for _ in block["transactions"]]}


def test_receipts_are_read_only_if_wanted_and_there(lake, tmp_path, caplog):
    node = FakeChain(24, pace=HOUR, receipts=fees)
    bring(node, lake, receipts=True)
    assert content(lake)["fees_wei"].unique().to_list() == [42000]
    unwanted = Lake(str(tmp_path / "unwanted"))
    bring(node, unwanted, receipts=False)
    assert content(unwanted)["fees_wei"].null_count() == 24
    lacking = Lake(str(tmp_path / "lacking"))
    node.receipts = None
    with caplog.at_level(logging.WARNING):
        bring(node, lacking, receipts=True)
    assert content(lacking).equals(content(unwanted))
    assert caplog.text.count("no receipts") == 1


@pytest.mark.parametrize("changes", [{"source": "live"}, {"chain": "0x5"}])
def test_blocks_of_another_world_or_chain_do_not_mix(lake, changes):
    bring(FakeChain(24, pace=HOUR), lake)
    before = content(lake)
    other = FakeChain(48, pace=HOUR, **changes)
    with pytest.raises(LakeError, match="give each its own CRYPTOML_LAKE"):
        ingest_blocks(other, lake, DAYS, chain_id=int(other.chain, 16), receipts=False)
    assert content(lake).equals(before)
