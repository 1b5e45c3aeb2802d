"""The multilayer perceptron: features of one row in, a distribution of its return out."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from flax import nnx
from jax import numpy as jnp

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Bounds of the log-scale, so that no single row can send the likelihood to infinity.
_LOG_SCALE_LIMIT = 4.0


class ReturnMlp(nnx.Module):  # type: ignore[misc]
    """Location and log-scale of a row's return, in units of the training labels' spread.

    A linear path runs beside the hidden layers: what predictability there is tends to be weak and
    close to linear, and that path finds it in few rows. Both heads start at zero, so training
    starts from the unconditional distribution.

    Attributes:
        hidden: the hidden layers.
        head: hidden units → location and log-scale.
        direct: inputs → location and log-scale.
    """

    def __init__(self, inputs: int, hidden_units: Sequence[int], *, rngs: nnx.Rngs) -> None:
        widths = (inputs, *hidden_units)
        self.hidden = nnx.List(
            [nnx.Linear(before, after, rngs=rngs) for before, after in itertools.pairwise(widths)]
        )
        zeros = nnx.initializers.zeros_init()
        self.head = nnx.Linear(widths[-1], 2, kernel_init=zeros, rngs=rngs)
        self.direct = nnx.Linear(inputs, 2, kernel_init=zeros, use_bias=False, rngs=rngs)

    def __call__(self, inputs: Any) -> tuple[Any, Any]:
        """Predict each row.

        Args:
            inputs: standardised features, shape (n, k), float32.

        Returns:
            Location and log-scale, each of shape (n,).
        """
        activations = inputs
        for layer in self.hidden:
            activations = nnx.silu(layer(activations))
        heads = self.head(activations) + self.direct(inputs)
        return heads[:, 0], jnp.clip(heads[:, 1], -_LOG_SCALE_LIMIT, _LOG_SCALE_LIMIT)
