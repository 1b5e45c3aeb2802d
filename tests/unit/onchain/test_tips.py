from __future__ import annotations

import pytest

from cryptoml_assets.errors import UnusableAnswerError, WrongChainError
from cryptoml_assets.onchain.tips import Tips, read_tips
from tests.fake_chain import START, FakeChain

TIPS = Tips(latest=30, safe=20, finalized=10)


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


def test_the_tips_are_read_in_one_request():
    node = FakeChain(31)
    assert read_tips(node, 1) == Tips(30, 26, 22, int(START.timestamp()) + 30 * 60)
    assert node.batches == 1


def test_a_node_without_finality_tags_is_read():
    old = FakeChain(31, safe=None, finalized=None)
    assert (read_tips(old, 1).safe, read_tips(old, 1).finalized) == (None, None)


def test_another_chain_is_refused_by_name():
    with pytest.raises(
        WrongChainError, match=r"http://node is on chain 5, but CRYPTOML_CHAIN_ID=1"
    ):
        read_tips(FakeChain(3, chain="0x5"), 1)


@pytest.mark.parametrize("chain", [None, "one"])
def test_a_node_that_does_not_know_its_chain_is_refused(chain):
    with pytest.raises(UnusableAnswerError, match="tips cannot be read"):
        read_tips(FakeChain(3, chain=chain), 1)
