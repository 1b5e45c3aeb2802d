"""How blocks, transactions and logs of the simulated chain look on the wire."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from hashlib import shake_256
from typing import Any

from cryptoml_sandbox.chain import GAS_LIMIT
from cryptoml_sandbox.chain_content import Header, Transaction, Withdrawal

TRANSFER_TOPIC = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS = -32700, -32600, -32601, -32602
LIMIT_EXCEEDED = -32005
HASH_BYTES, ADDRESS_BYTES = 32, 20

_NO_UNCLES = "0x1dcc4de8dec75d7aab85b567b6ccd41ad312451b948a7413f0a142fd40d49347"
_ERC20_TRANSFER = "0xa9059cbb"
NO_BLOOM = "0x" + "00" * 256
# A bloom filter with every bit set rules nothing out, which is true of any logs.
ANY_BLOOM = "0x" + "ff" * 256


class RpcError(Exception):
    """What a call is answered with instead of a result: a JSON-RPC error code and message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def failure(call_id: Any, error: RpcError) -> dict[str, Any]:
    """The response to a call that cannot be answered."""
    return {
        "jsonrpc": "2.0",
        "id": call_id,
        "error": {"code": error.code, "message": str(error)},
    }


def quantity(text: str) -> int:
    """Read a 0x… number."""
    if text.startswith("0x"):
        try:
            return int(text, 16)
        except ValueError:
            pass
    raise RpcError(INVALID_PARAMS, f"invalid argument: {text!r} is not a 0x… number")


def fixed_bytes(text: Any, length: int) -> bytes:
    """Read 0x… data of a known length."""
    if isinstance(text, str) and text.startswith("0x"):
        try:
            data = bytes.fromhex(text[2:])
        except ValueError:
            data = b""
        if len(data) == length:
            return data
    raise RpcError(INVALID_PARAMS, f"invalid argument: {text!r} is not {length} bytes as 0x…")


def block_object(
    header: Header,
    transactions: Sequence[Transaction],
    withdrawals: Sequence[Withdrawal],
    *,
    chain_id: int | None,
) -> dict[str, Any]:
    """A block as ``eth_getBlockBy…`` gives it; without a chain id, transactions are hashes only."""
    has_logs = any(t.token_receiver is not None for t in transactions)
    block = _header_fields(header)
    block["logsBloom"] = ANY_BLOOM if has_logs else NO_BLOOM
    block["withdrawals"] = [_withdrawal(w) for w in withdrawals]
    if chain_id is None:
        block["transactions"] = ["0x" + t.hash.hex() for t in transactions]
    else:
        shown = hex(chain_id)
        block["transactions"] = [_transaction(header, t, shown) for t in transactions]
    return block


def pending_object(parent: Header, timestamp: int, base_fee: int) -> dict[str, Any]:
    """The block being built on ``parent``: empty, without hash and nonce."""
    return _header_fields(parent) | {
        "number": hex(parent.number + 1),
        "timestamp": hex(timestamp),
        "parentHash": "0x" + parent.hash.hex(),
        "baseFeePerGas": hex(base_fee),
        "hash": None,
        "nonce": None,
        "gasUsed": "0x0",
        "logsBloom": NO_BLOOM,
        "withdrawals": [],
        "transactions": [],
    }


def transfer_logs(header: Header, transactions: Sequence[Transaction]) -> Iterator[dict[str, Any]]:
    """The ERC-20 Transfer events of a block, in order."""
    transfers = (t for t in transactions if t.token_receiver is not None)
    for index, transaction in enumerate(transfers):
        yield _transfer_log(header, transaction, index)


def _withdrawal(withdrawal: Withdrawal) -> dict[str, Any]:
    return {
        "index": hex(withdrawal.index),
        "validatorIndex": hex(withdrawal.validator),
        "address": "0x" + withdrawal.address.hex(),
        "amount": hex(withdrawal.amount),
    }


def log_filter(wanted: dict[str, Any]) -> Callable[[dict[str, Any]], bool]:
    """Whether a log is one that the filter's ``address`` and ``topics`` ask for."""
    addresses = _choices(wanted.get("address"), ADDRESS_BYTES)
    asked = wanted.get("topics") or []
    if not isinstance(asked, list):
        raise RpcError(INVALID_PARAMS, "topics is a list")
    topics = [_choices(topic, HASH_BYTES) for topic in asked]

    def matches(log: dict[str, Any]) -> bool:
        if addresses is not None and log["address"] not in addresses:
            return False
        if len(topics) > len(log["topics"]):
            return False
        pairs = zip(topics, log["topics"], strict=False)
        return all(choice is None or topic in choice for choice, topic in pairs)

    return matches


def _choices(value: Any, length: int) -> frozenset[str] | None:
    """Read one value or a list of them; null or an empty list means any."""
    if value is None or value == []:
        return None
    values = value if isinstance(value, list) else [value]
    return frozenset("0x" + fixed_bytes(one, length).hex() for one in values)


def _header_fields(header: Header) -> dict[str, Any]:
    """A block's fields apart from what depends on its transactions."""
    roots = shake_256(header.hash + b"roots").hexdigest(6 * HASH_BYTES)
    state, receipts, withdrawals, mix, beacon, transactions = (
        "0x" + roots[i : i + 64] for i in range(0, len(roots), 64)
    )
    return {
        "number": hex(header.number),
        "hash": "0x" + header.hash.hex(),
        "parentHash": "0x" + header.parent_hash.hex(),
        "sha3Uncles": _NO_UNCLES,
        "miner": "0x" + header.miner.hex(),
        "stateRoot": state,
        "transactionsRoot": transactions,
        "receiptsRoot": receipts,
        "difficulty": "0x0",
        "gasLimit": hex(GAS_LIMIT),
        "gasUsed": hex(header.gas_used),
        "timestamp": hex(header.timestamp),
        "extraData": "0x73616e64626f78",
        "mixHash": mix,
        "nonce": "0x0000000000000000",
        "baseFeePerGas": hex(header.base_fee),
        "withdrawalsRoot": withdrawals,
        "blobGasUsed": "0x0",
        "excessBlobGas": "0x0",
        "parentBeaconBlockRoot": beacon,
        "size": hex(700 + 180 * header.transaction_count),
        "uncles": [],
    }


def max_fee(header: Header, transaction: Transaction) -> int:
    """The most wei a unit of gas that a transaction offers."""
    return 2 * header.base_fee + transaction.priority_fee


def effective_gas_price(header: Header, transaction: Transaction) -> int:
    """Wei a transaction pays a unit of gas: base fee and tip, within what it offers (EIP-1559)."""
    room = max_fee(header, transaction) - header.base_fee
    return header.base_fee + min(transaction.priority_fee, room)


def _transaction(header: Header, transaction: Transaction, chain_id: str) -> dict[str, Any]:
    """One type-2 transaction as a node gives it inside a full block."""
    receiver = transaction.token_receiver
    call = "0x" if receiver is None else _transfer_call(receiver, transaction.token_amount)
    parity = hex(transaction.r[0] & 1)
    return {
        "blockHash": "0x" + header.hash.hex(),
        "blockNumber": hex(header.number),
        "from": "0x" + transaction.sender.hex(),
        "gas": hex(transaction.gas),
        "gasPrice": hex(effective_gas_price(header, transaction)),
        "maxFeePerGas": hex(max_fee(header, transaction)),
        "maxPriorityFeePerGas": hex(transaction.priority_fee),
        "hash": "0x" + transaction.hash.hex(),
        "input": call,
        "nonce": hex(transaction.nonce),
        "to": "0x" + transaction.receiver.hex(),
        "transactionIndex": hex(transaction.index),
        "value": hex(transaction.value),
        "type": "0x2",
        "accessList": [],
        "chainId": chain_id,
        "v": parity,
        "r": "0x" + transaction.r.hex(),
        "s": "0x" + transaction.s.hex(),
        "yParity": parity,
    }


def _transfer_call(receiver: bytes, amount: int) -> str:
    return f"{_ERC20_TRANSFER}{receiver.hex():0>64}{amount:064x}"


def _transfer_log(header: Header, transaction: Transaction, index: int) -> dict[str, Any]:
    """The Transfer event a token transfer leaves."""
    receiver = transaction.token_receiver or b""
    return {
        "address": "0x" + transaction.receiver.hex(),
        "topics": [
            TRANSFER_TOPIC,
            f"0x{transaction.sender.hex():0>64}",
            f"0x{receiver.hex():0>64}",
        ],
        "data": f"0x{transaction.token_amount:064x}",
        "blockNumber": hex(header.number),
        "blockHash": "0x" + header.hash.hex(),
        "blockTimestamp": hex(header.timestamp),
        "transactionHash": "0x" + transaction.hash.hex(),
        "transactionIndex": hex(transaction.index),
        "logIndex": hex(index),
        "removed": False,
    }
