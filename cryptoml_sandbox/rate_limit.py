"""The venue's rate limit: request weight a window of real time, and a ban for who asks on."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

#: What the real venue allows a minute; stated where this one enforces nothing.
USUAL_WEIGHT, USUAL_SECONDS = 6000, 60


class Verdict(NamedTuple):
    """What the limit says to one request.

    Attributes:
        status: 200 where it is admitted, 429 past the limit, 418 while banned.
        retry_after: whole seconds until asking again is of use; 0 where admitted.
        used: weight used in the present window, this request's included where admitted.
    """

    status: int
    retry_after: int
    used: int


class RateLimit:
    """Weight used in windows of real time, aligned to it as the venue's minutes are.

    Args:
        weight: weight a window admits; 0: any, though it is still counted.
        seconds: length of a window.
        patience: refused requests of one window after which every further one means a ban.
        ban_seconds: length of a ban.
        clock: real seconds since 1970.
    """

    def __init__(
        self,
        weight: int = 0,
        seconds: int = USUAL_SECONDS,
        *,
        patience: int = 10,
        ban_seconds: int = 3,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.weight = weight
        self.seconds = seconds
        self.patience = patience
        self.ban_seconds = ban_seconds
        self.refused = self.banned = self.total = self.peak = 0
        self._clock = clock
        self._window = self._used = self._refused_now = 0
        self._banned_until = 0.0

    def ask(self, weight: int) -> Verdict:
        """Count one request of ``weight`` and say whether it is answered."""
        now = self._clock()
        window = int(now // self.seconds)
        if window != self._window:
            self._window, self._used, self._refused_now = window, 0, 0
        if now < self._banned_until:
            return self._ban(now)
        if self.weight and self._used + weight > self.weight:
            self.refused += 1
            self._refused_now += 1
            if self._refused_now > self.patience:
                self._banned_until = now + self.ban_seconds
                return self._ban(now)
            return Verdict(429, _whole((window + 1) * self.seconds - now), self._used)
        self._used += weight
        self.total += weight
        self.peak = max(self.peak, self._used)
        return Verdict(200, 0, self._used)

    def describe(self) -> dict[str, int]:
        """The limit and what became of the requests so far, for ``GET /faults``."""
        return {
            "weight": self.weight,
            "seconds": self.seconds,
            "used_weight": self.total,
            "peak_weight": self.peak,
            "refused": self.refused,
            "banned": self.banned,
        }

    def stated(self) -> dict[str, str | int]:
        """The limit as exchangeInfo states it."""
        weight, seconds = self.weight, self.seconds
        if not weight:
            weight, seconds = USUAL_WEIGHT, USUAL_SECONDS
        by_minute = seconds % 60 == 0
        return {
            "rateLimitType": "REQUEST_WEIGHT",
            "interval": "MINUTE" if by_minute else "SECOND",
            "intervalNum": seconds // 60 if by_minute else seconds,
            "limit": weight,
        }

    def _ban(self, now: float) -> Verdict:
        self.banned += 1
        return Verdict(418, _whole(self._banned_until - now), self._used)


def _whole(seconds: float) -> int:
    return max(1, math.ceil(seconds))
