"""Blocks of an Ethereum chain, summed up one row each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import chain, pairwise
from typing import Any, Protocol

import polars as pl

from cryptoml_assets.errors import UnusableAnswerError, WrongChainError

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
    "burnt_wei": (_WEI, "base fee times gas used in wei, without blob fees; null before London"),
    "finality": (pl.String, "finalized, safe or latest when the row was read"),
    "source": (pl.String, "world the row comes from: simulated, replay or live"),
    "date": (pl.Date, "UTC day of timestamp; the partition"),
}
SCHEMA = pl.Schema({name: kind for name, (kind, _) in _COLUMNS.items()})
MEANINGS = {name: meaning for name, (_, meaning) in _COLUMNS.items()}
KEY = ("chain_id", "number")

# A hundred full mainnet blocks are about 20 MB of JSON, and public nodes cap batches near there.
_BATCH = 100
# One batch is decoded while the node prepares the next.
_IN_FLIGHT = 2

Row = dict[str, Any]


class Node(Protocol):
    """What reading blocks needs of a node."""

    @property
    def address(self) -> str:
        """Where the node listens."""

    @property
    def work(self) -> str:
        """Asset and partitions the node is read for."""

    @property
    def source(self) -> str:
        """World the node's answers come from."""

    def ask(self, calls: Sequence[tuple[str, list[Any]]]) -> list[dict[str, Any]]:
        """Send a batch; one JSON-RPC response per call, in order."""


@dataclass(frozen=True)
class Tips:
    """Numbers of the newest block, and of the newest safe and finalized ones where known."""

    latest: int
    safe: int | None
    finalized: int | None

    def finality(self, number: int) -> str:
        """``finalized``, ``safe`` or ``latest``: the strongest tag that covers a block."""
        if self.finalized is not None and number <= self.finalized:
            return "finalized"
        return "safe" if self.safe is not None and number <= self.safe else "latest"


def read_blocks(node: Node, start: datetime, end: datetime, *, chain_id: int) -> pl.DataFrame:
    """Every block with ``start <= timestamp < end`` that the node has, as ``SCHEMA``, by number.

    Raises:
        WrongChainError: the node is on another chain than ``chain_id``.
        UnusableAnswerError: blocks missing, malformed or not a chain.
        WorldUnreachableError: the node stayed down through every retry.
    """
    tips = read_tips(node, chain_id)
    first, last = block_range(start, end, tips.latest, lambda n: _timestamp(_header(node, n)))
    batches = [range(n, min(n + _BATCH, last + 1)) for n in range(first, last + 1, _BATCH)]

    def rows_of(numbers: range) -> list[Row]:
        blocks = _blocks(node, [hex(n) for n in numbers], full=True)
        return [summarise(b, chain_id=chain_id, source=node.source, tips=tips) for b in blocks]

    with ThreadPoolExecutor(_IN_FLIGHT, thread_name_prefix="blocks") as pool:
        rows = list(chain.from_iterable(pool.map(rows_of, batches)))
    broken = first_break((row["number"], row["hash"], row["parent_hash"]) for row in rows)
    if broken is not None:
        message = (
            f"POST {node.address}: {node.work}: block {broken} does not follow the block before "
            "it; the chain was reorganised while it was read, or the node is inconsistent"
        )
        raise UnusableAnswerError(message)
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def read_tips(node: Node, chain_id: int) -> Tips:
    """Where the chain ends; a node that does not know a tag leaves it out.

    Raises:
        WrongChainError: the node is on another chain than ``chain_id``.
        UnusableAnswerError: the node does not say its chain or its newest block.
    """
    tags = ("latest", "safe", "finalized")
    answers = node.ask(
        [("eth_chainId", []), *(("eth_getBlockByNumber", [tag, False]) for tag in tags)]
    )
    results = [_result(node, answer) for answer in answers[:2]]
    # Older nodes and chains without finality answer these tags with an error or with null.
    results += [answer.get("result") for answer in answers[2:]]
    try:
        found = int(results[0], 16)
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
    return Tips(latest, safe, finalized)


def block_range(
    start: datetime, end: datetime, latest: int, timestamp_of: Callable[[int], int]
) -> tuple[int, int]:
    """Numbers of the first and last block with ``start <= timestamp < end``.

    Both by binary search in blocks 0 to ``latest``; ``timestamp_of`` gives a block's seconds since
    1970, which rise with its number. Without such a block the first number is past the last.
    """
    first = _first_at_or_after(int(start.timestamp()), 0, latest, timestamp_of)
    after = _first_at_or_after(int(end.timestamp()), first, latest, timestamp_of)
    return first, after - 1


def summarise(block: Mapping[str, Any], *, chain_id: int, source: str, tips: Tips) -> Row:
    """One row of ``SCHEMA`` from a JSON-RPC block with full transactions.

    Raises:
        UnusableAnswerError: the block lacks what every block has, or has bare transaction hashes.
    """
    try:
        number = int(block["number"], 16)
        instant = datetime.fromtimestamp(_timestamp(block), UTC)
        gas_used, base_fee = _number(block, "gasUsed"), _number(block, "baseFeePerGas")
        transactions = block["transactions"]
        return {
            "chain_id": chain_id,
            "number": number,
            "hash": block["hash"].lower(),
            "parent_hash": block["parentHash"].lower(),
            "timestamp": instant,
            "transaction_count": len(transactions),
            "gas_used": gas_used,
            "gas_limit": _number(block, "gasLimit"),
            "base_fee_per_gas": base_fee,
            "difficulty": _wei(_number(block, "difficulty")),
            "total_difficulty": _wei(_number(block, "totalDifficulty")),
            "active_addresses": len(_addresses(block)),
            "value_transferred_wei": Decimal(sum(int(t["value"], 16) for t in transactions)),
            "burnt_wei": _wei(_product(base_fee, gas_used)),
            "finality": tips.finality(number),
            "source": source,
            "date": instant.date(),
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        message = f"block {block.get('number')!r} cannot be read: {error!r}"
        raise UnusableAnswerError(message) from error


def first_break(blocks: Iterable[tuple[int, str, str]]) -> int | None:
    """Number of the first block that does not follow the one before it, if any.

    ``blocks`` are (number, hash, parent hash), in the order they should follow each other.
    """
    for (number, block_hash, _), (following, _, parent_hash) in pairwise(blocks):
        if following != number + 1 or parent_hash != block_hash:
            return following
    return None


def check_attaches(blocks: pl.DataFrame, stored: pl.DataFrame) -> None:
    """Refuse ``blocks`` whose first is not a child of the last of ``stored``, the day before.

    Nothing is refused where either is empty or blocks are missing in between.

    Raises:
        UnusableAnswerError: the stored day is of another branch and must be read again.
    """
    if blocks.is_empty() or stored.is_empty():
        return
    first, before = blocks.row(0, named=True), stored.sort("number").row(-1, named=True)
    if first["number"] == before["number"] + 1 and first["parent_hash"] != before["hash"]:
        message = (
            f"onchain_blocks {first['date']}: block {first['number']} is no child of the stored "
            f"block {before['number']} ({before['hash']}): the chain was reorganised across "
            f"midnight. Materialise {before['date']} and {first['date']} in one run"
        )
        raise UnusableAnswerError(message)


def check_not_behind(blocks: pl.DataFrame, stored: pl.DataFrame) -> None:
    """Refuse ``blocks`` of the same days as ``stored`` that lack its newest finalized block.

    Raises:
        UnusableAnswerError: the node is behind what was read before, and would erase it.
    """
    final = stored.filter(pl.col("finality") == "finalized").sort("number").tail(1)
    if final.is_empty() or final["number"].is_in(blocks["number"].implode()).item():
        return
    number, day = final["number"].item(), final["date"].item()
    message = (
        f"onchain_blocks {day}: the node has no block {number} of that day, which is stored as "
        "finalized: it is behind. Wait for it to catch up, or read from another node"
    )
    raise UnusableAnswerError(message)


def _first_at_or_after(
    second: int, low: int, latest: int, timestamp_of: Callable[[int], int]
) -> int:
    """Smallest number from ``low`` on with a timestamp of at least ``second``, else latest + 1."""
    high = latest + 1
    while low < high:
        middle = (low + high) // 2
        if timestamp_of(middle) < second:
            low = middle + 1
        else:
            high = middle
    return low


def _header(node: Node, number: int) -> Mapping[str, Any]:
    return _blocks(node, [hex(number)], full=False)[0]


def _blocks(node: Node, numbers: Sequence[str], *, full: bool) -> list[Mapping[str, Any]]:
    answers = node.ask([("eth_getBlockByNumber", [number, full]) for number in numbers])
    blocks = [_result(node, answer) for answer in answers]
    for number, block in zip(numbers, blocks, strict=True):
        known = isinstance(block, dict) and isinstance(block.get("timestamp"), str)
        if not known or block.get("number") != number:
            message = (
                f"POST {node.address}: {node.work}: asked for block {int(number, 16)}, got {block}"
            )
            raise UnusableAnswerError(message[:500])
    return blocks


def _result(node: Node, answer: Mapping[str, Any]) -> Any:
    if "result" not in answer:
        message = f"POST {node.address}: {node.work}: {answer.get('error', answer)}"
        raise UnusableAnswerError(message[:500])
    return answer["result"]


def _timestamp(block: Mapping[str, Any]) -> int:
    return int(block["timestamp"], 16)


def _number(block: Mapping[str, Any], field: str) -> int | None:
    value = block.get(field)
    return None if value is None else int(value, 16)


def _wei(amount: int | None) -> Decimal | None:
    return None if amount is None else Decimal(amount)


def _product(left: int | None, right: int | None) -> int | None:
    return None if left is None or right is None else left * right


def _addresses(block: Mapping[str, Any]) -> set[str]:
    """Senders, receivers and the fee recipient; a contract's creation has no receiver."""
    found = {t["from"] for t in block["transactions"]}
    found.update(t.get("to") for t in block["transactions"])
    found.add(block.get("miner"))
    found.discard(None)
    return found
