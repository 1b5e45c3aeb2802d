from __future__ import annotations

from itertools import accumulate, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoml_assets.onchain.reading import first_at, first_break
from cryptoml_assets.onchain.search import gaps, joined, last_holding
from tests.fake_chain import START, FakeChain, make_block

MIDNIGHT = int(START.timestamp())


@settings(max_examples=300, deadline=None)
@given(low=st.integers(0, 50), length=st.integers(0, 40_000), at=st.integers(-1, 40_000))
def test_the_search_finds_the_last_number_that_holds_in_few_round_trips(low, length, at):
    last = low + min(at, length - 1)
    rounds = []

    def holds(numbers):
        rounds.append(list(numbers))
        assert numbers == sorted(set(numbers))
        assert low <= numbers[0] <= numbers[-1] < low + length
        return [number <= last for number in numbers]

    assert last_holding(low, low + length - 1, holds) == (last if length else low - 1)
    assert len(rounds) <= 4


@settings(max_examples=200, deadline=None)
@given(
    genesis=st.integers(-200_000, 200_000),
    steps=st.lists(st.integers(1, 40_000), max_size=60),
    day=st.integers(-2, 5),
)
def test_the_search_for_a_midnight_equals_looking_at_every_block(genesis, steps, day):
    seconds = list(accumulate(steps, initial=genesis))
    node = FakeChain()
    node.blocks = [make_block(n, "0x0", at) for n, at in enumerate(seconds)]
    wanted = MIDNIGHT + day * 86_400
    expected = next((n for n, at in enumerate(seconds) if MIDNIGHT + at >= wanted), len(seconds))
    assert first_at(node, wanted, 0, len(seconds) - 1) == expected


@settings(max_examples=200, deadline=None)
@given(length=st.integers(0, 30), data=st.data())
def test_a_break_is_found_wherever_it_is(length, data):
    chain = [(n, f"hash {n}", f"hash {n - 1}") for n in range(100, 100 + length)]
    assert first_break(chain) is None
    if length > 1:
        at = data.draw(st.integers(1, length - 1))
        number, block_hash, _ = chain[at]
        assert first_break([*chain[:at], (number, block_hash, "?"), *chain[at + 1 :]]) == number
        # Of a block that is not there nothing is known.
        assert first_break([*chain[:at], *chain[at + 1 :]]) is None


SPAN = st.builds(
    lambda start, length: range(start, start + length), st.integers(0, 60), st.integers(0, 20)
)


@settings(max_examples=300, deadline=None)
@given(spans=st.lists(SPAN, max_size=8), wanted=SPAN)
def test_spans_behave_like_sets_of_numbers(spans, wanted):
    numbers = {n for span in spans for n in span}
    held = joined(spans)
    assert [n for span in held for n in span] == sorted(numbers)
    assert all(a.stop < b.start for a, b in pairwise(held))
    left = gaps(wanted, held)
    assert [n for span in left for n in span] == sorted(set(wanted) - numbers)
    assert all(left)
