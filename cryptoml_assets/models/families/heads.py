"""What every network ends with: a location and a log-scale, reached by a straight path too."""

from __future__ import annotations

from typing import Any

import numpy as np
from flax import nnx
from jax import numpy as jnp

#: Bounds of the log-scale, so that no single row can send the likelihood to infinity.
LOG_SCALE_LIMIT = 4.0


class Heads(nnx.Module):  # type: ignore[misc]
    """Location and log-scale of a row's return, in units of the training labels' spread.

    A linear path from all inputs runs beside the network: what predictability there is tends to be
    weak and close to linear, and that path finds it in few rows. Both paths start at zero, so
    training starts from the unconditional distribution.

    Attributes:
        head: hidden units → location and log-scale.
        direct: inputs → location and log-scale.
    """

    def __init__(self, inputs: int, units: int, *, rngs: nnx.Rngs) -> None:
        zeros = nnx.initializers.zeros_init()
        self.head = nnx.Linear(units, 2, kernel_init=zeros, rngs=rngs)
        self.direct = nnx.Linear(inputs, 2, kernel_init=zeros, use_bias=False, rngs=rngs)

    def __call__(self, hidden: Any, inputs: Any) -> tuple[Any, Any]:
        """Location and log-scale, each (n,), of hidden units (n, u) and inputs (n, k)."""
        both = self.head(hidden) + self.direct(inputs)
        return both[:, 0], jnp.clip(both[:, 1], -LOG_SCALE_LIMIT, LOG_SCALE_LIMIT)


def at_columns(weights: Any, columns: tuple[int, ...], count: int) -> Any:
    """Weights (m, u) of ``columns`` as weights (count, u) of all of a row's columns.

    The few weights are moved to where the inputs are, instead of the inputs of every row.
    """
    return jnp.zeros((count, weights.shape[1]), weights.dtype).at[np.asarray(columns)].set(weights)
