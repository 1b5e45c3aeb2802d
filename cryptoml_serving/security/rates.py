"""How fast one caller may ask."""

from __future__ import annotations

import math


class Bucket:
    """A bucket that holds one second's worth of requests and fills evenly.

    Kept as the instant at which it will be full again (the generic cell rate algorithm, ITU-T
    I.371), which is the same rule with a single number and no timer. One a worker: several workers
    each let a caller have its rate.
    """

    __slots__ = ("_full_at", "_interval", "_tolerance", "rate")

    def __init__(self, rate: float) -> None:
        """Begin full.

        Args:
            rate: requests a second, more than zero.
        """
        self.rate = rate
        self._interval = 1.0 / rate
        self._tolerance = (max(1, math.ceil(rate)) - 1) * self._interval
        self._full_at = 0.0

    def take(self, now: float) -> float:
        """Take one request out.

        Args:
            now: monotonic seconds.

        Returns:
            Zero, or the seconds until there is one again; then nothing was taken.
        """
        if wait := self.wait(now):
            return wait
        self._full_at = max(self._full_at, now) + self._interval
        return 0.0

    def wait(self, now: float) -> float:
        """What ``take`` would return, and nothing is taken."""
        seconds = self._full_at - now - self._tolerance
        # What is left of a difference between two floats is no reason to wait.
        return seconds if seconds > 1e-9 else 0.0  # noqa: PLR2004 - a nanosecond
