"""Challengers beside the champion: loaded and scored in a thread of their own.

Whatever becomes of one, slow, refused or broken, the champion's thread does not wait for it.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptoml_serving.runtime.errors import RegistryUnavailableError, ServingError
from cryptoml_serving.runtime.snapshot import build_snapshot
from cryptoml_serving.telemetry import event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from cryptoml_serving.contract.deployment import Deployment, Placement
    from cryptoml_serving.contract.manifest import Manifest
    from cryptoml_serving.runtime.features import FeatureRows, OnlineFeatures
    from cryptoml_serving.runtime.loader import Loader
    from cryptoml_serving.runtime.prediction_log import PredictionLog
    from cryptoml_serving.runtime.registry import ApprovedModel
    from cryptoml_serving.runtime.roster import Roster
    from cryptoml_serving.runtime.snapshot import Snapshot
    from cryptoml_serving.runtime.state import State
    from cryptoml_serving.settings import ServingSettings
    from cryptoml_serving.telemetry import Metrics

_LOG = logging.getLogger(__name__)
_STOP_SECONDS = 1.0


@dataclass(frozen=True)
class Reading:
    """Features as the champion read them.

    Attributes:
        manifest: of the champion: which features, by which formulas.
        rows: of every served symbol.
        now: when they were read.
    """

    manifest: Manifest
    rows: FeatureRows
    now: datetime

    def suits(self, manifest: Manifest) -> bool:
        """Whether a model reads exactly these features, in this order."""
        own = self.manifest
        return (own.features, own.feature_service) == (manifest.features, manifest.feature_service)


class Challengers:
    """Follows the challengers of the deployment, and keeps a snapshot of each in the state."""

    def __init__(
        self,
        *,
        settings: ServingSettings,
        loader: Loader,
        features: OnlineFeatures,
        metrics: Metrics,
        state: State,
        roster: Roster,
        announce: Callable[[Snapshot], None],
        log: PredictionLog | None,
    ) -> None:
        """Touch nothing yet; ``start`` begins.

        Args:
            settings: symbols and clock.
            loader: loads what is placed.
            features: a reader that no other thread uses.
            metrics: told of predictions and failures by version.
            state: told which do not predict.
            roster: gets the models and their snapshots.
            announce: gets each snapshot before it can answer anybody, in this object's thread.
            log: gets the snapshots too.
        """
        self._settings = settings
        self._loader = loader
        self._features = features
        self._metrics = metrics
        self._state = state
        self._roster = roster
        self._announce = announce
        self._log = log
        #: By version and digest: the newest loaded, be it for the placement before.
        self._models: dict[tuple[str, str], ApprovedModel] = {}
        self._failing: dict[Placement, str] = {}
        self._lock = threading.Lock()
        self._deployment: Deployment | None = None
        self._reading: Reading | None = None
        self._look = False
        self._kept = False
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="challengers", daemon=True)

    def start(self) -> None:
        """Begin in the background."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end, and wait a little for it."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(_STOP_SECONDS)

    def follow(self, deployment: Deployment, *, kept: bool) -> None:
        """Score the challengers of this deployment from now on.

        Those that could not be loaded are tried again.

        Args:
            deployment: verified, and told to the roster.
            kept: load from this machine's disk alone.
        """
        with self._lock:
            self._deployment = deployment
            self._look = True
            self._kept = kept

    def score(self, reading: Reading | None) -> None:
        """Have every challenger predict; without a reading each reads its own."""
        with self._lock:
            self._reading = reading
            idle = self._deployment is None or not self._deployment.challengers
        if not idle or self._models or self._failing:
            self._wake.set()

    def turn(self) -> None:
        """Load what is placed and not loaded, and score what is."""
        with self._lock:
            deployment, reading, look = self._deployment, self._reading, self._look
            kept = self._kept
            self._look = False
        if deployment is None:
            return
        lacking = [each for each in deployment.challengers if not self._has(each)]
        if look:
            failing = self._load(lacking, kept=kept)
        else:
            failing = {each: self._failing.get(each, "") for each in lacking}
        # Only now: what is loaded for another role shares the programs of what was.
        self._models = {
            each.subject: self._models[each.subject]
            for each in deployment.challengers
            if each.subject in self._models
        }
        snapshots = []
        for placement in deployment.challengers:
            model = self._models.get(placement.subject)
            if model is None or model.placement.role != placement.role:
                continue
            try:
                snapshots.append(self._scored(model, reading))
            except Exception as error:  # noqa: BLE001 - one challenger's end is not the others'
                failing[placement] = self._failed(placement, error)
        self._tell(failing)
        self._roster.challenge(self._models.values(), snapshots)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait()
            self._wake.clear()
            if not self._stopping.is_set():
                self.turn()

    def _has(self, placement: Placement) -> bool:
        """Whether a model is loaded for exactly this."""
        model = self._models.get(placement.subject)
        return model is not None and model.placement == placement

    def _load(self, placements: Iterable[Placement], *, kept: bool) -> dict[Placement, str]:
        """Load models in the place of those there are; which could not be, and why.

        Where nothing can be read now, what there is stays. What is refused ends.
        """
        failing = {}
        for placement in placements:
            try:
                self._models[placement.subject] = self._loader.load(placement, kept=kept)
            except Exception as error:  # noqa: BLE001 - one challenger's end is not the others'
                failing[placement] = self._failed(placement, error)
                if not isinstance(error, RegistryUnavailableError):
                    self._models.pop(placement.subject, None)
                    self._roster.refuse(placement)
        return failing

    def _scored(self, model: ApprovedModel, reading: Reading | None) -> Snapshot:
        manifest = model.bundle.manifest
        if reading is not None and reading.suits(manifest):
            rows, now = reading.rows, reading.now
        else:
            now = self._settings.clock()
            rows = self._features.read(self._settings.symbols, manifest, now)
        snapshot = build_snapshot(model, rows, now)
        self._metrics.challenged(snapshot)
        self._announce(snapshot)
        if self._log is not None:
            self._log.offer(snapshot)
        return snapshot

    def _failed(self, placement: Placement, error: Exception) -> str:
        """Count a failure, and log it when it begins or changes; the words for callers."""
        kind = error.kind if isinstance(error, ServingError) else ServingError.kind
        summary = error.summary if isinstance(error, ServingError) else ServingError.summary
        count = self._metrics.challenger_errors.labels(
            placement.model_version, placement.role, kind
        )
        # One a symbol, as predictions are counted.
        count.inc(len(self._settings.symbols))
        if self._failing.get(placement) != summary:
            event(
                _LOG,
                logging.ERROR,
                "error",
                f"{placement.role} version {placement.model_version}: {error}",
                error_type=kind,
                part="challengers",
                model_version=placement.model_version,
                exc_info=None if isinstance(error, ServingError) else error,
            )
        return summary

    def _tell(self, failing: dict[Placement, str]) -> None:
        """Say in the state which challengers do not predict, and why."""
        for placement in self._failing.keys() - failing.keys():
            message = f"{placement.role} version {placement.model_version} predicts again"
            if self._has(placement):
                event(_LOG, logging.INFO, "recovered", message, part="challengers")
        self._failing = failing
        if failing:
            self._state.problems["challengers"] = "; ".join(
                f"{each.role} version {each.model_version}: {why or 'it is being loaded'}"
                for each, why in failing.items()
            )
        else:
            self._state.problems.pop("challengers", None)
