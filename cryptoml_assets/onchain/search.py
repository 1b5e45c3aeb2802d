"""Search over block numbers in few round trips: many numbers are asked for at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

#: Numbers one round trip asks for; 20 million blocks take five.
_PROBES = 32


def last_holding(low: int, high: int, holds: Callable[[Sequence[int]], Sequence[bool]]) -> int:
    """Largest number in ``low`` to ``high`` for which a condition holds; ``low - 1`` if none.

    Args:
        low: first number.
        high: last number.
        holds: says for several rising numbers at once whether the condition holds; what does not
            hold for a number must not hold for any above it.
    """
    while low <= high:
        probes = _spread(low, high)
        held = sum(1 for _ in _leading(holds(probes)))
        if held < len(probes):
            high = probes[held] - 1
        if held:
            low = probes[held - 1] + 1
    return low - 1


def gaps(wanted: range, held: Iterable[range]) -> list[range]:
    """The parts of ``wanted`` that none of ``held`` covers, rising; ``held`` rises and is apart."""
    found, start = [], wanted.start
    for span in held:
        if span.start > start:
            found.append(range(start, min(span.start, wanted.stop)))
        start = max(start, span.stop)
    found.append(range(start, wanted.stop))
    return [span for span in found if span]


def joined(spans: Iterable[range]) -> list[range]:
    """The same numbers as rising ranges that neither overlap nor touch."""
    found: list[range] = []
    for span in sorted((span for span in spans if span), key=lambda each: each.start):
        if found and span.start <= found[-1].stop:
            found[-1] = range(found[-1].start, max(found[-1].stop, span.stop))
        else:
            found.append(span)
    return found


def _spread(low: int, high: int) -> list[int]:
    """Up to ``_PROBES`` rising numbers, both ends among them."""
    last = high - low
    if last < _PROBES:
        return list(range(low, high + 1))
    return [low + last * i // (_PROBES - 1) for i in range(_PROBES)]


def _leading(answers: Iterable[bool]) -> Iterable[bool]:
    for answer in answers:
        if not answer:
            return
        yield answer
