"""Faults a real venue or node has, by a seeded schedule: the same requests fail the same way."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from cryptoml_sandbox.bars import MINUTE_MS, closings
from cryptoml_sandbox.streams import stream, uniform

if TYPE_CHECKING:
    import numpy.typing as npt

    from cryptoml_sandbox.bars import Bars
    from cryptoml_sandbox.settings import Faults

_BAR_FAULTS = ("missing_bars", "late_bars", "duplicate_bars", "descending_bars", "revised_bars")
_LEAST_BARS = 2
_SHARE = 0.1  # of a page's bars that go missing or come twice


class FaultSchedule:
    """Decides which request suffers which fault, and counts.

    Args:
        faults: rates and limits.
        seed: seed of the schedule.

    Attributes:
        counts: how often each fault struck.
        requests: requests to the world.
        node_requests: those the node answered since it suffers the present faults.
    """

    def __init__(self, faults: Faults, seed: int) -> None:
        self.faults = faults
        self.counts: Counter[str] = Counter()
        self.requests = self.node_requests = 0
        self._seed = seed
        self._struck = self._storm_left = self._before = 0
        self._gone: set[str] = set()

    def suffer(self, faults: Faults) -> None:
        """Go on with other ``faults``; their limit and their requests are counted from here."""
        self.faults = faults
        self._struck = self._storm_left = self.node_requests = 0
        self._before = self.requests

    def strikes(self, kind: str) -> bool:
        """Whether the present request suffers ``kind``; counted when it does."""
        rate = getattr(self.faults, kind)
        if not rate or self._is_over():
            return False
        if uniform(self._seed, "fault", kind, self.requests) >= rate:
            return False
        self._strike(kind)
        return True

    def storms(self) -> bool:
        """Whether the present request falls into a storm, one that began before or begins now."""
        if self._storm_left and not self._is_over():
            self._storm_left -= 1
            self._strike("storm")
            return True
        begins = self.strikes("storm")
        self._storm_left = self.faults.storm_requests - 1 if begins else 0
        return begins

    def count(self, kind: str) -> None:
        """Count a fault that is told to happen, not drawn; the limit knows nothing of it."""
        self.counts[kind] += 1

    def is_delisted(self, symbol: str) -> bool:
        """Whether the world has had so many requests that ``symbol`` is gone.

        Counted once for each symbol, and not ended by the limit: what is gone stays gone.
        """
        after = self.faults.delisted_after.get(symbol)
        if after is None or self.requests - self._before <= after:
            return False
        self._gone.add(symbol)
        self.counts["delisted_after"] = len(self._gone)
        return True

    def disturb(self, bars: Bars, now_ms: int, interval: str) -> Bars:
        """``bars`` of one page as a faulty venue gives them.

        Only a bar that closed less than the settling time ago can come late or be revised.
        """
        if len(bars) < _LEAST_BARS or not any(getattr(self.faults, k) for k in _BAR_FAULTS):
            return bars
        random = stream(self._seed, "fault", "bars", self.requests)
        rows = np.arange(len(bars))
        closed = closings(bars.open_time, interval)
        settling_ms = int(self.faults.settling_minutes * MINUTE_MS)
        settling = (closed <= now_ms) & (now_ms < closed + settling_ms)
        newest = settling & (closings(closed, interval) > now_ms)
        if self.strikes("missing_bars"):
            rows = rows[random.random(len(rows)) >= _SHARE]
        if newest.any() and self.strikes("late_bars"):
            rows = rows[(closed[rows] <= now_ms) & ~newest[rows]]
        if self.strikes("duplicate_bars"):
            rows = np.sort(np.concatenate([rows, rows[random.random(len(rows)) < _SHARE]]))
        if self.strikes("descending_bars"):
            rows = rows[::-1]
        if settling.any() and self.strikes("revised_bars"):
            bars = _revised(bars, int(random.choice(np.flatnonzero(settling))))
        return bars.take(rows)

    def _is_over(self) -> bool:
        return 0 < self.faults.limit <= self._struck

    def _strike(self, kind: str) -> None:
        self._struck += 1
        self.counts[kind] += 1


def _revised(bars: Bars, row: int) -> Bars:
    """``bars``, one of them with a close and a volume that a later answer corrects."""
    volume: npt.NDArray[np.int64] = bars.volume.copy()
    close: npt.NDArray[np.int64] = bars.close.copy()
    volume[row] -= volume[row] // 10
    close[row] = bars.low[row] if close[row] == bars.high[row] else bars.high[row]
    return replace(bars, volume=volume, close=close)
