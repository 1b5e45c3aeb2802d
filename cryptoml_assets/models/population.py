"""The training of one network as one compiled program, alike for one of them and for many.

A *member* is one network of one fold, from one seed, with its own hyper-parameters. Its program
loops over epochs, and in each over steps, and stops by itself when the validation loss has not
improved for some epochs. Nothing but the count of rows differs between folds, and that count is an
argument, so one compilation trains every member of a family; mapped over folds and members it
trains all of them at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
import optax
from flax import nnx
from jax import numpy as jnp

from cryptoml_assets.models import student

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

#: Epochs without a better validation loss after which a member stops.
PATIENCE = 5
#: Validation rows whose loss is computed at a time.
_CHUNK = 8192
#: By how many rows a step moves on; the second where the first divides the steps of an epoch.
_PRIMES = (7919, 7907)
_WARMUP_SHARE = 0.1
_GRADIENT_NORM = 1.0


class Hyper(NamedTuple):
    """What distinguishes a member, besides its fold: scalars, or one of each for many members.

    Attributes:
        seed: of the order in which rows are drawn.
        learning_rate: peak of AdamW.
        weight_decay: decoupled, of AdamW.
    """

    seed: Any
    learning_rate: Any
    weight_decay: Any


class FoldData(NamedTuple):
    """Standardised rows of a fold on the device, padded to the length of the longest fold.

    Attributes:
        inputs: shape (n, k).
        labels: shape (n,), in units of the fit part's spread.
        count: how many of the n rows there are.
        validation_inputs: shape (c, m, k).
        validation_labels: shape (c, m).
        validation_mask: shape (c, m), 1 for the rows there are, else 0.
    """

    inputs: Any
    labels: Any
    count: Any
    validation_inputs: Any
    validation_labels: Any
    validation_mask: Any


class State(NamedTuple):
    """How far a member has come; everything that a continued training needs.

    Attributes:
        params: of the network now.
        moments: of the optimiser.
        best: parameters of the epoch with the lowest validation loss.
        best_loss: that loss; infinite before the first epoch.
        best_epoch: number of that epoch, 0 before the first.
        epoch: epochs done.
        loss: validation loss of the newest epoch; 0 before the first.
        training: loss of each epoch, shape (epochs,).
        validation: validation loss of each epoch, shape (epochs,).
    """

    params: Any
    moments: Any
    best: Any
    best_loss: Any
    best_epoch: Any
    epoch: Any
    loss: Any
    training: Any
    validation: Any


@dataclass(frozen=True)
class Program:
    """The training program of one network under one configuration.

    Attributes:
        graph: the network without its numbers.
        epochs: most passes over the rows.
        batch: rows of a step.
        precision: dtype of the network's arithmetic while training; parameters stay float32.
    """

    graph: Any
    epochs: int
    batch: int
    precision: str = "float32"

    def initial(self, params: Any) -> State:
        """Before the first epoch, from a network's first numbers."""
        unknown = jnp.full(self.epochs, jnp.nan, jnp.float32)
        return State(
            params=params,
            moments=_optimizer().init(params),
            best=params,
            best_loss=jnp.float32(jnp.inf),
            best_epoch=jnp.int32(0),
            epoch=jnp.int32(0),
            loss=jnp.float32(0),
            training=unknown,
            validation=unknown,
        )

    def advance(self, state: State, hyper: Hyper, data: FoldData, until: Any) -> State:
        """Train until an epoch is reached, unless the member stops by itself before.

        The numbers do not depend on where the calls stop: to go to 10 and on to 20 is to go to 20.
        """
        after: State = jax.lax.while_loop(
            lambda now: self.goes_on(now) & (now.epoch < until),
            partial(self._epoch, hyper=hyper, data=data),
            state,
        )
        return after

    def goes_on(self, state: State) -> Any:
        """Whether a member has epochs left, still improves, and its loss is still a number.

        Of one member inside the program, and of many, as numpy arrays, outside of it.
        """
        waited = state.epoch - state.best_epoch
        return (state.epoch < self.epochs) & (waited < PATIENCE) & (abs(state.loss) < jnp.inf)

    def loss(self, params: Any, inputs: Any, labels: Any) -> Any:
        """Negative log likelihood of each label (n,) given inputs (n, k), up to a constant."""
        dtype = jnp.dtype(self.precision)
        cast = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
        location, log_scale = nnx.merge(self.graph, cast)(inputs.astype(dtype))
        location, log_scale = location.astype(jnp.float32), log_scale.astype(jnp.float32)
        z = (labels - location) * jnp.exp(-log_scale)
        return log_scale + (student.DEGREES + 1) / 2 * jnp.log1p(z * z / student.DEGREES)

    def _epoch(self, state: State, *, hyper: Hyper, data: FoldData) -> State:
        steps = jnp.maximum(data.count // self.batch, 1)
        key = jax.random.fold_in(jax.random.key(hyper.seed), state.epoch)
        order = self._order(key, data.count)
        step = partial(self._step, hyper=hyper, data=data, order=order, before=state.epoch * steps)
        start = (state.params, state.moments, jnp.float32(0))
        params, moments, total = jax.lax.fori_loop(0, steps, step, start)
        loss = self._validation_loss(params, data)
        better = loss < state.best_loss
        return State(
            params=params,
            moments=moments,
            best=jax.tree.map(partial(jnp.where, better), params, state.best),
            best_loss=jnp.where(better, loss, state.best_loss),
            best_epoch=jnp.where(better, state.epoch + 1, state.best_epoch),
            epoch=state.epoch + 1,
            loss=loss,
            training=state.training.at[state.epoch].set(total / steps),
            validation=state.validation.at[state.epoch].set(loss),
        )

    def _step(
        self,
        number: Any,
        carry: tuple[Any, Any, Any],
        *,
        hyper: Hyper,
        data: FoldData,
        order: Any,
        before: Any,
    ) -> tuple[Any, Any, Any]:
        params, moments, total = carry
        rows = self._rows(number, order, data.count)

        def mean_loss(params: Any) -> Any:
            return self.loss(params, data.inputs[rows], data.labels[rows]).mean()

        loss, gradient = jax.value_and_grad(mean_loss)(params)
        direction, moments = _optimizer().update(gradient, moments, params)
        steps = jnp.maximum(data.count // self.batch, 1) * self.epochs
        rate = hyper.learning_rate * _pace((before + number) / steps)
        params = jax.tree.map(
            lambda value, change: value - rate * (change + hyper.weight_decay * value),
            params,
            direction,
        )
        return params, moments, total + loss

    def _order(self, key: Any, count: Any) -> tuple[Any, Any]:
        """The order of an epoch: where it begins, and where in each stretch of time.

        The rows are cut into as many equal stretches as a step has rows, and each step takes one
        row of each. All of history is in every step, which a shuffle does only on average, and no
        row is seen twice. The few rows that are left over are another few in each epoch.
        """
        steps = jnp.maximum(count // self.batch, 1)
        first, within = jax.random.split(key)
        left_over = jnp.maximum(count - steps * self.batch, 0)
        begin = jax.random.randint(first, (), 0, left_over + 1)
        return begin, jax.random.randint(within, (self.batch,), 0, steps)

    def _rows(self, number: Any, order: tuple[Any, Any], count: Any) -> Any:
        """Rows of a step: in each stretch a prime further, so that neighbours are far apart."""
        begin, within = order
        steps = jnp.maximum(count // self.batch, 1)
        prime = jnp.where(steps % _PRIMES[0], _PRIMES[0], _PRIMES[1])
        places = (within + number * prime) % steps
        return jnp.minimum(begin + jnp.arange(self.batch) * steps + places, count - 1)

    def _validation_loss(self, params: Any, data: FoldData) -> Any:
        def of_chunk(chunk: tuple[Any, Any, Any]) -> Any:
            inputs, labels, mask = chunk
            return (self.loss(params, inputs, labels) * mask).sum()

        chunks = (data.validation_inputs, data.validation_labels, data.validation_mask)
        return jax.lax.map(of_chunk, chunks).sum() / data.validation_mask.sum()


def fold_data(
    fit: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]],
    validation: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]],
) -> tuple[FoldData, ...]:
    """Rows of each fold, padded so that one program fits all.

    Args:
        fit: standardised inputs (n, k) and labels (n,) of each fold's fit part.
        validation: the same of its validation part.
    """
    longest = max(len(labels) for _, labels in fit)
    held_out = max(len(labels) for _, labels in validation)
    chunk = min(_CHUNK, held_out)
    padded = -(-held_out // chunk) * chunk

    def one(
        part: tuple[NDArray[np.float32], NDArray[np.float32]],
        held: tuple[NDArray[np.float32], NDArray[np.float32]],
    ) -> FoldData:
        inputs, labels = part
        columns = inputs.shape[1]
        mask = _padded(np.ones(len(held[1]), np.float32), padded)
        data = FoldData(
            inputs=_padded(inputs, longest),
            labels=_padded(labels, longest),
            count=np.int32(len(labels)),
            validation_inputs=_padded(held[0], padded).reshape(-1, chunk, columns),
            validation_labels=_padded(held[1], padded).reshape(-1, chunk),
            validation_mask=mask.reshape(-1, chunk),
        )
        on_device: FoldData = jax.device_put(data)
        return on_device

    return tuple(one(part, held) for part, held in zip(fit, validation, strict=True))


def _padded(values: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """``values`` with zeros after them, ``length`` in all."""
    whole = np.zeros((length, *values.shape[1:]), np.float32)
    whole[: len(values)] = values
    return whole


def _optimizer() -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(_GRADIENT_NORM), optax.scale_by_adam())


def _pace(share: Any) -> Any:
    """Share of the peak learning rate after a share of all steps: a linear rise, then a cosine."""
    rising = share / _WARMUP_SHARE
    falling = 0.5 * (1 + jnp.cos(jnp.pi * (share - _WARMUP_SHARE) / (1 - _WARMUP_SHARE)))
    return jnp.where(share < _WARMUP_SHARE, rising, falling)
