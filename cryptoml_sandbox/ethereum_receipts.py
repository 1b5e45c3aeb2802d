"""Receipts of the simulated chain's transactions, as ``eth_getBlockReceipts`` gives them."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any

from cryptoml_sandbox.ethereum_wire import ANY_BLOOM, NO_BLOOM, effective_gas_price, transfer_logs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptoml_sandbox.chain_content import Header, Transaction


def receipt_objects(header: Header, transactions: Sequence[Transaction]) -> list[dict[str, Any]]:
    """The receipts of a block, in order; every transaction succeeds and uses all of its gas."""
    logs = {log["transactionHash"]: log for log in transfer_logs(header, transactions)}
    block_hash, number = "0x" + header.hash.hex(), hex(header.number)
    receipts = []
    used = accumulate(transaction.gas for transaction in transactions)
    for transaction, cumulative in zip(transactions, used, strict=True):
        identity = "0x" + transaction.hash.hex()
        log = logs.get(identity)
        receipts.append(
            {
                "transactionHash": identity,
                "transactionIndex": hex(transaction.index),
                "blockHash": block_hash,
                "blockNumber": number,
                "from": "0x" + transaction.sender.hex(),
                "to": "0x" + transaction.receiver.hex(),
                "cumulativeGasUsed": hex(cumulative),
                "gasUsed": hex(transaction.gas),
                "effectiveGasPrice": hex(effective_gas_price(header, transaction)),
                "status": "0x1",
                "type": "0x2",
                "logs": [] if log is None else [log],
                "logsBloom": NO_BLOOM if log is None else ANY_BLOOM,
                "contractAddress": None,
            }
        )
    return receipts
