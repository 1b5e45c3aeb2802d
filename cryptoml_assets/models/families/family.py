"""What a family of models is, and which there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from flax import nnx

from cryptoml_assets.models.families.mlp import ReturnMlp
from cryptoml_assets.models.families.state_space import ReturnStateSpace
from cryptoml_assets.models.families.tcn import ReturnTcn

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Families trained by gradient descent, by name.
NETWORKS = {"mlp": ReturnMlp, "tcn": ReturnTcn, "state_space": ReturnStateSpace}


@dataclass(frozen=True)
class Inputs:
    """How the columns of a row are to be read.

    Attributes:
        count: columns of a row.
        window: for each channel of a window, the columns of its steps, oldest first; none for a
            family that sees one row.
    """

    count: int
    window: tuple[tuple[int, ...], ...] = ()

    @property
    def window_shape(self) -> tuple[int, int]:
        """Channels and steps of the window.

        Raises:
            ValueError: there is no window, or its channels differ in length.
        """
        lengths = {len(channel) for channel in self.window}
        if len(lengths) != 1:
            message = f"a window of channels of {sorted(lengths)} steps: accepted is one length"
            raise ValueError(message)
        return len(self.window), lengths.pop()


def inputs_of(names: Sequence[str], channels: Sequence[Sequence[str]]) -> Inputs:
    """Where the steps of each channel stand among the columns ``names``.

    Args:
        names: columns of a row.
        channels: names of the steps of each channel, oldest first; empty for a family of one row.

    Raises:
        ValueError: a step that is no column.
    """
    places = {name: index for index, name in enumerate(names)}
    if missing := sorted({name for channel in channels for name in channel} - places.keys()):
        message = f"the window reads {', '.join(missing)}, which are no inputs"
        raise ValueError(message)
    window = tuple(tuple(places[name] for name in channel) for channel in channels)
    return Inputs(len(names), window)


def networks(
    family: str, inputs: Inputs, hidden_units: tuple[int, ...], seeds: Sequence[int]
) -> tuple[Any, list[Any]]:
    """The graph of a family's network, and the numbers that each seed starts from."""

    def numbers(seed: Any) -> Any:
        rngs = nnx.Rngs(jax.random.key(seed))
        return nnx.state(NETWORKS[family](inputs, hidden_units, rngs=rngs))

    graph, _ = nnx.split(
        nnx.eval_shape(lambda: NETWORKS[family](inputs, hidden_units, rngs=nnx.Rngs(0)))
    )
    # One program for all of it: step by step each operation would be compiled by itself.
    drawn = jax.jit(jax.vmap(numbers))(np.array(seeds, np.uint32))
    return graph, [
        jax.tree.map(lambda leaf, place=place: np.array(leaf[place]), drawn)
        for place in range(len(seeds))
    ]


def network(
    family: str, inputs: Inputs, hidden_units: tuple[int, ...], seed: int
) -> tuple[Any, Any]:
    """The graph of a family's network, and the numbers that a seed starts from."""
    graph, (params,) = networks(family, inputs, hidden_units, [seed])
    return graph, params
