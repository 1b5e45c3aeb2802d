"""Blocks and their headers as a node answers them, in batches with a few on their way at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice, pairwise
from typing import Any, TypeVar

import polars as pl

from cryptoml_assets.errors import ChainMovedError
from cryptoml_assets.onchain.blocks import frame_of, summarise
from cryptoml_assets.onchain.receipts import METHOD, Receipts
from cryptoml_assets.onchain.search import last_holding
from cryptoml_assets.onchain.tips import Node, Tips, result_of

# While one batch is summed up, the node prepares the others.
_IN_FLIGHT = 3

Answer = Mapping[str, Any]
Task = TypeVar("Task")
Result = TypeVar("Result")


def hashes(node: Node, numbers: Sequence[int]) -> list[str | None]:
    """Hash of each block of the node's chain; none where it has no such block.

    Raises:
        UnusableAnswerError: an error, or another block than asked for.
        WorldUnreachableError: the node stayed down through every retry.
    """
    headers = _headers(node, numbers)
    return [None if block is None else block["hash"].lower() for block in headers]


def timestamps(node: Node, numbers: Sequence[int]) -> list[int]:
    """Seconds since 1970 that each block carries.

    Raises:
        ChainMovedError: the node has no such block.
        UnusableAnswerError: an error, or another block than asked for.
        WorldUnreachableError: the node stayed down through every retry.
    """
    found = zip(numbers, _headers(node, numbers), strict=True)
    return [int(_present(node, number, block)["timestamp"], 16) for number, block in found]


def first_at(node: Node, second: int, low: int, high: int) -> int:
    """Smallest number from ``low`` to ``high`` with a timestamp of at least ``second``.

    ``high + 1`` if there is none. Timestamps rise with the number.
    """

    def before(numbers: Sequence[int]) -> list[bool]:
        return [timestamp < second for timestamp in timestamps(node, numbers)]

    return last_holding(low, high, before) + 1


def read_blocks(
    node: Node, spans: Iterable[range], tips: Tips, receipts: Receipts, chain_id: int
) -> Iterator[pl.DataFrame]:
    """The blocks of ``spans`` as frames of ``SCHEMA``, one a batch, in order.

    Memory is bounded by a few batches however much is read.

    Raises:
        ChainMovedError: a block the node no longer has, or one that does not follow the one before.
        UnusableAnswerError: an answer that cannot be read.
        WorldUnreachableError: the node stayed down through every retry.
    """

    def rows_of(numbers: Sequence[int]) -> pl.DataFrame:
        answers = _full(node, numbers, receipts)
        return frame_of(
            summarise(
                block,
                chain_id=chain_id,
                source=node.source,
                tips=tips,
                fees=receipts.fees(node, block, receipt),
            )
            for block, receipt in answers
        )

    def batches() -> Iterator[list[int]]:
        numbers = chain.from_iterable(spans)
        while batch := list(islice(numbers, max(1, node.room // (1 + receipts.asked)))):
            yield batch

    yield from _in_order(batches(), rows_of)


def first_break(blocks: Iterable[tuple[int, str, str]]) -> int | None:
    """Number of the first block that is no child of the one before it, if any.

    ``blocks`` are (number, hash, parent hash) with rising numbers; nothing is known of one whose
    number does not come right after.
    """
    for (number, block_hash, _), (following, _, parent_hash) in pairwise(blocks):
        if following == number + 1 and parent_hash != block_hash:
            return following
    return None


def _in_order(tasks: Iterable[Task], work: Callable[[Task], Result]) -> Iterator[Result]:
    """``work`` of each task in their order, a few at once and none long before its turn."""
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(_IN_FLIGHT, thread_name_prefix="blocks") as pool:
        try:
            for task in tasks:
                waiting.append(pool.submit(work, task))
                if len(waiting) > _IN_FLIGHT:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _full(
    node: Node, numbers: Sequence[int], receipts: Receipts
) -> list[tuple[Answer, Answer | None]]:
    """Each block with full transactions, and the answer for its receipts if they were asked for."""
    calls: list[tuple[str, list[Any]]] = [_call(number, full=True) for number in numbers]
    if asked := receipts.asked:
        calls += [(METHOD, [hex(number)]) for number in numbers]
    answers = node.ask(calls)
    blocks = [
        _present(node, number, _known(node, number, answer))
        for number, answer in zip(numbers, answers, strict=False)
    ]
    said = answers[len(numbers) :] if asked else [None] * len(numbers)
    return list(zip(blocks, said, strict=True))


def _headers(node: Node, numbers: Sequence[int]) -> list[Answer | None]:
    answers = node.ask([_call(number, full=False) for number in numbers]) if numbers else []
    return [_known(node, number, answer) for number, answer in zip(numbers, answers, strict=True)]


def _call(number: int, *, full: bool) -> tuple[str, list[Any]]:
    return ("eth_getBlockByNumber", [hex(number), full])


def _known(node: Node, number: int, answer: Answer) -> Answer | None:
    """The block of an answer, or none.

    Raises:
        ChainMovedError: it is of another number, or no block.
        UnusableAnswerError: it is an error.
    """
    block = result_of(node, answer)
    if block is None:
        return None
    usable = isinstance(block, dict) and all(
        isinstance(block.get(field), str) for field in ("hash", "timestamp")
    )
    if not usable or block.get("number") != hex(number):
        raise _other_than_asked(node, number, block)
    found: Answer = block
    return found


def _present(node: Node, number: int, block: Answer | None) -> Answer:
    if block is None:
        raise _other_than_asked(node, number, block)
    return block


def _other_than_asked(node: Node, number: int, block: Any) -> ChainMovedError:
    message = f"POST {node.address}: {node.work}: asked for block {number}, got {block}"
    return ChainMovedError(message[:500])
