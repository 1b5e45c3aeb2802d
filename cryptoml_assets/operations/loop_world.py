"""An accelerated world: one clock file moves sandbox, graph and service, and the market changes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptoml_serving.contract.settings import format_duration

_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True)
class Plan:
    """What a proof of the loop goes through, in the world's own time.

    Attributes:
        begins: midnight on which the first champion is trained.
        history: days of bars before that.
        calm: time served before the market changes.
        longest: time after the change in which the loop must have closed.
        recovery: time served by the new champion before its figures are told.
        step: between two looks at the market: features, online store, predictions.
        watch: between two looks at outcomes, performance and drift, each followed by the sensors.
        symbols: served ones.
        signal: strength of the planted relation; after the change it is turned round.
        volatility: by which returns are larger after the change.
        settings: of the graph, beside these.
    """

    begins: datetime
    history: int
    calm: timedelta
    longest: timedelta
    recovery: timedelta
    step: timedelta
    watch: timedelta
    symbols: tuple[str, ...]
    signal: float
    volatility: float
    settings: dict[str, str]

    @property
    def changes(self) -> datetime:
        """The instant at which the market changes."""
        return self.begins + self.calm

    def environment(self, home: Path) -> dict[str, str]:
        """The variables of every process of this world."""
        regime = {
            "from": self.changes.isoformat(),
            "signal": -self.signal,
            "volatility": self.volatility,
        }
        # A day before the world's first bar is needed by nothing, and simulated for nothing.
        genesis = self.begins - timedelta(days=self.history + 2)
        names = ",".join(self.symbols)
        return {
            "CRYPTOML_HOME": str(home),
            "CRYPTOML_WORLD": "simulated",
            "CRYPTOML_CLOCK_FILE": str(clock_file(home)),
            "CRYPTOML_START": genesis.date().isoformat(),
            "CRYPTOML_DAYS": str(self.history),
            "CRYPTOML_SYMBOLS": names,
            "CRYPTOML_SANDBOX_SYMBOLS": names,
            "CRYPTOML_SANDBOX_GENESIS": genesis.isoformat(),
            "CRYPTOML_SANDBOX_SIGNAL": f"{self.signal:g}",
            "CRYPTOML_SANDBOX_REGIMES": json.dumps([regime]),
            "CRYPTOML_SANDBOX_BLOCK_SECONDS": "7200",
            "CRYPTOML_SANDBOX_TRANSACTIONS_PER_BLOCK": "1",
            "CRYPTOML_SERVING_REFRESH": "200ms",
            "CRYPTOML_SERVING_REGISTRY_POLL": "500ms",
            "CRYPTOML_SERVING_MAX_FEATURE_AGE": format_duration(2 * self.step),
            **self.settings,
        }


def clock_file(home: Path) -> Path:
    """The file that every process of the world reads the time from."""
    return home / "clock"


def move_clock(home: Path, at: datetime) -> None:
    """Let it be ``at`` everywhere, at once: no reader ever finds half a file."""
    file = clock_file(home)
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(".new")
    new.write_text(at.isoformat() + "\n")
    new.replace(file)


def just_after(at: datetime) -> datetime:
    """A minute later: a bar that closes at ``at`` has closed, and its venue says so."""
    return at + _MINUTE
