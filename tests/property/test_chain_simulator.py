from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoml_sandbox.chain import Chain, ChainParameters

GENESIS = datetime(2024, 1, 1, tzinfo=UTC)
BLOCKS = 200
NOW = GENESIS + timedelta(minutes=BLOCKS)


def make(seed=7, reorg_depth=0):
    return Chain(
        ChainParameters(
            seed=seed,
            genesis=GENESIS,
            block_seconds=60,
            transactions_per_block=4,
            reorg_depth=reorg_depth,
        )
    )


def everything(chain, now=NOW):
    return [
        (header, chain.content.transactions(header), chain.content.withdrawals(header))
        for header in (chain.header(n, now) for n in range(chain.head(now) + 1))
    ]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    reorg_depth=st.integers(0, 15),
    questions=st.lists(
        st.tuples(st.sampled_from(["number", "hash", "time"]), st.integers(0, BLOCKS)), max_size=30
    ),
)
def test_whatever_is_asked_in_whatever_order_the_chain_is_the_same(seed, reorg_depth, questions):
    expected = everything(make(seed, reorg_depth))
    chain = make(seed, reorg_depth)
    for kind, number in questions:
        if kind == "number":
            assert chain.header(number, NOW) == expected[number][0]
        elif kind == "hash":
            assert chain.number_of(expected[number][0].hash, NOW) == number
        else:  # the same chain asked about another time, earlier
            chain.header(number, GENESIS + timedelta(minutes=number))
    assert everything(chain) == expected


@settings(max_examples=40, deadline=None)
@given(depths=st.lists(st.integers(1, 15), min_size=1, max_size=4))
def test_a_reorganisation_rewrites_exactly_the_newest_blocks(depths):
    chain = make()
    seen = set()
    before = everything(chain)
    for depth in depths:
        first = chain.reorganise(depth, NOW)
        assert first == BLOCKS - depth + 1
        after = everything(chain)
        assert after[:first] == before[:first]
        for (old, old_body, _), (new, new_body, _) in zip(
            before[first:], after[first:], strict=True
        ):
            seen.add(old.hash)
            assert new.hash not in seen
            assert not {t.hash for t in old_body} & {t.hash for t in new_body}
        for (parent, _, _), (child, _, _) in pairwise(after):
            assert child.parent_hash == parent.hash
        before = after


@settings(max_examples=20, deadline=None)
@given(depth=st.integers(1, 15), later=st.integers(1, 100))
def test_a_reorganised_chain_grows_on_the_new_branch(depth, later):
    chain = make()
    chain.reorganise(depth, NOW)
    kept = [chain.header(n, NOW) for n in range(BLOCKS + 1)]
    much_later = NOW + timedelta(minutes=later)
    grown = [chain.header(n, much_later) for n in range(BLOCKS + later + 1)]
    assert grown[: BLOCKS + 1] == kept
    assert all(c.parent_hash == p.hash for p, c in pairwise(grown))
