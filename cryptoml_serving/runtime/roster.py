"""Who may predict: the one place that says so, for every thread and every way to ask.

The thread that follows the registry says what is deployed and adds models, the others bring what
those predicted. Whatever a thread was doing meanwhile, nothing of a model that may not predict any
more gets into the state.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptoml_serving.contract.deployment import Deployment, Placement
    from cryptoml_serving.runtime.registry import ApprovedModel
    from cryptoml_serving.runtime.snapshot import Snapshot
    from cryptoml_serving.runtime.state import State

#: Longest time that a champion goes on answering once it is known to be withdrawn: for its
#: successor to be loaded, so that a rollback fails no request.
_GRACE_SECONDS = 2.0
#: Each may do more than those before it.
_ROLES = ("shadow", "canary", "champion")


class Roster:
    """The models of a state. A new champion takes over with its first snapshot.

    Until then the one before it answers. A withdrawn one does so for two seconds at most, and no
    longer than until its successor turns out not to be able to.

    A model that is placed otherwise stays until it is loaded for that, so that its version can be
    asked for all along. Until then it does what both placements let it: what is taken from it
    counts at once, what is given to it once its approval is verified.
    """

    def __init__(self, state: State) -> None:
        """Change nothing yet; ``state`` is written here and read by requests."""
        self._state = state
        self._lock = threading.RLock()
        #: The champion to be and, until that has its first snapshot, the one that answers.
        self._line: tuple[ApprovedModel, ...] = ()
        #: By version and digest; a canary that is being promoted is among them.
        self._challengers: dict[tuple[str, str], ApprovedModel] = {}
        self._timer: threading.Timer | None = None

    @property
    def line(self) -> tuple[ApprovedModel, ...]:
        """The newest champion loaded and, until that has a snapshot, the one that answers."""
        return self._line

    def follow(self, deployment: Deployment) -> None:
        """Have nothing predict from now on but what a deployment lets."""
        with self._lock:
            self._state.deployment = deployment
            beside = self._beside()
            for model in self._line:
                if model.placement.subject in beside:
                    self._challengers.setdefault(model.placement.subject, model)
            self._limit_challengers()
            if deployment.champion is None:
                self._line = ()
            else:
                answering = self._answering()
                self._line = tuple(
                    each for each in self._line if each in answering or not self._withdrawn(each)
                )
                if any(self._withdrawn(each) for each in answering):
                    self._end_soon()
            self._show()

    def add(self, champion: ApprovedModel) -> bool:
        """Let a champion that is loaded and warm take over as soon as it has a snapshot.

        Returns:
            Whether it may: it may not where another one was deployed meanwhile.
        """
        with self._lock:
            deployment = self._state.deployment
            if deployment is None or deployment.champion != champion.placement:
                return False
            self._line = (champion, *self._answering())
            self._challengers.pop(champion.placement.subject, None)
            self._show()
            return True

    def stand_in(self, model: ApprovedModel) -> bool:
        """Let the champion before answer until the deployed one can; whether it may."""
        with self._lock:
            deployment = self._state.deployment
            if self._line or deployment is None or deployment.champion is None:
                return False
            if self._withdrawn(model):
                return False
            self._line = (model,)
            self._show()
            return True

    def publish(self, snapshot: Snapshot) -> bool:
        """Answer from a snapshot, unless its model may not answer any more; whether it may."""
        with self._lock:
            model = snapshot.model
            if model not in self._line:
                return False
            self._state.snapshot = snapshot
            if model is self._line[0]:
                self._line = (model,)
            self._show()
            return True

    def end_withdrawn(self) -> None:
        """Have what is withdrawn answer no more, whatever there is in its place."""
        with self._lock:
            self._line = tuple(model for model in self._line if not self._withdrawn(model))
            self._show()

    def challenge(self, models: Iterable[ApprovedModel], snapshots: Iterable[Snapshot]) -> None:
        """Have models predict beside the champion, those of them that are placed there.

        Args:
            models: loaded and warm; each replaces the one of its version.
            snapshots: all there are of challengers.
        """
        with self._lock:
            beside = self._beside()
            self._challengers |= {
                each.placement.subject: each for each in models if each.placement.subject in beside
            }
            self._state.challengers = tuple(snapshots)
            self._limit_challengers()
            self._show()

    def refuse(self, placement: Placement) -> None:
        """Have a challenger predict no more that turns out not to be fit for what it is placed for.

        Args:
            placement: that it was to be loaded for; where another is deployed by now, that one
                counts.
        """
        with self._lock:
            deployment = self._state.deployment
            if deployment is not None and placement in deployment.placements:
                self._challengers.pop(placement.subject, None)
                self._show()

    def _beside(self) -> set[tuple[str, str]]:
        """What is placed beside the champion."""
        deployment = self._state.deployment
        return set() if deployment is None else {each.subject for each in deployment.challengers}

    def _limit_challengers(self) -> None:
        """Keep what is placed, and have nothing do more than it is placed for."""
        deployment = self._state.deployment
        self._challengers = {
            each.subject: _limited(self._challengers[each.subject], each)
            for each in (() if deployment is None else deployment.placements)
            if each.subject in self._challengers
        }

    def _answering(self) -> tuple[ApprovedModel, ...]:
        snapshot = self._state.snapshot
        return tuple(each for each in self._line if snapshot and each is snapshot.model)

    def _withdrawn(self, model: ApprovedModel) -> bool:
        deployment = self._state.deployment
        return deployment is not None and model.placement.model_version in deployment.withdrawn

    def _end_soon(self) -> None:
        if self._timer is None or not self._timer.is_alive():
            self._timer = threading.Timer(_GRACE_SECONDS, self.end_withdrawn)
            self._timer.daemon = True
            self._timer.start()

    def _show(self) -> None:
        """Bring the state in step; the lock is held."""
        state = self._state
        if state.snapshot is not None and state.snapshot.model not in self._line:
            state.snapshot = None
        beside = self._beside() & self._challengers.keys()
        state.challengers = tuple(
            replace(each, model=self._challengers[each.model.placement.subject])
            for each in state.challengers
            if each.model.placement.subject in beside
        )
        answering = self._answering() or self._line
        state.champion = answering[0] if answering else None
        state.model_loaded = bool(self._line)
        champions = [each for each in self._line if not self._withdrawn(each)]
        # The champion's role counts where a version has two: a canary that is being promoted.
        loaded = [*self._challengers.values(), *reversed(champions)]
        state.models = MappingProxyType({each.placement.model_version: each for each in loaded})


def _limited(model: ApprovedModel, placement: Placement) -> ApprovedModel:
    """A model that may do no more than it was loaded for, and no more than it is placed for."""
    own = model.placement
    limits: dict[str, object] = {
        "role": min(own.role, placement.role, key=_ROLES.index),
        "percent": min(own.percent, placement.percent),
    }
    limited = own.model_copy(update=limits)
    return model if limited == own else replace(model, placement=limited)
