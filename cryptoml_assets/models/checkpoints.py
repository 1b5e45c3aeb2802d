"""How far a training has come, on disk, so that a killed one goes on where it stopped.

Checkpoints are Orbax's: arrays, no code. Whoever makes one names its folder after all that decides
the training's numbers, machine and layout included, so that nothing else goes on from it.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta
    from pathlib import Path

    from cryptoml_assets.models.population import State


@dataclass
class Checkpoints:
    """The newest state of one training.

    Attributes:
        folder: of this training alone.
        every: least time between two savings.
        log: receives a line when something is found to go on from.
    """

    folder: Path
    every: timedelta
    log: Callable[[str], None]
    _saved: float = field(default_factory=time.monotonic)
    _step: int = -1

    def restore(self, start: State) -> State:
        """The states last saved, or ``start`` where there are none.

        What cannot be read, such as what a full disk cut short, is removed with a line in the log:
        training then starts again, which costs time and changes no number.

        Args:
            start: of all members, shape (folds, members, ...); says what is to be found.
        """
        if not self.folder.is_dir():
            return start
        import orbax.checkpoint as ocp  # noqa: PLC0415 - seconds to import, and seldom needed

        with ocp.CheckpointManager(self.folder.resolve(), options=_options(ocp)) as manager:
            if (step := manager.latest_step()) is None:
                return start
            try:
                found = manager.restore(step, args=ocp.args.StandardRestore(_named(start)))
                _check_shapes(found, _named(start))
            except (ValueError, KeyError, OSError) as error:
                found, why = None, error
        if found is None:
            self.log(f"the checkpoint in {self.folder} cannot be used, starting again: {why}")
            self.clear()
            return start
        leaves = [np.array(found[name]) for name in sorted(found)]
        states: State = jax.tree.unflatten(jax.tree.structure(start), leaves)
        self._step = step
        self.log(
            f"going on from a checkpoint: {states.epoch.sum()} epochs of {states.epoch.size} "
            "members are done"
        )
        return states

    def offer(self, states: State) -> None:
        """Save these states if there is anything new and the last saving is long enough ago.

        Where they cannot be written a line in the log says so, and the training goes on.
        """
        new = int(states.epoch.sum()) != self._step
        if new and time.monotonic() - self._saved >= self.every.total_seconds():
            try:
                self.save(states)
            except OSError as error:
                self.log(f"no checkpoint could be written into {self.folder}: {error}")

    def save(self, states: State) -> None:
        """Save these states; the ones before are removed once these are whole.

        Raises:
            OSError: they cannot be written.
        """
        import orbax.checkpoint as ocp  # noqa: PLC0415 - seconds to import, and seldom needed

        self.folder.mkdir(parents=True, exist_ok=True)
        step = int(states.epoch.sum())
        with ocp.CheckpointManager(self.folder.resolve(), options=_options(ocp)) as manager:
            manager.save(step, args=ocp.args.StandardSave(_named(states)), force=True)
        self._saved, self._step = time.monotonic(), step

    def clear(self) -> None:
        """Remove everything: the training is over."""
        shutil.rmtree(self.folder, ignore_errors=True)


def forget_old(folder: Path, age: timedelta, now: float) -> None:
    """Remove the checkpoints of trainings that nobody has gone on with for so long.

    Args:
        folder: with a folder for each training.
        age: how long.
        now: the present, seconds since the epoch.
    """
    for each in folder.glob("*") if folder.is_dir() else ():
        if now - each.stat().st_mtime > age.total_seconds():
            shutil.rmtree(each, ignore_errors=True)


def _options(ocp: Any) -> Any:
    return ocp.CheckpointManagerOptions(
        max_to_keep=1, create=True, enable_async_checkpointing=False, cleanup_tmp_directories=True
    )


def _named(states: State) -> dict[str, Any]:
    """Every array under a name of fixed width, in the order of the tree."""
    return {f"{index:04d}": leaf for index, leaf in enumerate(jax.tree.leaves(states))}


def _check_shapes(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """That what was found is of the members wanted: Orbax restores arrays of any shape.

    Raises:
        ValueError: it is not.
    """
    shapes = {name: np.shape(leaf) for name, leaf in found.items()}
    if shapes != {name: np.shape(leaf) for name, leaf in wanted.items()}:
        message = "it is of other networks"
        raise ValueError(message)
