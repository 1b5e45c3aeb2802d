"""Waits for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(
    condition: Callable[[], object], seconds: float = 30.0, otherwise: str = "it never came about"
) -> None:
    """Wait for something.

    Args:
        condition: whether it came about; asked again and again.
        seconds: longest wait.
        otherwise: what is wrong where it does not come about.

    Raises:
        AssertionError: it did not come about.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.02)
