"""What the page shows of the lake, read in a thread of its own: a request only ever looks at it."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from cryptoml_serving.contract.approval import load_public_key
from cryptoml_serving.contract.served import SERVED_PREDICTIONS
from cryptoml_serving.runtime import lake_tables
from cryptoml_serving.runtime.errors import LakeUnavailableError
from cryptoml_serving.runtime.finder import Finder
from cryptoml_serving.runtime.history import COLUMNS, DEPLOYMENTS, History, verified
from cryptoml_serving.telemetry import event

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Future
    from datetime import datetime

    from cryptoml_serving.contract.prediction import Prediction
    from cryptoml_serving.runtime.lake_tables import Drift, Point
    from cryptoml_serving.settings import ServingSettings
    from cryptoml_serving.telemetry import Metrics

_LOG = logging.getLogger(__name__)
#: How far back answers are shown with what came of them.
TRACK = timedelta(hours=6)
#: Longest wait for the first snapshot before the lake is read all the same.
_PATIENCE_SECONDS = 15.0
_STOP_SECONDS = 2.0


@dataclass(frozen=True)
class Picture:
    """What was last read. Replaced as a whole, never changed.

    Attributes:
        number: counts the changes of it in this process.
        history: every decision, verified.
        feature_drift: newest report on the model's inputs.
        prediction_drift: newest report on its answers.
        track: symbol to the champion's answers of the last hours when its tables last changed,
            with their outcomes.
        read_at: the world's instant of the last reading that read everything; none before it.
        problem: why the last reading did not read everything, in words for callers.
    """

    number: int = 0
    history: History = field(default_factory=History)
    feature_drift: tuple[Drift, ...] = ()
    prediction_drift: tuple[Drift, ...] = ()
    track: Mapping[str, tuple[Point, ...]] = field(default_factory=lambda: MappingProxyType({}))
    read_at: datetime | None = None
    problem: str = ""

    def track_of(self, symbol: str, now: datetime) -> tuple[Point, ...]:
        """The champion's answers of the hours before ``now``, oldest first."""
        return tuple(each for each in self.track.get(symbol, ()) if each.at >= now - TRACK)


class LakeView:
    """Keeps a picture of the lake current, and looks for single predictions on demand."""

    def __init__(
        self, settings: ServingSettings, metrics: Metrics, ready: Callable[[], bool]
    ) -> None:
        """Touch nothing yet; ``start`` begins.

        Args:
            settings: address of the lake, key, clock and the pause between two readings.
            metrics: told of failures.
            ready: whether predictions are served; before that, the machine has better to do.
        """
        self.picture = Picture()
        self._settings = settings
        self._metrics = metrics
        self._ready = ready
        self._versions: dict[str, Any] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lake-view", daemon=True)
        self._finder = Finder()

    def start(self) -> None:
        """Begin reading in the background."""
        self._thread.start()
        self._finder.start()

    def stop(self) -> None:
        """Ask the threads to end, and wait a little for the one that reads."""
        self._stop.set()
        self._finder.stop()
        if self._thread.ident is not None:
            self._thread.join(_STOP_SECONDS)

    def find(self, prediction_id: str) -> Future[dict[str, Any] | None]:
        """Look for a prediction among all that were ever served, with its outcome under that name.

        Raises:
            LakeUnavailableError: as many wait to be looked for as may, or the service ends.
        """
        return self._finder.submit(self._find, prediction_id)

    def outcome(self, prediction: Prediction) -> Future[dict[str, Any] | None]:
        """Look for what came of a prediction that is known.

        Raises:
            LakeUnavailableError: as many wait to be looked for as may, or the service ends.
        """
        named = str(prediction.prediction_id)
        lake = self._settings.lake_uri
        return self._finder.submit(lake_tables.outcome, lake, named, prediction.feature_timestamp)

    def read(self) -> None:
        """Read what changed since the last time; what cannot be read stays as it was."""
        now = self._settings.clock()
        lake = self._settings.lake_uri
        problems: list[str] = []
        changes: dict[str, Any] = {}
        readings: dict[str, Callable[[], Any]] = {
            "history": self._history,
            "feature_drift": lambda: lake_tables.drift(lake, lake_tables.FEATURE_DRIFT),
            "prediction_drift": lambda: lake_tables.drift(lake, lake_tables.PREDICTION_DRIFT),
            "track": lambda: MappingProxyType(lake_tables.track(lake, now - TRACK, now)),
        }
        for part, reading in readings.items():
            try:
                stamp = self._stamp(part)
                if part not in self._versions or self._versions[part] != stamp:
                    changes[part] = reading()
                    self._versions[part] = stamp
            # deltalake has many, a panic of its Rust among them, which is no Exception.
            except BaseException as error:  # noqa: BLE001 - the page goes on
                problems.append(part.replace("_", " "))
                self._failed(part, error)
        self._show(changes, problems, now)

    def _show(self, changes: dict[str, Any], problems: list[str], now: datetime) -> None:
        problem = f"cannot be read now: {', '.join(problems)}" if problems else ""
        before = self.picture
        changed = bool(changes) or problem != before.problem
        if before.problem and not problem:
            event(_LOG, logging.INFO, "recovered", "the lake is read again", part="lake")
        self.picture = replace(
            before,
            **changes,
            number=before.number + changed,
            read_at=before.read_at if problem else now,
            problem=problem,
        )

    def _history(self) -> History:
        stored = lake_tables.rows(self._settings.lake_uri, DEPLOYMENTS, COLUMNS)
        return verified(stored, load_public_key(self._settings.public_key_path))

    def _stamp(self, part: str) -> Any:
        """What a part of the picture is made from: the versions of its tables."""
        tables = {
            "history": (DEPLOYMENTS,),
            "track": (SERVED_PREDICTIONS, lake_tables.OUTCOMES),
        }.get(part, (part,))
        return tuple(lake_tables.stamp(self._settings.lake_uri, table) for table in tables)

    def _find(self, prediction_id: str) -> dict[str, Any] | None:
        lake = self._settings.lake_uri
        found = lake_tables.served(lake, prediction_id)
        if found is None:
            return None
        came = lake_tables.outcome(lake, prediction_id, found["feature_timestamp"])
        return {**found, "outcome": came}

    def _run(self) -> None:
        waited = 0.0
        while not self._ready() and waited < _PATIENCE_SECONDS and not self._stop.wait(0.1):
            waited += 0.1
        pause = self._settings.serving_lake_poll.total_seconds()
        while not self._stop.is_set():
            self.read()
            self._stop.wait(pause)

    def _failed(self, part: str, error: BaseException) -> None:
        self._metrics.refresh_errors.labels(LakeUnavailableError.kind).inc()
        if not self.picture.problem:
            event(_LOG, logging.ERROR, "error", f"{part}: {error}", error_type="lake", part=part)
