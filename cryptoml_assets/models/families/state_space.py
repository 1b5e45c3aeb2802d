"""The state-space model: decaying, turning memories of the newest bars, and what they foretell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from flax import nnx
from jax import numpy as jnp

from cryptoml_assets.models.families.heads import Heads, at_columns

if TYPE_CHECKING:
    from cryptoml_assets.models.families.family import Inputs


class ReturnStateSpace(nnx.Module):  # type: ignore[misc]
    """A diagonal linear recurrence over a window, read at its newest step.

    Gu, Gupta, Goel and Ré, *On the Parameterization and Initialization of Diagonal State Space
    Models* (2022): each state decays and turns at a pace of its own. Its value after the window is
    a weighted sum of the window's steps, so the recurrence is one matrix product whose weights are
    made of the paces. The decays begin spread over the window, from one step to all of it.

    Attributes:
        log_decay: log of each state's decay per step, shape (s,).
        turn: angle each state turns by per step, shape (s,), radians.
        drive: how much each channel moves each state, shape (c, s).
        mixer: states and inputs → hidden units.
        heads: location and log-scale.
    """

    def __init__(self, inputs: Inputs, hidden_units: tuple[int, ...], *, rngs: nnx.Rngs) -> None:
        states = units = hidden_units[-1]
        channels, steps = inputs.window_shape
        self._columns = tuple(column for channel in inputs.window for column in channel)
        self._steps = steps
        self.log_decay = nnx.Param(-jnp.log(jnp.geomspace(1.0, steps, states)))
        self.turn = nnx.Param(jnp.where(jnp.arange(states) % 2, jnp.pi / 4, 0.0))
        draw = nnx.initializers.lecun_normal()
        self.drive = nnx.Param(draw(rngs.params(), (channels, states)))
        self.mixer = nnx.Linear(states + inputs.count, units, rngs=rngs)
        self.heads = Heads(inputs.count, units, rngs=rngs)

    def __call__(self, inputs: Any) -> tuple[Any, Any]:
        """Location and log-scale, each (n,), of standardised features (n, k)."""
        ages = np.arange(self._steps - 1, -1, -1, dtype=np.float32)[:, None]
        decay = jnp.exp(-jnp.exp(self.log_decay[...]) * ages)
        weights = decay * jnp.cos(self.turn[...] * ages)
        kernel = self.drive[...][:, None, :] * weights[None]
        flat = kernel.reshape(-1, kernel.shape[-1])
        states = inputs @ at_columns(flat, self._columns, inputs.shape[1])
        hidden = nnx.silu(self.mixer(jnp.concatenate([nnx.silu(states), inputs], axis=1)))
        return self.heads(hidden, inputs)
