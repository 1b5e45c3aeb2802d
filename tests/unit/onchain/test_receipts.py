from __future__ import annotations

import logging

import pytest

from cryptoml_assets.errors import ChainMovedError, UnusableAnswerError
from cryptoml_assets.onchain.receipts import Receipts
from tests.fake_chain import FakeChain

NODE = FakeChain(3)
BLOCK = NODE.blocks[2]


def receipt(price, gas, **changes):
    of = {"blockHash": BLOCK["hash"], "effectiveGasPrice": hex(price), "gasUsed": hex(gas)}
    return of | changes


def test_fees_are_price_times_gas_over_all_transactions():
    answer = {"result": [receipt(7, 21000), receipt(10**12, 30_000_000)]}
    assert Receipts(wanted=True).fees(NODE, BLOCK, answer) == 7 * 21000 + 3 * 10**19


def test_an_empty_block_paid_nothing():
    assert Receipts(wanted=True).fees(NODE, BLOCK | {"transactions": []}, {"result": []}) == 0


@pytest.mark.parametrize("lacking", ["effectiveGasPrice", "gasUsed"])
def test_a_receipt_that_lacks_a_field_gives_null(lacking):
    answer = {"result": [receipt(7, 21000), receipt(7, 21000, **{lacking: None})]}
    assert Receipts(wanted=True).fees(NODE, BLOCK, answer) is None


def test_receipts_not_asked_for_or_not_kept_give_null():
    assert Receipts(wanted=False).fees(NODE, BLOCK, None) is None
    assert Receipts(wanted=True).fees(NODE, BLOCK, {"result": None}) is None


@pytest.mark.parametrize("code", [-32601, -32602, -32004])
def test_a_node_that_lacks_the_method_is_asked_once_and_warned_of_once(code, caplog):
    receipts = Receipts(wanted=True)
    assert receipts.asked
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            answer = {"error": {"code": code, "message": "no such method"}}
            assert receipts.fees(NODE, BLOCK, answer) is None
    assert not receipts.asked
    assert caplog.text.count("no such method") == 1


def test_any_other_error_is_not_taken_for_a_lack():
    with pytest.raises(UnusableAnswerError, match="internal"):
        Receipts(wanted=True).fees(NODE, BLOCK, {"error": {"code": -32603, "message": "internal"}})


@pytest.mark.parametrize(
    "answer", [[receipt(7, 21000)], [receipt(7, 21000), receipt(7, 21000, blockHash="0xother")]]
)
def test_receipts_of_another_block_mean_that_the_chain_moved(answer):
    with pytest.raises(ChainMovedError, match="block 2 and its receipts do not belong together"):
        Receipts(wanted=True).fees(NODE, BLOCK, {"result": answer})
