"""Where a chain ends: its newest block, and the newest that are safe and finalized."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cryptoml_assets.errors import UnusableAnswerError, WrongChainError


class Node(Protocol):
    """What reading a chain needs of a node."""

    @property
    def address(self) -> str:
        """Where the node listens."""

    @property
    def work(self) -> str:
        """Asset and partitions the node is read for."""

    @property
    def source(self) -> str:
        """World the node's answers come from."""

    @property
    def room(self) -> int:
        """Calls that one batch should hold at most, going by the answers so far."""

    def ask(self, calls: Sequence[tuple[str, list[Any]]]) -> list[dict[str, Any]]:
        """Send a batch; one JSON-RPC response per call, in order."""


@dataclass(frozen=True)
class Tips:
    """The end of a chain.

    Attributes:
        latest: number of the newest block.
        safe: number of the newest safe block, where the node knows.
        finalized: number of the newest finalized block, where the node knows.
        timestamp: seconds since 1970 that the newest block carries.
    """

    latest: int
    safe: int | None
    finalized: int | None
    timestamp: int = 0

    def finality(self, number: int) -> str:
        """``finalized``, ``safe`` or ``latest``: the strongest tag that covers a block."""
        if self.finalized is not None and number <= self.finalized:
            return "finalized"
        return "safe" if self.safe is not None and number <= self.safe else "latest"


def read_tips(node: Node, chain_id: int) -> Tips:
    """Where the chain ends; a node that does not know a tag leaves it out.

    Raises:
        WrongChainError: the node is on another chain than ``chain_id``.
        UnusableAnswerError: the node does not say its chain or its newest block.
        WorldUnreachableError: the node stayed down through every retry.
    """
    tags = ("latest", "safe", "finalized")
    answers = node.ask(
        [("eth_chainId", []), *(("eth_getBlockByNumber", [tag, False]) for tag in tags)]
    )
    results = [result_of(node, answer) for answer in answers[:2]]
    # Older nodes and chains without finality answer these tags with an error or with null.
    results += [answer.get("result") for answer in answers[2:]]
    try:
        found = int(results[0], 16)
        newest = results[1] and int(results[1]["timestamp"], 16)
        latest, safe, finalized = (block and int(block["number"], 16) for block in results[1:])
    except (KeyError, TypeError, ValueError) as error:
        message = f"POST {node.address}: {node.work}: the chain's tips cannot be read: {error!r}"
        raise UnusableAnswerError(message) from error
    if found != chain_id:
        message = f"{node.address} is on chain {found}, but CRYPTOML_CHAIN_ID={chain_id}"
        raise WrongChainError(message)
    if latest is None:
        message = f"POST {node.address}: {node.work}: no block is tagged latest"
        raise UnusableAnswerError(message)
    return Tips(latest, safe, finalized, newest)


def result_of(node: Node, answer: Mapping[str, Any]) -> Any:
    """The result of one JSON-RPC response.

    Raises:
        UnusableAnswerError: it is an error.
    """
    if "result" not in answer:
        message = f"POST {node.address}: {node.work}: {answer.get('error', answer)}"
        raise UnusableAnswerError(message[:500])
    return answer["result"]
