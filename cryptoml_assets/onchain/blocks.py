"""Blocks of an Ethereum chain, summed up one row each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import polars as pl

from cryptoml_assets.errors import UnusableAnswerError
from cryptoml_assets.onchain.tips import Tips

_WEI = pl.Decimal(38, 0)

#: Columns of ``onchain_blocks``: type and meaning. A field the node lacks is null.
_COLUMNS: dict[str, tuple[Any, str]] = {
    "chain_id": (pl.Int64, "EIP-155 id of the chain; 1 is Ethereum mainnet"),
    "number": (pl.Int64, "height of the block"),
    "hash": (pl.String, "hash of the block, 0x… lower case"),
    "parent_hash": (pl.String, "hash of the block before"),
    "timestamp": (pl.Datetime("us", "UTC"), "instant the block carries"),
    "transaction_count": (pl.Int32, "transactions in the block"),
    "gas_used": (pl.Int64, "gas its transactions used"),
    "gas_limit": (pl.Int64, "gas they could have used"),
    "base_fee_per_gas": (pl.Int64, "EIP-1559 base fee in wei; null before London"),
    "difficulty": (_WEI, "proof-of-work difficulty; 0 since the merge"),
    "total_difficulty": (_WEI, "difficulty summed from the genesis, where the node still says it"),
    "active_addresses": (pl.Int32, "distinct senders, receivers and the fee recipient"),
    "value_transferred_wei": (_WEI, "sum of the transactions' values in wei"),
    "fees_wei": (_WEI, "paid for gas in wei, burnt part included, blob fees not; null if unread"),
    "burnt_wei": (_WEI, "base fee times gas used in wei, without blob fees; null before London"),
    "blob_gas_used": (pl.Int64, "gas its blobs used; null before Cancun"),
    "excess_blob_gas": (pl.Int64, "blob gas in excess of the target so far; null before Cancun"),
    "withdrawal_count": (pl.Int32, "validator withdrawals in the block; null before Shanghai"),
    "withdrawn_gwei": (pl.Int64, "sum of the withdrawals in gwei; null before Shanghai"),
    "finality": (pl.String, "finalized, safe or latest: the strongest the block was seen with"),
    "source": (pl.String, "world the row comes from: simulated, replay or live"),
    "date": (pl.Date, "UTC day of timestamp; the partition"),
}
SCHEMA = pl.Schema({name: kind for name, (kind, _) in _COLUMNS.items()})
MEANINGS = {name: meaning for name, (_, meaning) in _COLUMNS.items()}
KEY = ("chain_id", "number")
#: Columns that every block of every chain has.
REQUIRED = (
    *("chain_id", "number", "hash", "parent_hash", "timestamp", "transaction_count"),
    *("active_addresses", "value_transferred_wei", "finality", "source", "date"),
)

Row = dict[str, Any]


def summarise(
    block: Mapping[str, Any], *, chain_id: int, source: str, tips: Tips, fees: int | None = None
) -> Row:
    """One row of ``SCHEMA`` from a JSON-RPC block with full transactions.

    Args:
        block: what the node answered.
        chain_id: the chain the block is of.
        source: the world it comes from.
        tips: what was safe and finalized when it was read.
        fees: what its transactions paid for gas in wei, where that is known.

    Raises:
        UnusableAnswerError: the block lacks what every block has, or has bare transaction hashes.
    """
    try:
        return {
            "chain_id": chain_id,
            **_of_header(block),
            **_of_content(block["transactions"], block.get("withdrawals"), block.get("miner")),
            "fees_wei": _wei(fees),
            "finality": tips.finality(int(block["number"], 16)),
            "source": source,
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        message = f"block {block.get('number')!r} cannot be read: {error!r}"
        raise UnusableAnswerError(message) from error


def frame_of(rows: Iterable[Row]) -> pl.DataFrame:
    """Rows of ``summarise`` as a frame of ``SCHEMA``."""
    return pl.DataFrame(list(rows), schema=SCHEMA, orient="row")


def _of_header(block: Mapping[str, Any]) -> Row:
    instant = datetime.fromtimestamp(int(block["timestamp"], 16), UTC)
    gas_used, base_fee = _number(block, "gasUsed"), _number(block, "baseFeePerGas")
    return {
        "number": int(block["number"], 16),
        "hash": block["hash"].lower(),
        "parent_hash": block["parentHash"].lower(),
        "timestamp": instant,
        "date": instant.date(),
        "gas_used": gas_used,
        "gas_limit": _number(block, "gasLimit"),
        "base_fee_per_gas": base_fee,
        "burnt_wei": None if gas_used is None or base_fee is None else _wei(gas_used * base_fee),
        "difficulty": _wei(_number(block, "difficulty")),
        "total_difficulty": _wei(_number(block, "totalDifficulty")),
        "blob_gas_used": _number(block, "blobGasUsed"),
        "excess_blob_gas": _number(block, "excessBlobGas"),
    }


def _of_content(
    transactions: Sequence[Mapping[str, Any]],
    withdrawals: Sequence[Mapping[str, Any]] | None,
    miner: str | None,
) -> Row:
    # A contract's creation has no receiver.
    addresses = {miner, *(t["from"] for t in transactions), *(t.get("to") for t in transactions)}
    row: Row = {
        "transaction_count": len(transactions),
        "active_addresses": len(addresses - {None}),
        "value_transferred_wei": Decimal(sum(int(t["value"], 16) for t in transactions)),
        "withdrawal_count": None,
        "withdrawn_gwei": None,
    }
    if withdrawals is not None:
        row["withdrawal_count"] = len(withdrawals)
        row["withdrawn_gwei"] = sum(int(each["amount"], 16) for each in withdrawals)
    return row


def _number(block: Mapping[str, Any], field: str) -> int | None:
    value = block.get(field)
    return None if value is None else int(value, 16)


def _wei(amount: int | None) -> Decimal | None:
    return None if amount is None else Decimal(amount)
