"""Training: an ensemble of networks by maximum likelihood, one compiled program per epoch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import optax
from flax import nnx
from jax import numpy as jnp

from cryptoml_assets.errors import TrainingDataError
from cryptoml_assets.models import student
from cryptoml_assets.models.mlp import ReturnMlp
from cryptoml_assets.models.predictor import Ensemble, standardise
from cryptoml_assets.models.scaling import fit_scaling

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptoml_assets.models.rows import Rows
    from cryptoml_assets.models.splits import Split
    from cryptoml_assets.models.task import TrainingConfig

#: Epochs without a better validation loss after which a member stops.
_PATIENCE = 5
#: Changes of value a feature needs in the fit part: about a trading year of daily ones. A network
#: given fewer learns the calendar by heart; on recorded bars 35 days of daily figures made the
#: out-of-sample loss worse in six windows of seven.
LEAST_CHANGES = 250
_WARMUP_SHARE = 0.1
_GRADIENT_NORM = 1.0


@dataclass(frozen=True)
class Epoch:
    """Mean negative log likelihood of one pass, in nats per row relative to the label's spread."""

    member: int
    epoch: int
    training_loss: float
    validation_loss: float


@dataclass(frozen=True)
class _Data:
    """Standardised inputs (n, k) and labels (n,) on the device."""

    fit: tuple[Any, Any]
    validation: tuple[Any, Any]


def train_ensemble(
    rows: Rows, split: Split, config: TrainingConfig, *, log: Callable[[str], None]
) -> tuple[Ensemble, tuple[Epoch, ...]]:
    """Train on the split's fit part, stopping by its validation part.

    Features that change fewer than ``LEAST_CHANGES`` times are not learnt from.

    Everything depends on the rows, the split and the configuration alone: the same ones give the
    same numbers on the same machine and library versions.

    Args:
        rows: every row; those outside the two parts are not looked at.
        split: which rows are which.
        config: how to train.
        log: receives a line per member.

    Raises:
        TrainingDataError: labels that do not vary, or a loss that is no longer a number.
    """
    fit, validation = rows.take(split.fit), rows.take(split.validation)
    mean, spread = float(fit.labels.mean()), float(fit.labels.std())
    if np.ptp(fit.labels) == 0.0:
        message = f"all {len(fit)} training labels equal {mean}: there is nothing to learn"
        raise TrainingDataError(message)
    slow = fit.changes() < LEAST_CHANGES
    scaling = fit_scaling(np.where(slow, np.float32(np.nan), fit.features))

    def scaled(part: Rows) -> tuple[Any, Any]:
        return standardise(scaling, part.features), jnp.float32((part.labels - mean) / spread)

    data = _Data(scaled(fit), scaled(validation))
    trainer = _Trainer(config, inputs=rows.features.shape[1], rows=len(fit))
    members, history = [], []
    for member in range(config.ensemble_size):
        params, epochs = trainer.train(member, data)
        members.append(params)
        history.extend(epochs)
        log(_summary(epochs, config.ensemble_size))
    ensemble = Ensemble(scaling, trainer.graph, tuple(members), mean, spread)
    return ensemble, tuple(history)


def _summary(epochs: list[Epoch], members: int) -> str:
    best = min(epochs, key=lambda epoch: epoch.validation_loss)
    return (
        f"member {best.member + 1}/{members}: {len(epochs)} epochs, best validation "
        f"loss {best.validation_loss:.4f} in epoch {best.epoch}"
    )


class _Trainer:
    """The compiled programs of one configuration, shared by all members.

    Attributes:
        graph: the network without its numbers.
    """

    def __init__(self, config: TrainingConfig, *, inputs: int, rows: int) -> None:
        self._config = config
        self._inputs = inputs
        batch = min(config.batch_size, rows)
        steps = rows // batch
        total = steps * config.epochs
        schedule = optax.warmup_cosine_decay_schedule(
            0.0, config.learning_rate, max(1, int(total * _WARMUP_SHARE)), max(2, total)
        )
        self._optimizer = optax.chain(
            optax.clip_by_global_norm(_GRADIENT_NORM),
            optax.adamw(schedule, weight_decay=config.weight_decay),
        )
        self.graph, _ = self._initial(0)
        self._run_epoch = jax.jit(
            partial(_epoch, self.graph, self._optimizer, steps=steps, batch=batch)
        )
        self._evaluate = jax.jit(partial(_loss, self.graph))

    def train(self, member: int, data: _Data) -> tuple[Any, list[Epoch]]:
        """Train one member; its parameters are those of its best validation epoch."""
        _, params = self._initial(member)
        state = self._optimizer.init(params)
        key = jax.random.fold_in(jax.random.key(self._config.seed), member)
        best, epochs = params, list[Epoch]()
        for number in range(1, self._config.epochs + 1):
            (params, state), training_loss = self._run_epoch(
                (params, state), jax.random.fold_in(key, number), data.fit
            )
            loss = float(self._evaluate(params, *data.validation))
            if not np.isfinite(loss):
                message = (
                    f"the loss of member {member} is {loss} after epoch {number}: "
                    "lower CRYPTOML_LEARNING_RATE"
                )
                raise TrainingDataError(message)
            lowest = min((epoch.validation_loss for epoch in epochs), default=np.inf)
            epochs.append(Epoch(member, number, float(training_loss), loss))
            if loss < lowest:
                best = params
            elif number - min(epochs, key=lambda e: e.validation_loss).epoch >= _PATIENCE:
                break
        return best, epochs

    def _initial(self, member: int) -> tuple[Any, Any]:
        rngs = nnx.Rngs(self._config.seed * 1_000_003 + member)
        return nnx.split(ReturnMlp(self._inputs, self._config.hidden_units, rngs=rngs))  # type: ignore[no-any-return]


def _loss(graph: Any, params: Any, inputs: Any, labels: Any) -> Any:
    """Mean negative log likelihood of labels (n,) given inputs (n, k), up to a constant."""
    location, log_scale = nnx.merge(graph, params)(inputs)
    z = (labels - location) * jnp.exp(-log_scale)
    tail = (student.DEGREES + 1) / 2 * jnp.log1p(z * z / student.DEGREES)
    return (log_scale + tail).mean()


def _epoch(
    graph: Any,
    optimizer: Any,
    carry: tuple[Any, Any],
    key: Any,
    data: tuple[Any, Any],
    *,
    steps: int,
    batch: int,
) -> tuple[tuple[Any, Any], Any]:
    """One pass in a fresh order; rows past the last whole batch wait for another order."""
    inputs, labels = data
    order = jax.random.permutation(key, len(labels))[: steps * batch].reshape(steps, batch)

    def step(carry: tuple[Any, Any], chosen: Any) -> tuple[tuple[Any, Any], Any]:
        params, state = carry
        loss, gradient = jax.value_and_grad(partial(_loss, graph))(
            params, inputs[chosen], labels[chosen]
        )
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), loss

    carry, losses = jax.lax.scan(step, carry, order)
    return carry, losses.mean()
