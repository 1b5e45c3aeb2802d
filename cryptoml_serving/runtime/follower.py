"""Follows the registry in a thread of its own: however slow it is, answers do not wait for it."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from typing import TYPE_CHECKING, NoReturn

from cryptoml_serving.runtime.errors import (
    DeploymentLostError,
    DeploymentRefusedError,
    NoChampionError,
    RegistryUnavailableError,
    ServedFromDiskError,
    ServingError,
)
from cryptoml_serving.telemetry import event

if TYPE_CHECKING:
    from cryptoml_serving.runtime.attempts import Attempts
    from cryptoml_serving.runtime.challengers import Challengers
    from cryptoml_serving.runtime.device import Device
    from cryptoml_serving.runtime.registry import Found, ModelRegistry
    from cryptoml_serving.runtime.roster import Roster
    from cryptoml_serving.runtime.state import State
    from cryptoml_serving.runtime.succession import Succession
    from cryptoml_serving.settings import ServingSettings

_LOG = logging.getLogger(__name__)
_STOP_SECONDS = 5.0
#: Least time between two looks at the registry that were asked for.
_ASKED_SECONDS = 1.0
_ALIAS_MOVED = "the registry's alias names another version than the signed deployment"
_NOTHING_KEPT = "nothing is kept on this machine: others could write to the folder, or nobody can"


class Follower:
    """Looks at the registry, and has the models it deploys loaded by others.

    It waits for none of them, so that a withdrawal is seen while a model is loaded. Where the
    registry told nothing valid since the start, it goes by what the registry said last, as this
    machine's disk has it.
    """

    def __init__(
        self,
        *,
        settings: ServingSettings,
        registry: ModelRegistry,
        roster: Roster,
        succession: Succession,
        challengers: Challengers,
        device: Device,
        state: State,
        attempts: Attempts,
    ) -> None:
        """Touch nothing yet; ``start`` begins.

        Args:
            settings: the pause between two looks.
            registry: says what is deployed.
            roster: told of it.
            succession: told of the champion to load.
            challengers: told of theirs.
            device: prepared before anything is loaded.
            state: told what is not as it should be.
            attempts: tell whether a look succeeded.
        """
        self._settings = settings
        self._registry = registry
        self._roster = roster
        self._succession = succession
        self._challengers = challengers
        self._device = device
        self._state = state
        self._attempts = attempts
        self._suspected: Found | None = None
        self._last_look = 0.0
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._prepared = threading.Event()
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)

    def start(self) -> None:
        """Begin in the background."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end, and wait a little for it."""
        self._stop.set()
        self._wake.set()
        self._thread.join(_STOP_SECONDS)

    def ask(self) -> None:
        """Have the registry looked at now, or a second after the last look; never waits."""
        self._wake.set()

    def wait_prepared(self) -> None:
        """Wait until what loading needs is imported."""
        self._prepared.wait()

    def look(self) -> None:
        """Look at the registry once; what fails is told."""
        self._last_look = time.monotonic()
        self._attempts.attempt("model", self._look)
        if self._registry.problem:
            self._state.problems["cache"] = _NOTHING_KEPT
        else:
            self._state.problems.pop("cache", None)

    def _run(self) -> None:
        # While there may be no model to load yet. What cannot be imported is reported at the look
        # that needs it.
        for source in (self._device, self._registry):
            with contextlib.suppress(ImportError):
                source.prepare()
        self._prepared.set()
        pause = self._settings.serving_registry_poll.total_seconds()
        while not self._stop.is_set():
            self.look()
            if self._wake.wait(pause):
                # However often it is asked for, it is looked at once a second at most.
                self._stop.wait(max(0.0, self._last_look + _ASKED_SECONDS - time.monotonic()))
                self._wake.clear()

    def _look(self) -> None:
        try:
            found = self._registry.deployment()
        except (RegistryUnavailableError, NoChampionError, DeploymentRefusedError) as error:
            # No valid decision takes the signed deployment away, or puts an old one back.
            self._go_by_disk(error)
        self._state.from_disk = False
        self._compare_alias(found)
        self._follow(found)

    def _go_by_disk(self, error: ServingError) -> NoReturn:
        """Go on with what is served or, where that is nothing, with what this disk has.

        Raises:
            ServedFromDiskError: the registry does not answer, and the disk's is served.
            DeploymentLostError: what it answers is no valid deployment, and the disk's is served.
            ServingError: the error given; what was served still is, if anything was.
        """
        if self._state.deployment is None or (self._state.from_disk and not self._roster.line):
            try:
                found = self._registry.kept()
            except DeploymentRefusedError as refused:
                raise error from refused
            if found is None:
                raise error
            self._state.from_disk = True
            self._follow(found)
        if self._state.from_disk:
            unavailable = isinstance(error, RegistryUnavailableError)
            told = ServedFromDiskError if unavailable else DeploymentLostError
            raise told(str(error)) from error
        raise error

    def _follow(self, found: Found) -> None:
        deployment = found.deployment
        self._roster.follow(deployment)
        self._succession.follow(deployment, kept=found.kept)
        self._challengers.follow(deployment, kept=found.kept)
        if deployment.champion is None:
            message = f"no version of {deployment.model_name} is deployed as champion any more"
            raise NoChampionError(message)

    def _compare_alias(self, found: Found) -> None:
        """Tell an alias that was moved by hand; what is served follows the signed deployment.

        The alias is set just after the deployment, so that a single look may fall between both.
        """
        moved = found.alias_moved and found == self._suspected
        self._suspected = found if found.alias_moved else None
        if moved and not self._state.alias_moved:
            champion = found.deployment.champion
            signed = "none" if champion is None else f"version {champion.model_version}"
            message = (
                f"alias of {found.deployment.model_name} names version {found.alias or 'none'}, "
                f"the signed deployment {signed}, which is served"
            )
            event(_LOG, logging.ERROR, "error", message, error_type="alias_moved", part="alias")
        if moved:
            self._state.problems["alias"] = _ALIAS_MOVED
        elif not found.alias_moved:
            self._state.problems.pop("alias", None)
        self._state.alias_moved = moved
