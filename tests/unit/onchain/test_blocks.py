from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from cryptoml_assets.errors import UnusableAnswerError, WrongChainError
from cryptoml_assets.onchain.blocks import (
    MEANINGS,
    SCHEMA,
    Tips,
    check_attaches,
    check_not_behind,
    read_blocks,
    read_tips,
    summarise,
)

TIPS = Tips(latest=30, safe=20, finalized=10)
START = datetime(2024, 3, 1, tzinfo=UTC)


def block(number=5, **changes):
    return {
        "number": hex(number),
        "hash": f"0x{number:064x}",
        "parentHash": f"0x{number - 1:064x}",
        "timestamp": hex(int(START.timestamp()) + 60 * number),
        "miner": "0xmm",
        "gasUsed": "0x10",
        "gasLimit": "0x20",
        "baseFeePerGas": "0x3",
        "difficulty": "0x0",
        "transactions": [
            {"from": "0xaa", "to": "0xbb", "value": "0x5"},
            {"from": "0xbb", "to": None, "value": hex(10**24)},
        ],
    } | changes


def row(**changes):
    return summarise(block(**changes), chain_id=1, source="live", tips=TIPS)


@dataclass
class CannedNode:
    """Answers from a list of blocks; ``answers`` replaces what a method would say."""

    blocks: list[dict[str, Any]]
    tags: dict[str, int] = field(default_factory=dict)
    chain: str = "0x1"
    address: str = "http://node"
    work: str = "onchain_blocks 2024-03-01"
    source: str = "simulated"
    asked: list[int] = field(default_factory=list)

    def ask(self, calls):
        return [self._answer(method, params) for method, params in calls]

    def _answer(self, method, params):
        if method == "eth_chainId":
            return {"result": self.chain}
        number = params[0]
        if number in {"latest", "safe", "finalized"}:
            if number not in self.tags:
                return {"error": {"code": -39001, "message": "unknown block"}}
            number = hex(self.tags[number])
        self.asked.append(int(number, 16))
        return {"result": next((b for b in self.blocks if b["number"] == number), None)}


def node(count=31, **changes):
    tags = {"latest": count - 1, "safe": 20, "finalized": 10}
    return CannedNode([block(n) for n in range(count)], tags, **changes)


def test_every_column_is_described():
    assert all(MEANINGS.values())


def test_a_block_becomes_one_row():
    assert row() == {
        "chain_id": 1,
        "number": 5,
        "hash": f"0x{5:064x}",
        "parent_hash": f"0x{4:064x}",
        "timestamp": START + timedelta(minutes=5),
        "transaction_count": 2,
        "gas_used": 16,
        "gas_limit": 32,
        "base_fee_per_gas": 3,
        "difficulty": Decimal(0),
        "total_difficulty": None,
        "active_addresses": 3,
        "value_transferred_wei": Decimal(10**24 + 5),
        "burnt_wei": Decimal(48),
        "finality": "finalized",
        "source": "live",
        "date": date(2024, 3, 1),
    }
    assert list(row()) == list(MEANINGS)


@pytest.mark.parametrize(
    ("missing", "column"),
    [
        ("baseFeePerGas", "base_fee_per_gas"),
        ("baseFeePerGas", "burnt_wei"),
        ("gasUsed", "gas_used"),
        ("gasUsed", "burnt_wei"),
        ("gasLimit", "gas_limit"),
        ("difficulty", "difficulty"),
    ],
)
def test_a_field_the_node_lacks_is_null_not_zero(missing, column):
    assert row(**{missing: None})[column] is None


def test_an_empty_block_has_the_fee_recipient_as_only_address():
    empty = row(transactions=[])
    assert (empty["transaction_count"], empty["active_addresses"]) == (0, 1)
    assert empty["value_transferred_wei"] == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"hash": None},
        {"parentHash": None},
        {"timestamp": "yesterday"},
        {"transactions": ["0xabc"]},
        {"transactions": [{"from": "0xaa", "to": "0xbb"}]},
    ],
)
def test_a_block_that_cannot_be_read_is_refused(changes):
    with pytest.raises(UnusableAnswerError, match="'0x5' cannot be read"):
        row(**changes)


@pytest.mark.parametrize(
    ("tips", "number", "finality"),
    [
        (TIPS, 10, "finalized"),
        (TIPS, 11, "safe"),
        (TIPS, 21, "latest"),
        (Tips(30, None, None), 1, "latest"),
        (Tips(30, 20, None), 1, "safe"),
    ],
)
def test_finality_is_the_strongest_tag(tips, number, finality):
    assert tips.finality(number) == finality


# Read off the files by hand: number, transactions, base fee, difficulty, total difficulty, blobs.
RECORDED = {
    46147: (1, None, 0x153886C1BBD, 0x97A50222EDBA99, False),
    930196: (18, None, 0x9DA8CFB80BD, 0x58209E3FD11739FB, False),
    15537393: (1, 0xA1A4E5F06, 0x27472E1DB3626A, 0xC70D815D562D3CFA955, False),
    15537394: (80, 0xB5D68E0A3, 0, 0xC70D815D562D3CFA955, False),
    19426587: (37, 0xE6CA77A30, 0, 0xC70D815D562D3CFA955, True),
    19910734: (0, 0x1F80BFF0A, 0, 0xC70D815D562D3CFA955, True),
    19923400: (24, 0x17D849396, 0, 0xC70D815D562D3CFA955, True),
    19933122: (45, 0x43A1D540A, 0, 0xC70D815D562D3CFA955, True),
}


@pytest.mark.realdata
@pytest.mark.parametrize("number", RECORDED)
def test_recorded_mainnet_blocks_parse(realdata, number):
    transactions, base_fee, difficulty, total, has_withdrawals = RECORDED[number]
    recorded = json.loads((realdata / "blocks" / f"block_{number}.json").read_bytes())
    assert ("withdrawals" in recorded) == has_withdrawals
    found = summarise(recorded, chain_id=1, source="replay", tips=Tips(number, None, number))
    assert found["number"] == number
    assert found["transaction_count"] == transactions
    assert found["base_fee_per_gas"] == base_fee
    assert found["difficulty"] == difficulty
    assert found["total_difficulty"] == total
    assert (found["burnt_wei"] is None) == (base_fee is None)
    if base_fee is not None:
        assert found["burnt_wei"] == base_fee * int(recorded["gasUsed"], 16)
    assert found["value_transferred_wei"] == sum(
        int(t["value"], 16) for t in recorded["transactions"]
    )
    assert 1 <= found["active_addresses"] <= 2 * transactions + 1
    frame = pl.DataFrame([found], schema=SCHEMA, orient="row")
    assert frame.row(0, named=True)["total_difficulty"] == total


@pytest.mark.realdata
def test_the_first_transaction_of_the_chain(realdata):
    recorded = json.loads((realdata / "blocks" / "block_46147.json").read_bytes())
    found = summarise(recorded, chain_id=1, source="replay", tips=Tips(46147, None, None))
    assert found["timestamp"] == datetime(2015, 8, 7, 3, 30, 33, tzinfo=UTC)
    assert (found["value_transferred_wei"], found["active_addresses"]) == (31337, 3)


def test_only_blocks_of_the_span_are_read_in_order():
    spanned = read_blocks(
        node(), START + timedelta(minutes=3), START + timedelta(minutes=25), chain_id=1
    )
    assert spanned.schema == SCHEMA
    assert spanned["number"].to_list() == list(range(3, 25))
    assert spanned["finality"].to_list() == ["finalized"] * 8 + ["safe"] * 10 + ["latest"] * 4


def test_a_span_before_or_after_the_chain_has_no_block():
    for start in (START - timedelta(days=2), START + timedelta(days=2)):
        empty = read_blocks(node(), start, start + timedelta(days=1), chain_id=1)
        assert (empty.height, empty.schema) == (0, SCHEMA)


def test_blocks_past_latest_are_not_read():
    behind = node()
    behind.tags["latest"] = 12
    read = read_blocks(behind, START, START + timedelta(days=1), chain_id=1)
    assert read["number"].max() == 12
    assert max(behind.asked) <= 20  # the safe tag is the only other block looked at


def test_a_node_without_finality_tags_is_read():
    old = node()
    del old.tags["safe"], old.tags["finalized"]
    assert read_tips(old, 1) == Tips(30, None, None)


def test_another_chain_is_refused_by_name():
    with pytest.raises(
        WrongChainError, match=r"http://node is on chain 5, but CRYPTOML_CHAIN_ID=1"
    ):
        read_blocks(node(chain="0x5"), START, START + timedelta(days=1), chain_id=1)


@pytest.mark.parametrize("chain", [None, "one"])
def test_a_node_that_does_not_know_its_chain_is_refused(chain):
    with pytest.raises(UnusableAnswerError, match="tips cannot be read"):
        read_tips(node(chain=chain), 1)


def test_a_chain_that_does_not_link_up_is_refused():
    forked = node()
    forked.blocks[7] = block(7, hash="0xother")
    with pytest.raises(UnusableAnswerError, match=r"onchain_blocks 2024-03-01: block 8 does not"):
        read_blocks(forked, START, START + timedelta(days=1), chain_id=1)


def test_a_block_the_node_has_lost_is_refused():
    hollow = node()
    hollow.blocks[7] = block(99)
    with pytest.raises(UnusableAnswerError, match="asked for block 7, got None"):
        read_blocks(hollow, START, START + timedelta(days=1), chain_id=1)


def frame_of(*numbers, **changes):
    rows = [row(number=n, **changes) for n in numbers]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def test_blocks_that_follow_the_stored_day_attach():
    check_attaches(frame_of(7, 8), frame_of(5, 6))
    check_attaches(frame_of(8, 9), frame_of(5, 6))  # blocks missing in between prove nothing
    check_attaches(frame_of(), frame_of(5))
    check_attaches(frame_of(5), frame_of())


def test_blocks_of_another_branch_than_the_stored_day_do_not():
    with pytest.raises(UnusableAnswerError, match="no child of the stored block 6"):
        check_attaches(frame_of(7, 8), frame_of(6, hash="0xold"))


def test_a_node_behind_what_is_stored_as_final_is_refused():
    for fewer in (frame_of(5, 6), frame_of()):
        with pytest.raises(UnusableAnswerError, match="no block 7 of that day"):
            check_not_behind(fewer, frame_of(5, 6, 7))


def test_blocks_that_were_not_final_may_go():
    check_not_behind(frame_of(9, 10), frame_of(9, 10, 11))  # finalized is up to 10
    check_not_behind(frame_of(), frame_of(11, 12))
    check_not_behind(frame_of(5), frame_of())
