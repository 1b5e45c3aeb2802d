"""What the transactions of blocks paid for gas, which only their receipts say."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptoml_assets.errors import ChainMovedError
from cryptoml_assets.onchain.tips import Node, result_of

METHOD = "eth_getBlockReceipts"
#: Error codes of a node that has no such method (-32601), takes other parameters (-32602), does
#: not support it (-32004), or has pruned what is asked for (4444).
_LACKING = frozenset({-32601, -32602, -32004, 4444})
_log = logging.getLogger(__name__)


@dataclass
class Receipts:
    """Whether receipts are asked for: as long as they are ``wanted`` and the node has them."""

    wanted: bool
    lacking: bool = False

    @property
    def asked(self) -> bool:
        """Whether the next blocks should be read with their receipts."""
        return self.wanted and not self.lacking

    def fees(
        self, node: Node, block: Mapping[str, Any], answer: Mapping[str, Any] | None
    ) -> int | None:
        """Sum of price times gas over the receipts of ``block`` in wei, where the node has them.

        ``answer`` is the node's response to ``eth_getBlockReceipts``, or none if it was not asked.

        Raises:
            ChainMovedError: the receipts are of another block of that number.
            UnusableAnswerError: an error that does not mean that receipts are lacking.
        """
        if answer is None or self._lacks(node, answer):
            return None
        receipts = result_of(node, answer)
        if receipts is None:
            return None
        check_are_of(node, block, receipts)
        try:
            return sum(int(r["effectiveGasPrice"], 16) * int(r["gasUsed"], 16) for r in receipts)
        except (KeyError, TypeError, ValueError):
            return None  # a node that lacks a field of receipts

    def _lacks(self, node: Node, answer: Mapping[str, Any]) -> bool:
        error = answer.get("error")
        if not isinstance(error, dict) or error.get("code") not in _LACKING:
            return False
        if not self.lacking:
            self.lacking = True
            _log.warning(
                "POST %s: %s: no fees, for the node gives no receipts: %s",
                *(node.address, node.work, error.get("message", error)),
            )
        return True


def check_are_of(node: Node, block: Mapping[str, Any], receipts: Sequence[Any]) -> None:
    """Refuse receipts of another block than ``block``, or not one for each of its transactions.

    Raises:
        ChainMovedError: naming the block.
    """
    other = any(isinstance(r, dict) and r.get("blockHash") != block.get("hash") for r in receipts)
    if other or len(receipts) != len(block.get("transactions", ())):
        message = (
            f"POST {node.address}: {node.work}: block {int(block['number'], 16)} and its receipts "
            "do not belong together"
        )
        raise ChainMovedError(message)
