"""The simulated market's path: log prices and log-volatility of every minute since genesis.

A pure function of the seed and the market's ways, signal and volatility, which may change
(`cryptoml_sandbox.regimes`). The log return of minute t is

    r(t) = e(t) - signal * 0.28 / 60 * (e(t-1) + ... + e(t-60)),    e(t) = v(t) * z(t)

with volatility v and heavy-tailed shocks z whose mean is zero whatever came before. Without a
signal the log price is therefore a martingale: nothing predicts the next return. The signal plants
a reversal over the past hour, of which the return of the past hour is a noisy, visible measure.
With signal 1 its correlation with the return of the hour to come is about -0.17, and the best
linear forecast from the past reaches about 0.19.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cryptoml_sandbox.regimes import Ways, signals, volatilities
from cryptoml_sandbox.streams import stream
from cryptoml_sandbox.volatility import (
    CHUNK_MINUTES,
    COMMON,
    OWN_MINUTES,
    mean_reverting,
    season,
)

if TYPE_CHECKING:
    import numpy.typing as npt

    from cryptoml_sandbox.symbols import Symbol

    Floats = npt.NDArray[np.float64]

MEMORY_MINUTES = 60
REVERSAL = 0.28
_TAIL = 0.17  # of single shocks; kurtosis is finite below 1/4
_JUMPS_A_MINUTE = 1 / 4000
_MINUTES_A_YEAR = 365 * 1440


@dataclass(frozen=True)
class PathChunk:
    """One week of one pair, minute by minute; float64 arrays of `CHUNK_MINUTES`.

    Attributes:
        start: log price at the chunk's beginning.
        log_price: log price at each minute's end.
        log_volatility: deviation of log-volatility from its mean, season included.
        deviation: standard deviation of the minute's log return.
        shock: standardised shock of the minute.
    """

    start: float
    log_price: Floats
    log_volatility: Floats
    deviation: Floats
    shock: Floats


class _MarketChunk(NamedTuple):
    shock: Floats
    log_volatility: Floats


class _PairState(NamedTuple):
    log_price: float
    own: float
    recent: Floats


class MarketPath:
    """Paths of any number of pairs under one seed; each pair's own whichever others are asked.

    Args:
        seed: seed of every draw.
        ways: strength of the planted reversal and of the volatility, from genesis on.
        first_minute_of_week: minutes from Monday's midnight to genesis.
    """

    def __init__(self, seed: int, ways: tuple[Ways, ...], first_minute_of_week: int) -> None:
        self._seed = seed
        self._ways = ways
        self._season = season(first_minute_of_week)
        self._market: list[_MarketChunk] = []
        self._market_state = stream(seed, "market", "start").standard_normal(len(COMMON)).tolist()
        self._states: dict[str, list[_PairState]] = {}

    def chunk(self, symbol: Symbol, index: int) -> PathChunk:
        """Week number ``index`` since genesis; what leads up to it is computed once."""
        states = self._states.setdefault(symbol.id, [self._first(symbol)])
        while len(states) <= index:
            states.append(self._advance(symbol, states[-1], len(states) - 1)[1])
        chunk, after = self._advance(symbol, states[index], index)
        if len(states) == index + 1:
            states.append(after)
        return chunk

    def _first(self, symbol: Symbol) -> _PairState:
        own = float(stream(self._seed, symbol.id, "start").standard_normal())
        return _PairState(float(np.log(symbol.price)), own, np.zeros(MEMORY_MINUTES))

    def _advance(
        self, symbol: Symbol, state: _PairState, index: int
    ) -> tuple[PathChunk, _PairState]:
        market = self._market_chunk(index)
        random = stream(self._seed, symbol.id, "path", index)
        own = mean_reverting(random.standard_normal(CHUNK_MINUTES), state.own, OWN_MINUTES)
        own_shock = _heavy(random.standard_normal(CHUNK_MINUTES))
        shock = symbol.loading * market.shock + np.sqrt(1 - symbol.loading**2) * own_shock
        shock = _with_jumps(shock, symbol.jump, random)
        log_volatility = market.log_volatility + symbol.own_deviation * own
        variance = sum(part.deviation**2 for part in COMMON) + symbol.own_deviation**2
        scale = symbol.volatility / np.sqrt(_MINUTES_A_YEAR) * np.exp(-variance)
        factor = volatilities(self._ways, index)
        deviation = scale * np.exp(log_volatility) * factor
        past = np.concatenate([state.recent, deviation * shock])
        total = np.concatenate([[0.0], np.cumsum(past)])
        strength = signals(self._ways, index) * REVERSAL / MEMORY_MINUTES
        reversal = strength * (total[MEMORY_MINUTES:-1] - total[: -MEMORY_MINUTES - 1])
        log_price = state.log_price + np.cumsum(past[MEMORY_MINUTES:] - reversal)
        after = _PairState(float(log_price[-1]), float(own[-1]), past[-MEMORY_MINUTES:])
        log_volatility = log_volatility + np.log(factor)
        return PathChunk(state.log_price, log_price, log_volatility, deviation, shock), after

    def _market_chunk(self, index: int) -> _MarketChunk:
        while len(self._market) <= index:
            random = stream(self._seed, "market", "path", len(self._market))
            log_volatility = self._season.copy()
            for k, part in enumerate(COMMON):
                noise = random.standard_normal(CHUNK_MINUTES)
                values = mean_reverting(noise, self._market_state[k], part.minutes)
                self._market_state[k] = float(values[-1])
                log_volatility += part.deviation * values
            shock = _heavy(random.standard_normal(CHUNK_MINUTES))
            self._market.append(_MarketChunk(shock, log_volatility))
        return self._market[index]


def _heavy(normal: Floats) -> Floats:
    """Tukey's h law of unit variance: many extremes, mean zero."""
    heavy: Floats = normal * np.exp(0.5 * _TAIL * normal**2) * (1 - 2 * _TAIL) ** 0.75
    return heavy


def _with_jumps(shock: Floats, size: float, random: np.random.Generator) -> Floats:
    """``shock`` with rare jumps of deviation ``size`` added, again of unit variance."""
    minutes = random.integers(0, CHUNK_MINUTES, random.poisson(_JUMPS_A_MINUTE * CHUNK_MINUTES))
    jumping: Floats = shock * np.sqrt(1 - _JUMPS_A_MINUTE * size**2)
    jumping[minutes] += size * random.standard_normal(len(minutes))
    return jumping
