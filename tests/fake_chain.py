"""A chain in memory that answers as a node does and counts what it is asked, for unit tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from threading import Lock
from typing import Any

START = datetime(2024, 3, 1, tzinfo=UTC)
_ADDRESSES = [f"0x{n:040x}" for n in range(9)]


def make_block(number: int, parent: str, seconds: int, branch: int = 0) -> dict[str, Any]:
    """A block with two transactions, whose hash names its parent and its branch."""
    text = f"{number} {parent} {seconds} {branch}"
    transactions = [
        {
            "from": _ADDRESSES[number % 7],
            "to": _ADDRESSES[branch % 9] if turn else None,
            "value": hex(number + turn),
        }
        for turn in range(2)
    ]
    return {
        "number": hex(number),
        "hash": f"0x{sha256(text.encode()).hexdigest()}",
        "parentHash": parent,
        "timestamp": hex(int(START.timestamp()) + seconds),
        "miner": _ADDRESSES[8],
        "gasUsed": "0x10",
        "gasLimit": "0x20",
        "baseFeePerGas": "0x3",
        "difficulty": "0x0",
        "transactions": transactions,
    }


@dataclass
class FakeChain:
    """A node with ``count`` blocks ``pace`` seconds apart, the first at ``START``.

    ``full`` are the numbers asked for with transactions, ``headers`` those without, ``batches`` the
    requests. A tag, once a number had it, stays with it. ``before`` is called with the number of
    each request before it is answered.
    """

    count: int = 0
    pace: int = 60
    chain: str = "0x1"
    address: str = "http://node"
    work: str = "onchain_blocks 2024-03-01"
    source: str = "simulated"
    room: int = 10
    safe: int | None = -1
    finalized: int | None = -1
    receipts: Any = None
    before: Any = None
    blocks: list[dict[str, Any]] = field(default_factory=list)
    full: list[int] = field(default_factory=list)
    headers: list[int] = field(default_factory=list)
    batches: int = 0
    _branch: int = 0
    _one_at_a_time: Any = field(default_factory=Lock, repr=False)

    def __post_init__(self) -> None:
        self.extend(self.count)

    @property
    def latest(self) -> int:
        return len(self.blocks) - 1

    def extend(self, count: int, pace: int | None = None) -> None:
        for _ in range(count):
            last = self.blocks[-1] if self.blocks else None
            parent = last["hash"] if last else f"0x{0:064x}"
            seconds = int(last["timestamp"], 16) - int(START.timestamp()) if last else -self.pace
            after = seconds + (pace or self.pace)
            self.blocks.append(make_block(len(self.blocks), parent, after, self._branch))
        if self.safe is not None:
            self.safe = max(self.safe, self.latest - 4)
        if self.finalized is not None:
            self.finalized = max(self.finalized, self.latest - 8)

    def reorganise(self, depth: int, length: int | None = None, pace: int | None = None) -> int:
        """Put another branch of ``length`` blocks in the place of the newest ``depth``."""
        first = len(self.blocks) - depth
        del self.blocks[first:]
        self._branch += 1
        self.extend(depth if length is None else length, pace)
        return first

    def forget(self) -> None:
        """Forget what was asked so far."""
        self.full.clear()
        self.headers.clear()
        self.batches = 0

    def ask(self, calls: Sequence[tuple[str, list[Any]]]) -> list[dict[str, Any]]:
        with self._one_at_a_time:
            self.batches += 1
            if self.before is not None:
                self.before(self.batches)
            return [self._answer(method, params) for method, params in calls]

    def _answer(self, method: str, params: list[Any]) -> dict[str, Any]:
        if method == "eth_chainId":
            return {"result": self.chain}
        if method == "eth_getBlockReceipts":
            return self._receipts(int(params[0], 16))
        tags = {"latest": self.latest, "safe": self.safe, "finalized": self.finalized}
        asked, full = params
        if asked in tags:
            number = tags[asked]
            if number is None:
                return {"error": {"code": -39001, "message": "unknown block"}}
            return {"result": self.blocks[min(max(number, 0), self.latest)]}
        number = int(asked, 16)
        (self.full if full else self.headers).append(number)
        return {"result": self.blocks[number] if number <= self.latest else None}

    def _receipts(self, number: int) -> dict[str, Any]:
        if self.receipts is not None:
            return self.receipts(self.blocks[number])
        return {"error": {"code": -32601, "message": "the method does not exist"}}
