"""The multilayer perceptron: features of one row in, a distribution of its return out."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from flax import nnx

from cryptoml_assets.models.families.heads import Heads

if TYPE_CHECKING:
    from cryptoml_assets.models.families.family import Inputs


class ReturnMlp(nnx.Module):  # type: ignore[misc]
    """Hidden layers over all inputs of a row.

    Attributes:
        hidden: the hidden layers.
        heads: location and log-scale.
    """

    def __init__(self, inputs: Inputs, hidden_units: tuple[int, ...], *, rngs: nnx.Rngs) -> None:
        widths = (inputs.count, *hidden_units)
        self.hidden = nnx.List(
            [nnx.Linear(before, after, rngs=rngs) for before, after in itertools.pairwise(widths)]
        )
        self.heads = Heads(inputs.count, widths[-1], rngs=rngs)

    def __call__(self, inputs: Any) -> tuple[Any, Any]:
        """Location and log-scale, each (n,), of standardised features (n, k)."""
        activations = inputs
        for layer in self.hidden:
            activations = nnx.silu(layer(activations))
        return self.heads(activations, inputs)
