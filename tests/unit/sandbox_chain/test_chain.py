from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from cryptoml_sandbox.chain import (
    GAS_LIMIT,
    REORG_EVERY,
    Chain,
    ChainParameters,
    ReorgTooDeepError,
    next_base_fee,
)

GENESIS = datetime(2024, 1, 1, tzinfo=UTC)
PARAMETERS = ChainParameters(seed=7, genesis=GENESIS, block_seconds=600, transactions_per_block=8)
NOW = GENESIS + timedelta(days=10)


def headers(chain, now=NOW):
    return [chain.header(n, now) for n in range(chain.head(now) + 1)]


def test_blocks_carry_genesis_plus_number_times_block_seconds():
    chain = Chain(PARAMETERS)
    head = chain.header(chain.head(NOW), NOW)
    assert head.number == 1440
    assert head.timestamp == int(NOW.timestamp())
    assert chain.header(1441, NOW) is None
    assert chain.header(-1, NOW) is None


def test_the_first_blocks_are_the_same_on_every_machine():
    # Fixed so that a change of the generator, or a platform that disagrees, is noticed.
    third = Chain(PARAMETERS).header(3, NOW)
    assert third.hash.hex() == "7dfd0a9157355dd390ea106ecdf9264e3ab8cfb99d0e51e63c13932c606fc529"
    assert (third.gas_used, third.base_fee, third.transaction_count) == (19404063, 19042402183, 10)


def test_another_seed_is_another_chain():
    one, two = (Chain(replace(PARAMETERS, seed=s)).header(5, NOW) for s in (1, 2))
    assert one.hash != two.hash


def test_the_chain_is_linked_and_its_base_fee_follows_eip_1559():
    chain = headers(Chain(PARAMETERS))
    for before, block in pairwise(chain):
        assert block.parent_hash == before.hash
        assert block.base_fee == next_base_fee(before.base_fee, before.gas_used)
        assert 0 <= block.gas_used <= GAS_LIMIT


@pytest.mark.parametrize(
    ("used", "expected"),
    [(15_000_000, 1000), (30_000_000, 1125), (0, 875), (15_000_001, 1001)],
)
def test_base_fee_rule(used, expected):
    assert next_base_fee(1000, used) == expected


def test_activity_is_that_of_a_living_network():
    chain = headers(Chain(PARAMETERS), GENESIS + timedelta(days=60))
    counts = [h.transaction_count for h in chain]
    assert abs(sum(counts) / len(counts) - 8) < 0.2
    ratio = sum(h.gas_used for h in chain) / (GAS_LIMIT * len(chain))
    assert 0.45 < ratio < 0.55
    fees = [h.base_fee / 1e9 for h in chain]
    assert 2 < min(fees) < 15 < max(fees) < 100


def test_transactions_add_up_to_the_block():
    chain = Chain(PARAMETERS)
    for header in headers(chain)[:200]:
        transactions = chain.content.transactions(header)
        assert len(transactions) == header.transaction_count
        assert sum(t.gas for t in transactions) == header.gas_used
        assert len({t.hash for t in transactions}) == len(transactions)
        for t in transactions:
            assert (t.token_receiver is None) or (t.value == 0 and t.token_amount >= 0)


def test_addresses_come_back_so_that_counting_them_means_something():
    chain = Chain(PARAMETERS)
    senders = [t.sender for h in headers(chain)[:500] for t in chain.content.transactions(h)]
    assert len(set(senders)) < 0.65 * len(senders)  # 0.69 if all were as likely
    assert len(set(senders)) > 500


def test_a_chain_without_transactions_has_no_gas_used():
    chain = Chain(replace(PARAMETERS, transactions_per_block=0))
    block = chain.header(9, NOW)
    assert (block.transaction_count, block.gas_used) == (0, 0)
    assert chain.content.transactions(block) == []


def test_tags_lag_behind_the_head():
    chain = Chain(replace(PARAMETERS, block_seconds=12))
    head = chain.head(NOW)
    assert chain.finalized(NOW) == head - 75
    assert chain.safe(NOW) == head - 35
    assert chain.finalized(GENESIS) == 0


def test_blocks_are_found_by_hash_until_a_reorganisation_removes_them():
    chain = Chain(replace(PARAMETERS, block_seconds=60))
    head = chain.header(chain.head(NOW), NOW)
    assert chain.number_of(head.hash, NOW) == head.number
    assert chain.number_of(bytes(32), NOW) is None
    assert chain.number_of(head.hash, NOW - timedelta(minutes=1)) is None
    chain.reorganise(1, NOW)
    assert chain.number_of(head.hash, NOW) is None
    assert chain.number_of(chain.header(head.number, NOW).hash, NOW) == head.number


@pytest.mark.parametrize("depth", [0, -1, 16, 10_000_000])
def test_a_reorganisation_does_not_reach_finalized_blocks(depth):
    chain = Chain(replace(PARAMETERS, block_seconds=60))
    with pytest.raises(ReorgTooDeepError, match=f"depth={depth}"):
        chain.reorganise(depth, NOW)
    assert chain.reorganise(15, NOW) == chain.head(NOW) - 14


def test_finalized_blocks_are_rewritten_when_asked_for():
    chain = Chain(replace(PARAMETERS, block_seconds=60))
    before = chain.header(chain.finalized(NOW), NOW)
    chain.reorganise(16, NOW, past_finality=True)
    assert chain.header(before.number, NOW).hash != before.hash


def test_a_set_depth_reorganises_now_and_then_and_leaves_the_same_history():
    steady = Chain(replace(PARAMETERS, block_seconds=60))
    shaky = Chain(replace(PARAMETERS, block_seconds=60, reorg_depth=5))
    point = REORG_EVERY * 3
    before = GENESIS + timedelta(minutes=point - 1)
    after = GENESIS + timedelta(minutes=point)
    differing = [
        n for n in range(point) if shaky.header(n, before).hash != steady.header(n, before).hash
    ]
    assert differing == list(range(point - 5, point))
    assert [shaky.header(n, after) for n in range(point + 1)] == [
        steady.header(n, after) for n in range(point + 1)
    ]
    assert shaky.header(point - 1, before).hash != shaky.header(point - 1, after).hash


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"block_seconds": 0}, "block_seconds=0"),
        ({"transactions_per_block": 5000}, "transactions_per_block=5000"),
        ({"reorg_depth": 2}, "reorg_depth=2"),
    ],
)
def test_parameters_no_chain_can_have_are_refused(change, name):
    with pytest.raises(ValueError, match=name):
        replace(PARAMETERS, **change)


def test_three_years_of_headers_take_seconds():
    now = GENESIS + timedelta(days=3 * 365)
    chain = Chain(PARAMETERS)
    started = time.process_time()
    assert chain.header(chain.head(now), now).number == 157_680
    assert time.process_time() - started < 5
