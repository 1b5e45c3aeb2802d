"""Keeps the snapshot current in a thread of its own; requests only ever read it."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from cryptoml_serving.runtime.attempts import Attempts
from cryptoml_serving.runtime.challengers import Challengers, Reading
from cryptoml_serving.runtime.device import Device
from cryptoml_serving.runtime.follower import Follower
from cryptoml_serving.runtime.loader import Loader
from cryptoml_serving.runtime.roster import Roster
from cryptoml_serving.runtime.snapshot import build_snapshot
from cryptoml_serving.runtime.state import State
from cryptoml_serving.runtime.succession import Succession

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptoml_serving.runtime.features import OnlineFeatures
    from cryptoml_serving.runtime.prediction_log import PredictionLog
    from cryptoml_serving.runtime.registry import ApprovedModel, ModelRegistry
    from cryptoml_serving.runtime.snapshot import Snapshot
    from cryptoml_serving.settings import ServingSettings
    from cryptoml_serving.telemetry import Metrics

_STOP_SECONDS = 5.0


class Refresher:
    """Reads features and swaps what the models make of them into its ``state``.

    Four threads keep the state current: this one the champion's snapshot, one follows the
    registry, one loads champions, one scores challengers. None waits for another. A failure of any
    leaves what is served as it is, is counted, is logged when it first appears or changes, and is
    tried again at the next turn. A new model takes over with its first snapshot, so an answer never
    mixes two models; until it has one, the model before it is kept current.
    """

    def __init__(
        self,
        settings: ServingSettings,
        registry: ModelRegistry,
        features: Callable[[], OnlineFeatures],
        metrics: Metrics,
        log: PredictionLog | None = None,
    ) -> None:
        """Touch nothing yet; ``start`` begins.

        Args:
            settings: symbols, clock and pauses.
            registry: says what is deployed and loads it.
            features: makes a reader of the online features, one for each thread.
            metrics: told of failures and predictions.
            log: gets every snapshot; none: predictions are not kept.
        """
        self.state = State()
        self._settings = settings
        self._features = features()
        self._metrics = metrics
        self._log = log
        self._roster = Roster(self.state)
        self._attempts = Attempts(self.state, metrics)
        device = Device(settings, metrics)
        loader = Loader(registry, device, self.state)
        self._challengers = Challengers(
            settings=settings,
            loader=loader,
            features=features(),
            metrics=metrics,
            state=self.state,
            roster=self._roster,
            announce=self._announce,
            log=log,
        )
        self._wake = threading.Event()
        self._succession = Succession(
            registry=registry,
            loader=loader,
            roster=self._roster,
            attempts=self._attempts,
            loaded=self._wake.set,
        )
        self._follower = Follower(
            settings=settings,
            registry=registry,
            roster=self._roster,
            succession=self._succession,
            challengers=self._challengers,
            device=device,
            state=self.state,
            attempts=self._attempts,
        )
        self._listeners: list[Callable[[Snapshot], None]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="refresher", daemon=True)

    def tell(self, listener: Callable[[Snapshot], None]) -> None:
        """Have every new snapshot told, of whichever model; before ``start``.

        Args:
            listener: called in the thread that made the snapshot; never waits.
        """
        self._listeners.append(listener)

    def start(self) -> None:
        """Begin refreshing in the background."""
        self._follower.start()
        self._succession.start()
        self._thread.start()
        self._challengers.start()

    def stop(self) -> None:
        """Ask the threads to end, and wait a little for them."""
        self._stop.set()
        self._wake.set()
        self._follower.stop()
        self._thread.join(_STOP_SECONDS)
        self._challengers.stop()
        self._succession.stop()

    def ask(self) -> None:
        """Have the registry looked at now, or a second after the last look; never waits."""
        self._follower.ask()

    def look(self) -> None:
        """Look at the registry, and load what it deploys."""
        self._follower.look()
        self._succession.turn()

    def turn(self) -> None:
        """Read features and predict."""
        reading: list[Reading] = []
        if self._roster.line:
            self._attempts.attempt("features", lambda: self._refresh_snapshot(reading))
        self._challengers.score(reading[-1] if reading else None)

    def _run(self) -> None:
        # One import after the other: those of JAX and Feast share modules, and each takes a lock.
        self._follower.wait_prepared()
        with contextlib.suppress(ImportError):
            self._features.prepare()
        pause = self._settings.serving_refresh.total_seconds()
        while not self._stop.is_set():
            self.turn()
            self._wake.wait(pause)
            self._wake.clear()

    def _refresh_snapshot(self, readings: list[Reading]) -> None:
        """Swap the snapshot, and add what was read for it to ``readings``."""
        line = self._roster.line
        if not line:
            # What was there was withdrawn a moment ago.
            return
        newest, *served = line
        try:
            self._predict(newest, readings)
        except Exception:
            # Rather nothing than what was found unfit, where its successor cannot predict.
            self._roster.end_withdrawn()
            for model in served:
                self._predict(model, readings)
            raise

    def _predict(self, model: ApprovedModel, readings: list[Reading]) -> None:
        now = self._settings.clock()
        manifest = model.bundle.manifest
        rows = self._features.read(self._settings.symbols, manifest, now)
        snapshot = build_snapshot(model, rows, now)
        if not self._roster.publish(snapshot):
            return
        readings.append(Reading(manifest, rows, now))
        self._metrics.predicted(snapshot)
        self._announce(snapshot)
        if self._log is not None:
            self._log.offer(snapshot)

    def _announce(self, snapshot: Snapshot) -> None:
        for listener in self._listeners:
            listener(snapshot)
