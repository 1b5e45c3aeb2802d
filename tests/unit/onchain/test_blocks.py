from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from cryptoml_assets.errors import UnusableAnswerError
from cryptoml_assets.onchain.blocks import KEY, MEANINGS, REQUIRED, SCHEMA, frame_of, summarise
from cryptoml_assets.onchain.tips import Tips

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
        "blobGasUsed": "0x20000",
        "excessBlobGas": "0x0",
        "withdrawals": [{"amount": "0x7"}, {"amount": "0x8"}],
        "transactions": [
            {"from": "0xaa", "to": "0xbb", "value": "0x5"},
            {"from": "0xbb", "to": None, "value": hex(10**24)},
        ],
    } | changes


def row(**changes):
    return summarise(block(**changes), chain_id=1, source="live", tips=TIPS, fees=64)


def test_every_column_is_described():
    assert all(MEANINGS.values())
    assert set(KEY) <= set(REQUIRED) <= set(SCHEMA)


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
        "fees_wei": Decimal(64),
        "burnt_wei": Decimal(48),
        "blob_gas_used": 131072,
        "excess_blob_gas": 0,
        "withdrawal_count": 2,
        "withdrawn_gwei": 15,
        "finality": "finalized",
        "source": "live",
        "date": date(2024, 3, 1),
    }
    assert set(row()) == set(MEANINGS)
    assert frame_of([row()]).schema == SCHEMA


def test_a_frame_holds_what_a_row_says_whatever_the_size():
    huge = row(difficulty=hex(2**120), gasLimit=hex(2**62))
    (kept,) = frame_of([huge]).rows(named=True)
    assert kept == huge


@pytest.mark.parametrize(
    ("missing", "columns"),
    [
        ("baseFeePerGas", {"base_fee_per_gas", "burnt_wei"}),
        ("gasUsed", {"gas_used", "burnt_wei"}),
        ("gasLimit", {"gas_limit"}),
        ("difficulty", {"difficulty"}),
        ("blobGasUsed", {"blob_gas_used"}),
        ("excessBlobGas", {"excess_blob_gas"}),
        ("withdrawals", {"withdrawal_count", "withdrawn_gwei"}),
    ],
)
@pytest.mark.parametrize("absent", [True, False])
def test_a_field_the_node_lacks_is_null_not_zero(missing, columns, absent):
    lacking = block(**{missing: None})
    if absent:
        del lacking[missing]
    found = summarise(lacking, chain_id=1, source="live", tips=TIPS, fees=64)
    changed = {name for name, value in found.items() if value != row()[name]}
    assert changed == columns
    assert all(found[name] is None for name in columns)


def test_without_receipts_the_fees_are_null():
    assert summarise(block(), chain_id=1, source="live", tips=TIPS)["fees_wei"] is None


def test_an_empty_block_has_the_fee_recipient_as_only_address():
    empty = row(transactions=[], withdrawals=[])
    assert (empty["transaction_count"], empty["active_addresses"]) == (0, 1)
    assert (empty["value_transferred_wei"], empty["withdrawn_gwei"]) == (0, 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"hash": None},
        {"parentHash": None},
        {"timestamp": "yesterday"},
        {"transactions": ["0xabc"]},
        {"transactions": [{"from": "0xaa", "to": "0xbb"}]},
        {"withdrawals": ["0xabc"]},
    ],
)
def test_a_block_that_cannot_be_read_is_refused(changes):
    with pytest.raises(UnusableAnswerError, match="'0x5' cannot be read"):
        row(**changes)


# Taken from the files with jq: transactions, gas used, base fee, difficulty, total difficulty,
# distinct addresses, value, withdrawals and their sum, blob gas used and in excess.
RECORDED = {
    46147: (1, 21000, None, 0x153886C1BBD, 0x97A50222EDBA99, 3, 31337, None, None, None, None),
    930196: (
        *(18, 378000, None, 0x9DA8CFB80BD, 0x58209E3FD11739FB, 22, 98885411850000000000),
        *(None, None, None, None),
    ),
    15537393: (
        *(1, 29991429, 0xA1A4E5F06, 0x27472E1DB3626A, 0xC70D815D562D3CFA955, 3),
        *(30198550054898867892, None, None, None, None),
    ),
    15537394: (
        *(80, 29983006, 0xB5D68E0A3, 0, 0xC70D815D562D3CFA955, 92, 31391199870524086),
        *(None, None, None, None),
    ),
    19426587: (
        *(37, 2633933, 0xE6CA77A30, 0, 0xC70D815D562D3CFA955, 61, 3765325589505485224),
        *(16, 257747925, 0, 0),
    ),
    19910734: (0, 0, 0x1F80BFF0A, 0, 0xC70D815D562D3CFA955, 1, 0, 16, 385258210, 0, 0),
    19923400: (
        *(24, 1624049, 0x17D849396, 0, 0xC70D815D562D3CFA955, 46, 4061730500000000000),
        *(16, 294840150, 786432, 0),
    ),
    19933122: (
        *(45, 2056821, 0x43A1D540A, 0, 0xC70D815D562D3CFA955, 74, 27586073988629576449),
        *(16, 342322396, 786432, 393216),
    ),
}
# Gas used times base fee, by hand.
BURNT = {15537393: 29991429 * 43391016710, 19910734: 0, 19933122: 2056821 * 18154869770}


@pytest.mark.realdata
@pytest.mark.parametrize("number", RECORDED)
def test_recorded_mainnet_blocks_parse(realdata, number):
    recorded = json.loads((realdata / "blocks" / f"block_{number}.json").read_bytes())
    found = summarise(recorded, chain_id=1, source="replay", tips=Tips(number, None, number))
    (kept,) = frame_of([found]).rows(named=True)
    assert kept["number"] == number
    assert (
        *(kept["transaction_count"], kept["gas_used"], kept["base_fee_per_gas"]),
        *(kept["difficulty"], kept["total_difficulty"], kept["active_addresses"]),
        *(kept["value_transferred_wei"], kept["withdrawal_count"], kept["withdrawn_gwei"]),
        *(kept["blob_gas_used"], kept["excess_blob_gas"]),
    ) == RECORDED[number]
    assert (kept["burnt_wei"] is None) == (number < 12_965_000)  # London
    assert kept["burnt_wei"] == BURNT.get(number, kept["burnt_wei"])
    assert kept["fees_wei"] is None


@pytest.mark.realdata
def test_the_day_of_the_first_transaction(realdata):
    recorded = json.loads((realdata / "blocks" / "block_46147.json").read_bytes())
    found = summarise(recorded, chain_id=1, source="replay", tips=Tips(46147, None, None))
    assert found["timestamp"] == datetime(2015, 8, 7, 3, 30, 33, tzinfo=UTC)
    assert found["date"] == date(2015, 8, 7)
