"""Loads the deployed champion in a thread of its own: the registry is looked at meanwhile."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from cryptoml_serving.runtime.errors import RegistryUnavailableError, ServingError
from cryptoml_serving.telemetry import event

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptoml_serving.contract.deployment import Deployment, Placement
    from cryptoml_serving.runtime.attempts import Attempts
    from cryptoml_serving.runtime.loader import Loader
    from cryptoml_serving.runtime.registry import ModelRegistry
    from cryptoml_serving.runtime.roster import Roster

_LOG = logging.getLogger(__name__)
_STOP_SECONDS = 1.0


class Succession:
    """Has the champion loaded, and tried again at every look where that fails."""

    def __init__(
        self,
        *,
        registry: ModelRegistry,
        loader: Loader,
        roster: Roster,
        attempts: Attempts,
        loaded: Callable[[], None],
    ) -> None:
        """Touch nothing yet; ``start`` begins.

        Args:
            registry: knows which champion was loaded last.
            loader: loads one.
            roster: gets it.
            attempts: tell whether it could be loaded.
            loaded: called when there is a new champion, to have it predict.
        """
        self._registry = registry
        self._loader = loader
        self._roster = roster
        self._attempts = attempts
        self._loaded = loaded
        #: The newest deployment, and whether it comes from this machine's disk.
        self._wanted: tuple[Deployment, bool] | None = None
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="succession", daemon=True)

    def start(self) -> None:
        """Begin in the background."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end, and wait a little for it."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(_STOP_SECONDS)

    def follow(self, deployment: Deployment, *, kept: bool) -> None:
        """Have the champion of this deployment loaded, unless it is; never waits.

        Args:
            deployment: verified, and told to the roster.
            kept: load from this machine's disk alone.
        """
        self._wanted = deployment, kept
        self._wake.set()

    def turn(self) -> None:
        """Load what is deployed now; what fails is told."""
        self._attempts.attempt("model", self._load, step="load")

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait()
            self._wake.clear()
            if not self._stopping.is_set():
                self.turn()

    def _load(self) -> None:
        if self._wanted is None:
            return
        deployment, kept = self._wanted
        champion = deployment.champion
        line = self._roster.line
        if champion is None:
            return
        if line and line[0].placement == champion:
            self._registry.keep_later(champion)
            return
        try:
            model = self._loader.load(champion, kept=kept)
        except Exception as error:
            if not isinstance(error, RegistryUnavailableError):
                self._roster.refuse(champion)
            # Rather nothing than what was found unfit, where its successor cannot be loaded.
            self._roster.end_withdrawn()
            if not self._roster.line:
                self._stand_in(deployment)
            raise
        # The deployment may be another one by now; then that one's champion is next.
        if self._roster.add(model):
            self._loaded()

    def _stand_in(self, deployment: Deployment) -> None:
        """Have the champion before answer, as it would had this process been there all along."""
        placement: Placement | None = self._registry.stand_in(deployment)
        if placement is None:
            return
        try:
            model = self._loader.load(placement, kept=True)
        except ServingError as error:
            message = f"version {placement.model_version} cannot stand in: {error}"
            event(_LOG, logging.WARNING, "error", message, error_type=error.kind, part="model")
            return
        if self._roster.stand_in(model):
            self._loaded()
