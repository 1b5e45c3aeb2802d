"""How strongly the market moves from minute to minute: season, clustering, long memory.

Log-volatility is a sum of mean-reverting parts whose time scales lie decades apart; together their
autocorrelation falls like a power of the lag, as measured on real bars, though each part alone
forgets exponentially. Time is cut into chunks of a week; a part goes on where the chunk before
left it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

CHUNK_MINUTES = 7 * 1440

#: Mean log-volatility of each hour of the UTC day and of each weekday from Monday on,
#: measured on BTC/USDT and ETH/USDT, 2024-01 to 2024-09.
_HOURS = (
    *(0.02, 0.09, -0.05, -0.20, -0.24, -0.25, -0.22, -0.19),
    *(-0.08, -0.16, -0.19, -0.16, 0.07, 0.20, 0.37, 0.24),
    *(0.20, 0.15, 0.10, 0.06, 0.08, 0.04, -0.04, -0.20),
)
_WEEKDAYS = (0.11, 0.14, 0.13, 0.06, 0.08, -0.39, -0.29)


@dataclass(frozen=True)
class Component:
    """One mean-reverting part of log-volatility: time scale in minutes, deviation."""

    minutes: float
    deviation: float


#: Shared by the whole market. No scale may be under 15 minutes (see `mean_reverting`).
COMMON = (
    Component(20.0, 0.35),
    Component(180.0, 0.32),
    Component(1_440.0, 0.28),
    Component(14_400.0, 0.38),
)
#: Time scale of the part that is a pair's own.
OWN_MINUTES = 360.0


@cache
def _week() -> Floats:
    """Seasonal log-volatility of each minute of the week, shifted so that E[exp(2 s)] = 1."""
    hour = np.arange(1440) / 60
    day = np.interp(hour, np.arange(24) + 0.5, _HOURS, period=24)
    week = (np.asarray(_WEEKDAYS)[:, None] + day[None, :]).ravel()
    centred: Floats = week - 0.5 * np.log(np.mean(np.exp(2 * week)))
    return centred


def season(first_minute_of_week: int) -> Floats:
    """Seasonal log-volatility of a chunk that starts so many minutes after a Monday's midnight."""
    return np.roll(_week(), -first_minute_of_week)


@cache
def _growth(minutes: float) -> Floats:
    return np.exp(np.arange(1, CHUNK_MINUTES + 1) / minutes)


def mean_reverting(noise: Floats, before: float, minutes: float) -> Floats:
    """A stationary first-order autoregression of unit variance, one chunk of it.

    Solved in closed form as a scaled cumulative sum, which needs exp(chunk / time scale) to be
    representable: time scales of 15 minutes and more.

    Args:
        noise: standard normal draws, one a minute.
        before: value in the minute before the chunk.
        minutes: time in which its autocorrelation falls to 1/e.
    """
    growth = _growth(minutes)
    gain = np.sqrt(-np.expm1(-2 / minutes))
    return (before + np.cumsum(gain * noise * growth)) / growth
