from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import accumulate

from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoml_assets.onchain.blocks import block_range, first_break

DAY = datetime(2024, 3, 1, tzinfo=UTC)


@settings(max_examples=300, deadline=None)
@given(
    genesis=st.integers(-200_000, 200_000),
    gaps=st.lists(st.integers(1, 40_000), max_size=60),
    days=st.integers(1, 4),
)
def test_the_search_for_a_day_equals_looking_at_every_block(genesis, gaps, days):
    start = int(DAY.timestamp())
    end = start + days * 86_400
    timestamps = list(accumulate(gaps, initial=start + genesis))
    expected = [n for n, t in enumerate(timestamps) if start <= t < end]
    first, last = block_range(
        DAY, DAY + timedelta(days=days), len(timestamps) - 1, timestamps.__getitem__
    )
    assert list(range(first, last + 1)) == expected


@settings(max_examples=200, deadline=None)
@given(length=st.integers(0, 30), data=st.data())
def test_a_break_is_found_wherever_it_is(length, data):
    chain = [(n, f"hash {n}", f"hash {n - 1}") for n in range(100, 100 + length)]
    assert first_break(chain) is None
    if length > 1:
        at = data.draw(st.integers(1, length - 1))
        number, block_hash, _ = chain[at]
        assert first_break([*chain[:at], (number, block_hash, "?"), *chain[at + 1 :]]) == number
        if at < length - 1:
            assert first_break([*chain[:at], *chain[at + 1 :]]) == number + 1
