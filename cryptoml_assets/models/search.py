"""Search of hyper-parameters: what is tried, and which of it is kept.

The search sees the oldest fold's fit and validation parts and nothing later, so that no test part
of any fold had a say in what is tested on it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from cryptoml_assets.models.layout import population
from cryptoml_assets.models.population import Hyper

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptoml_assets.models.layout import Runner
    from cryptoml_assets.models.population import State
    from cryptoml_assets.models.task import TrainingConfig

#: Ranges that trials are drawn from, evenly in the logarithm.
RANGES = {"learning_rate": (1e-4, 1e-2), "weight_decay": (1e-4, 1.0)}
_STREAM = 0x5EA6C4


@dataclass(frozen=True)
class Choice:
    """What a search chose.

    Attributes:
        learning_rate: peak of AdamW.
        weight_decay: of AdamW.
        trials: how many were tried, the configured one among them.
    """

    learning_rate: float
    weight_decay: float
    trials: int


def draw(config: TrainingConfig) -> tuple[tuple[float, float], ...]:
    """Learning rate and weight decay of every trial; the first is the configured one."""
    random = np.random.default_rng([config.seed, _STREAM])
    low, high = np.log(np.array(list(RANGES.values()))).T
    drawn = np.exp(random.uniform(low, high, (config.search_trials - 1, len(low))))
    configured = (config.learning_rate, config.weight_decay)
    return (configured, *((float(rate), float(decay)) for rate, decay in drawn))


def search(
    runner: Runner, params: Any, config: TrainingConfig, log: Callable[[str], None]
) -> Choice:
    """Try them and keep the one with the lowest validation loss.

    Halving gives every trial a few epochs, the better half twice as many, and so on (Jamieson and
    Talwalkar, *Non-stochastic Best Arm Identification and Hyperparameter Optimization*, 2016); a
    random search trains each to its end.

    Args:
        runner: over the oldest fold alone.
        params: numbers every trial starts from.
        config: how many trials, by which method.
        log: receives a line per round.
    """
    trials = draw(config)
    if len(trials) == 1:
        return Choice(config.learning_rate, config.weight_decay, trials=1)
    alive = np.arange(len(trials))
    states = population(runner.program, [[params] * len(trials)])
    halving = config.search_method == "halving"
    rounds = math.ceil(math.log2(len(trials))) if halving else 1
    for number in reversed(range(rounds)):
        until = max(1, config.epochs >> number)
        states = runner.advance(states, _hypers(trials, alive, config.seed), until)
        order = np.argsort(_losses(states), kind="stable")
        kept = order[: (len(alive) + 1) // 2] if halving else order[:1]
        best = trials[alive[order[0]]]
        log(
            f"search: {len(alive)} trials to epoch {until}, best validation loss "
            f"{_losses(states)[order[0]]:.4f} with learning rate {best[0]:.2g} and weight decay "
            f"{best[1]:.2g}"
        )
        alive = alive[kept]
        states = jax.tree.map(lambda leaf, kept=kept: leaf[:, kept], states)
    rate, decay = trials[int(alive[0])]
    return Choice(rate, decay, len(trials))


def _hypers(trials: tuple[tuple[float, float], ...], alive: Any, seed: int) -> Hyper:
    chosen = np.array(trials, np.float32)[alive]
    return Hyper(np.full(len(alive), seed, np.uint32), chosen[:, 0], chosen[:, 1])


def _losses(states: State) -> Any:
    """Lowest validation loss of each trial, shape (trials,); a diverged one is the worst."""
    return np.where(np.isfinite(states.best_loss[0]), states.best_loss[0], np.inf)
