"""What a plain threshold strategy on a model's answers would have earned, after costs.

At each bar a tranche of the capital, one over the bars of a horizon, is spread evenly over the
symbols that have a row. It goes long or short a symbol in the direction of its expected return
where that is larger than a round trip costs, and is held for a horizon: the overlapping portfolios
of Jegadeesh and Titman, *Returns to buying winners and selling losers* (1993). The tranche that
follows a horizon later takes it over, and pays for what it changes. It is a yardstick the same for
every model, not a proposal of how to trade.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cryptoml_assets.models.significance import sharpe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cryptoml_assets.models.evaluation import Answered
    from cryptoml_assets.models.rows import Rows

_BASIS_POINT = 1e-4
_DAYS_PER_YEAR = 365
_TICK = np.timedelta64(1, "us")
_DAY = np.timedelta64(1, "D")


@dataclass(frozen=True)
class Costs:
    """What trading costs, in basis points of the amount traded, each way.

    Attributes:
        fee_bps: the venue's fee.
        slippage_bps: by how much the price is worse than the bar's close.
    """

    fee_bps: float
    slippage_bps: float

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0.0 <= value < np.inf:
                message = f"{name}={value}: basis points, 0 or more"
                raise ValueError(message)

    @property
    def one_way(self) -> float:
        """Share of the amount traded."""
        return (self.fee_bps + self.slippage_bps) * _BASIS_POINT

    @property
    def round_trip(self) -> float:
        """Share of the amount that opening and closing a position takes."""
        return 2.0 * self.one_way


#: A taker's fee at a large spot venue without discounts, and a fifth of it lost to the spread.
DEFAULT_COSTS = Costs(fee_bps=10.0, slippage_bps=2.0)


@dataclass(frozen=True)
class Track:
    """Daily record of the strategy; a day holds the tranches whose label became known in it.

    A day runs from just after midnight to the next midnight, UTC; days without a trade count.

    Attributes:
        days: shape (d,), in order; days between two folds that no fold reaches are absent.
        net: shape (d,), return of each day after costs, share of the capital.
        gross: shape (d,), the same before costs.
        turnover: shape (d,), amount traded, in multiples of the capital; in and out both count.
        trades: how often a position was opened or changed.
    """

    days: NDArray[np.datetime64]
    net: NDArray[np.float64]
    gross: NDArray[np.float64]
    turnover: NDArray[np.float64]
    trades: int

    @property
    def equity(self) -> NDArray[np.float64]:
        """Capital after each day, shape (d,), in multiples of what it started with."""
        # A short position can lose more than there is; then nothing is left to trade with.
        return np.asarray(np.cumprod(1.0 + np.maximum(self.net, -1.0)), np.float64)

    @property
    def drawdown(self) -> NDArray[np.float64]:
        """Share of the highest capital so far that is lost after each day, shape (d,), 0 to 1."""
        equity = self.equity
        return 1.0 - equity / np.maximum(np.maximum.accumulate(equity), 1.0)

    def figures(self) -> dict[str, float]:
        """Figures by name: Sharpe ratios a year, turnover a day, counts of trades and days."""
        year = np.sqrt(_DAYS_PER_YEAR)
        return {
            "sharpe_net": float(year * sharpe(self.net)),
            "sharpe_gross": float(year * sharpe(self.gross)),
            "max_drawdown": float(self.drawdown.max()),
            "turnover": float(self.turnover.mean()),
            "trades": float(self.trades),
            "days": float(len(self.days)),
        }


def trade(parts: Sequence[Answered], *, horizon: np.timedelta64, costs: Costs) -> Track:
    """Trade every fold's rows in turn; capital goes on from fold to fold, positions do not.

    Args:
        parts: out-of-sample rows with the answers to them, oldest fold first.
        horizon: how long a tranche is held.
        costs: of trading.
    """
    ledgers = [_ledger(p.rows, p.answers["expected_return"], horizon, costs) for p in parts]
    booked = np.concatenate([ledger.day for ledger in ledgers])
    spans = [np.arange(ledger.day.min(), ledger.day.max() + _DAY) for ledger in ledgers]
    days = np.unique(np.concatenate(spans))
    position = np.searchsorted(days, booked)

    def daily(name: str) -> NDArray[np.float64]:
        amounts = np.concatenate([getattr(ledger, name) for ledger in ledgers])
        return np.asarray(np.bincount(position, amounts, minlength=len(days)), np.float64)

    gross, turnover = daily("gain"), daily("traded")
    net = gross - turnover * costs.one_way
    return Track(days, net, gross, turnover, sum(ledger.trades for ledger in ledgers))


@dataclass(frozen=True)
class _Ledger:
    """What each row's tranche did, shape (n,), in shares of the capital; ``day`` books it."""

    day: NDArray[np.datetime64]
    gain: NDArray[np.float64]
    traded: NDArray[np.float64]
    trades: int


def _ledger(
    rows: Rows, expected: NDArray[np.float32], horizon: np.timedelta64, costs: Costs
) -> _Ledger:
    target = _targets(rows, expected, horizon, costs)
    held, traded = takeovers(rows, target, horizon)
    return _Ledger(
        # A label known at midnight is of the day that ends then.
        day=(rows.label_times - _TICK).astype("datetime64[D]"),
        gain=target * np.expm1(rows.labels),
        traded=traded,
        trades=int(((target != 0.0) & (target != held)).sum()),
    )


def takeovers(
    rows: Rows, target: NDArray[np.float64], horizon: np.timedelta64
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What each row's tranche takes over, and how much it trades.

    Args:
        rows: only their symbols and events are looked at.
        target: shape (n,), signed amount that each row's tranche holds.
        horizon: how long.

    Returns:
        Shapes (n,), in the units of ``target``: what the tranche one horizon earlier held of the
        same symbol, and the amount traded to hold the target instead. What nobody takes over is
        closed; its tranche pays for that at its label's time.
    """
    before = _predecessors(rows, horizon)
    followed = np.zeros(len(rows), np.bool_)
    followed[before[before >= 0]] = True
    held = np.where(before >= 0, target[before], 0.0)
    return held, np.abs(target - held) + np.where(followed, 0.0, np.abs(target))


def direction(expected: NDArray[np.float32], costs: Costs) -> NDArray[np.float64]:
    """1 for long, -1 for short, 0 where the expected move is no larger than a round trip costs."""
    size = np.asarray(expected, np.float64)
    return np.where(np.abs(size) > costs.round_trip, np.sign(size), 0.0)


def _targets(
    rows: Rows, expected: NDArray[np.float32], horizon: np.timedelta64, costs: Costs
) -> NDArray[np.float64]:
    """Signed share of the capital that each row's tranche puts into its symbol, shape (n,)."""
    instants, position, counts = np.unique(rows.events, return_inverse=True, return_counts=True)
    bar = np.median(np.diff(instants)) if len(instants) > 1 else horizon
    tranches = max(1, round(float(horizon / bar)))
    share: NDArray[np.float64] = direction(expected, costs) / (tranches * counts[position])
    return share


def _predecessors(rows: Rows, horizon: np.timedelta64) -> NDArray[np.intp]:
    """Row of the same symbol exactly one horizon earlier, shape (n,); -1 where there is none."""
    _, symbol = np.unique(rows.symbols, return_inverse=True)
    ticks, reach = (rows.events - rows.events.min()).astype("timedelta64[us]"), horizon / _TICK
    time = ticks.astype(np.int64)
    # One number for symbol and time; the gap keeps a symbol's first horizon off the symbol before.
    key = symbol * (time.max() + int(reach) + 1) + time
    order = np.argsort(key, kind="stable")
    ordered, sought = key[order], key - int(reach)
    place = np.minimum(np.searchsorted(ordered, sought), len(key) - 1)
    return np.where(ordered[place] == sought, order[place], -1)
