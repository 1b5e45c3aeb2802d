"""Compiled programs of this process: one for all the models that differ in their numbers alone.

A model trained again by the same code is the same program with other weights. Where the one before
it answers, there is then nothing to compile, nor to read from a cache, which stops every thread for
tens of milliseconds.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

#: From a model's weights and a batch of rows to its answers.
Run = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Kind:
    """What makes two executables the same.

    Attributes:
        program: SHA-256 of the program's own bytes.
        outputs: names of its answers, in order.
        device: it is compiled for; none: JAX's own choice.
        size: rows of a batch.
    """

    program: str
    outputs: tuple[str, ...]
    device: Any
    size: int


@dataclass(eq=False)
class _Turn:
    """Whose turn it is to compile a kind."""

    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(eq=False)
class Executable:
    """A compiled program; it lives as long as some model refers to it.

    Attributes:
        run: it.
        seconds: its quickest run, what others were not in the way of; infinite before the first.
    """

    run: Run = field(repr=False)
    seconds: float = math.inf


_KNOWN: WeakValueDictionary[Kind, Executable] = WeakValueDictionary()
#: Of the kinds being compiled; others need not wait for them.
_COMPILING: WeakValueDictionary[Kind, _Turn] = WeakValueDictionary()
_LOCK = threading.Lock()


def known(kind: Kind) -> bool:
    """Whether some model of this process has it."""
    return kind in _KNOWN


def executable(kind: Kind, make: Callable[[], Run]) -> Executable:
    """The one of this kind, which ``make`` compiles where no model has it yet."""
    found = _KNOWN.get(kind)
    if found is not None:
        return found
    with _LOCK:
        turn = _COMPILING.setdefault(kind, _Turn())
    with turn.lock:
        # Whoever was before may have made it.
        found = _KNOWN.get(kind)
        if found is None:
            found = Executable(make())
            with _LOCK:
                _KNOWN[kind] = found
    return found
