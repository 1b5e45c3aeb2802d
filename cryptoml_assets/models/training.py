"""Training of one family over all walk-forward folds: an ensemble of networks for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cryptoml_assets.errors import TrainingDataError
from cryptoml_assets.models.families.family import inputs_of, networks
from cryptoml_assets.models.families.linear import PENALTIES, fit_linear
from cryptoml_assets.models.layout import Runner, member_of, population
from cryptoml_assets.models.population import Hyper, Program, fold_data
from cryptoml_assets.models.predictor import Ensemble, standardise
from cryptoml_assets.models.scaling import fit_scaling
from cryptoml_assets.models.search import Choice, search

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from cryptoml_assets.models.checkpoints import Checkpoints
    from cryptoml_assets.models.population import State
    from cryptoml_assets.models.rows import Rows
    from cryptoml_assets.models.scaling import Scaling
    from cryptoml_assets.models.splits import Split
    from cryptoml_assets.models.task import Task, TrainingConfig

#: Changes of value a feature needs in the fit part: about a trading year of daily ones. A network
#: given fewer learns the calendar by heart; on recorded bars 35 days of daily figures made the
#: out-of-sample loss worse in six windows of seven.
LEAST_CHANGES = 250
#: Epochs between two looks at how far a training has come.
_SLICE = 10
_SEED_STRIDE = 1_000_003


@dataclass(frozen=True)
class Epoch:
    """Mean negative log likelihood of one pass, in nats per row relative to the label's spread."""

    fold: int
    member: int
    epoch: int
    training_loss: float
    validation_loss: float


@dataclass(frozen=True)
class TrainedFolds:
    """A family, trained on every fold.

    Attributes:
        ensembles: of each fold, oldest first.
        history: the learning curves; none where nothing was descended.
        learning_rate: peak, as searched for; 0 where nothing was descended.
        weight_decay: of AdamW, as searched for; likewise.
        trials: configurations that were tried.
        vectorised: whether all networks were trained as one program.
    """

    ensembles: tuple[Ensemble, ...]
    history: tuple[Epoch, ...]
    learning_rate: float
    weight_decay: float
    trials: int
    vectorised: bool


@dataclass(frozen=True)
class _Fold:
    """What training sees of a fold: inputs (n, k) standardised, labels (n,) in spreads."""

    scaling: Scaling
    mean: float
    spread: float
    fit: tuple[NDArray[np.float32], NDArray[np.float32]]
    validation: tuple[NDArray[np.float32], NDArray[np.float32]]
    up: tuple[NDArray[np.bool_], NDArray[np.bool_]]


def train_folds(
    rows: Rows,
    folds: Sequence[Split],
    task: Task,
    *,
    vectorised: bool = False,
    checkpoints: Checkpoints | None = None,
    log: Callable[[str], None],
) -> TrainedFolds:
    """Train a family on the fit part of every fold, stopping by its validation part.

    Features that change fewer than ``LEAST_CHANGES`` times in a fold's fit part are not learnt
    from in that fold. Everything depends on the rows, the folds, the task and the layout alone: the
    same ones give the same numbers on the same machine and library versions, and so does a training
    that was killed and went on from its checkpoint.

    Args:
        rows: every row; those outside the two parts are not looked at.
        folds: which rows are which, oldest fold first.
        task: the family and how to train it.
        vectorised: whether all networks train as one program.
        checkpoints: where to go on from, if anywhere.
        log: receives progress, a line at a time.

    Raises:
        TrainingDataError: labels that do not vary, or a loss that is no longer a number.
        TrainingResourcesError: a network does not fit into the device's memory.
    """
    prepared = [_prepared(rows, split) for split in folds]
    if task.family == "linear":
        models = [fit_linear(fold.fit, fold.validation, fold.up) for fold in prepared]
        ensembles = tuple(
            Ensemble(fold.scaling, graph, (params,), fold.mean, fold.spread)
            for fold, (graph, params) in zip(prepared, models, strict=True)
        )
        log(f"linear: solved {len(folds)} folds with {len(PENALTIES)} penalties each")
        return TrainedFolds(ensembles, (), 0.0, 0.0, len(PENALTIES), vectorised)
    return _descend(prepared, task, vectorised=vectorised, checkpoints=checkpoints, log=log)


def _prepared(rows: Rows, split: Split) -> _Fold:
    fit, validation = rows.take(split.fit), rows.take(split.validation)
    mean, spread = float(fit.labels.mean()), float(fit.labels.std())
    if np.ptp(fit.labels) == 0.0:
        message = f"all {len(fit)} training labels equal {mean}: there is nothing to learn"
        raise TrainingDataError(message)
    slow = fit.changes() < LEAST_CHANGES
    scaling = fit_scaling(np.where(slow, np.float32(np.nan), fit.features))

    def scaled(part: Rows) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        inputs = np.asarray(standardise(scaling, part.features))
        return inputs, ((part.labels - mean) / spread).astype(np.float32)

    up = (fit.labels > 0, validation.labels > 0)
    return _Fold(scaling, mean, spread, scaled(fit), scaled(validation), up)


def _descend(
    folds: Sequence[_Fold],
    task: Task,
    *,
    vectorised: bool,
    checkpoints: Checkpoints | None,
    log: Callable[[str], None],
) -> TrainedFolds:
    config = task.training
    inputs = inputs_of([feature.name for feature in task.features], task.channels)
    seeds = [_seed(config, member) for member in range(config.ensemble_size)]
    graph, starts = networks(task.family, inputs, config.hidden_units, seeds)
    batch = min(config.batch_size, *(len(fold.fit[1]) for fold in folds))
    program = Program(graph, config.epochs, batch, config.precision)
    data = fold_data([fold.fit for fold in folds], [fold.validation for fold in folds])
    choice = search(Runner(program, data[:1], vectorised, log), starts[0], config, log)
    runner = Runner(program, data, vectorised, log)
    states = _trained(runner, starts, choice, config, checkpoints)
    log(f"of the time, {runner.compile_seconds:.1f} s went into compiling")
    ensembles = tuple(
        Ensemble(
            fold.scaling,
            graph,
            tuple(
                member_of(states.best, (number, member)) for member in range(config.ensemble_size)
            ),
            fold.mean,
            fold.spread,
        )
        for number, fold in enumerate(folds)
    )
    return TrainedFolds(
        ensembles,
        _history(states),
        choice.learning_rate,
        choice.weight_decay,
        choice.trials,
        runner.vectorised,
    )


def _trained(
    runner: Runner,
    starts: Sequence[Any],
    choice: Choice,
    config: TrainingConfig,
    checkpoints: Checkpoints | None,
) -> State:
    """Every member of every fold, trained to where it stops."""
    members = len(starts)
    hypers = Hyper(
        np.array([_seed(config, member) for member in range(members)], np.uint32),
        np.full(members, choice.learning_rate, np.float32),
        np.full(members, choice.weight_decay, np.float32),
    )
    states = population(runner.program, [starts] * len(runner.data))
    if checkpoints is not None:
        states = checkpoints.restore(states)
    for until in range(_SLICE, config.epochs + _SLICE, _SLICE):
        states = runner.advance(states, hypers, min(until, config.epochs))
        _check_finite(states)
        going = int(runner.program.goes_on(states).sum())
        runner.log(
            f"epoch {int(states.epoch.max())} of at most {config.epochs}: {going} of "
            f"{states.epoch.size} networks go on; validation losses "
            f"{states.best_loss.min():.4f} to {states.best_loss.max():.4f}"
        )
        if checkpoints is not None:
            checkpoints.offer(states)
        if not going:
            break
    return states


def _seed(config: TrainingConfig, member: int) -> int:
    """Seed of a member's first numbers and of the order in which it sees the rows, 32 bits."""
    return (config.seed * _SEED_STRIDE + member) % 2**32


def _check_finite(states: State) -> None:
    bad = np.argwhere(~np.isfinite(states.loss))
    if len(bad):
        fold, member = bad[0]
        message = (
            f"the loss of member {member} in fold {fold} is {states.loss[fold, member]} after "
            f"epoch {states.epoch[fold, member]}: lower CRYPTOML_LEARNING_RATE"
        )
        raise TrainingDataError(message)


def _history(states: State) -> tuple[Epoch, ...]:
    folds, members = states.epoch.shape
    return tuple(
        Epoch(
            fold,
            member,
            epoch + 1,
            float(states.training[fold, member, epoch]),
            float(states.validation[fold, member, epoch]),
        )
        for fold in range(folds)
        for member in range(members)
        for epoch in range(int(states.epoch[fold, member]))
    )
