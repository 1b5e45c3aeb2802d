"""When the simulated market changes its ways: another planted relation, another volatility."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cryptoml_sandbox.bars import MINUTE_MS
from cryptoml_sandbox.clock import to_ms
from cryptoml_sandbox.volatility import CHUNK_MINUTES

if TYPE_CHECKING:
    import numpy.typing as npt

    from cryptoml_sandbox.settings import SandboxSettings

    Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ways:
    """How the market behaves from one minute on, until others begin.

    Attributes:
        minute: minutes since genesis; the first minute it is true of.
        signal: strength of the planted reversal; below 0 the past hour goes on instead.
        volatility: what the deviation of every return is multiplied by.
    """

    minute: int
    signal: float
    volatility: float = 1.0


def changes(settings: SandboxSettings) -> tuple[Ways, ...]:
    """When the market of this world changes its ways."""
    genesis = to_ms(settings.genesis)
    return tuple(
        Ways(
            # A minute in progress stays what it is.
            -((genesis - to_ms(regime.since)) // MINUTE_MS),
            settings.signal if regime.signal is None else regime.signal,
            regime.volatility,
        )
        for regime in settings.regimes
    )


def signals(order: tuple[Ways, ...], index: int) -> Floats:
    """Strength of the planted reversal in each minute of week number ``index`` since genesis."""
    return np.asarray([each.signal for each in order])[_which(order, index)]


def volatilities(order: tuple[Ways, ...], index: int) -> Floats:
    """Factor of the deviation in each minute of week number ``index`` since genesis."""
    return np.asarray([each.volatility for each in order])[_which(order, index)]


def _which(order: tuple[Ways, ...], index: int) -> npt.NDArray[np.intp]:
    begins = np.asarray([each.minute for each in order[1:]])
    minutes = index * CHUNK_MINUTES + np.arange(CHUNK_MINUTES)
    return np.searchsorted(begins, minutes, side="right")
