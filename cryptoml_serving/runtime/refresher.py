"""Keeps model and snapshot current in a thread of its own; requests only ever read them."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from cryptoml_serving.runtime.errors import ServingError
from cryptoml_serving.runtime.snapshot import Snapshot, build_snapshot
from cryptoml_serving.telemetry import event

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptoml_serving.runtime.features import OnlineFeatures
    from cryptoml_serving.runtime.registry import ApprovedModel, ModelRegistry
    from cryptoml_serving.settings import ServingSettings
    from cryptoml_serving.telemetry import Metrics

_LOG = logging.getLogger(__name__)
_STOP_SECONDS = 5.0
Part = Literal["model", "features"]


@dataclass
class State:
    """What requests read. The refresher's thread alone writes it, one attribute at a time.

    Attributes:
        snapshot: what is answered, once there is anything to answer.
        model_loaded: whether an approved model is loaded, be it with a snapshot or not.
        problems: what keeps a part from being refreshed, as last seen, in words for callers.
        refreshed: monotonic second at which each part was last found or made current.
    """

    snapshot: Snapshot | None = None
    model_loaded: bool = False
    problems: dict[Part, str] = field(default_factory=dict)
    refreshed: dict[Part, float] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        """Whether there is anything to answer: a prediction, be it of one symbol only.

        Its age has no say. Features that grow old do so for every instance alike; taking all of
        them out of rotation would cost callers the answer that says so.
        """
        return self.snapshot is not None and bool(self.snapshot.predictions)

    @property
    def not_ready(self) -> str:
        """Why nothing can be answered yet, in words for callers."""
        if not self.model_loaded:
            return self.problems.get("model", "the approved model is being loaded")
        if self.snapshot is None:
            return self.problems.get("features", "the first features are being read")
        return "the feature store holds current features of no served symbol"

    def age(self, part: Part) -> float | None:
        """Seconds since a part was last current; none before the first time."""
        instant = self.refreshed.get(part)
        return None if instant is None else time.monotonic() - instant


class Refresher:
    """Polls registry and feature store, and swaps what they hold into its ``state``.

    A failure of either leaves what is served as it is, is counted, is logged when it first appears
    or changes, and is tried again at the next turn. A new model takes over with its first snapshot,
    so an answer never mixes two models; until it has one, the model before it is kept current.
    """

    def __init__(
        self,
        settings: ServingSettings,
        registry: ModelRegistry,
        features: OnlineFeatures,
        metrics: Metrics,
    ) -> None:
        """Touch nothing yet; ``start`` begins."""
        self.state = State()
        self._settings = settings
        self._registry = registry
        self._features = features
        self._metrics = metrics
        #: The model to serve and, until that has its first snapshot, the one still served.
        self._models: tuple[ApprovedModel, ...] = ()
        self._logged: dict[Part, str] = {}
        self._next_poll = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="refresher", daemon=True)

    def start(self) -> None:
        """Begin refreshing in the background."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end, and wait a little for it."""
        self._stop.set()
        self._thread.join(_STOP_SECONDS)

    def turn(self) -> None:
        """Look at the registry if it is time to, then read features and predict."""
        if time.monotonic() >= self._next_poll:
            self._attempt("model", self._refresh_model)
            self._next_poll = (
                time.monotonic() + self._settings.serving_registry_poll.total_seconds()
            )
        if self._models:
            self._attempt("features", self._refresh_snapshot)

    def _run(self) -> None:
        # While there may be no model to load yet. What cannot be imported is reported at the turn
        # that needs it.
        for source in (self._registry, self._features):
            with contextlib.suppress(ImportError):
                source.prepare()
        pause = self._settings.serving_refresh.total_seconds()
        while not self._stop.is_set():
            self.turn()
            self._stop.wait(pause)

    def _refresh_model(self) -> None:
        champion = self._registry.champion()
        if self._models and self._models[0].identity == (champion.version, champion.digest):
            return
        model = self._registry.load(champion)
        model.bundle.warm([len(self._settings.symbols)])
        self._models = (model, *self._models[-1:])
        self.state.model_loaded = True
        record = model.record
        event(
            _LOG,
            logging.INFO,
            "model_loaded",
            f"{record.model_name} version {record.model_version} is approved and loaded",
            model_version=record.model_version,
            bundle_digest=record.bundle_digest,
            decided_by=record.decided_by,
        )

    def _refresh_snapshot(self) -> None:
        newest, *served = self._models
        try:
            self.state.snapshot = self._snapshot(newest)
        except Exception:
            for model in served:
                self.state.snapshot = self._snapshot(model)
            raise
        self._models = (newest,)

    def _snapshot(self, model: ApprovedModel) -> Snapshot:
        now = self._settings.clock()
        rows = self._features.read(self._settings.symbols, model.bundle.manifest, now)
        return build_snapshot(model, rows, now)

    def _attempt(self, part: Part, refresh: Callable[[], None]) -> None:
        try:
            refresh()
        except ServingError as error:
            self._failed(part, error, error.kind, error.summary)
        except Exception as error:  # noqa: BLE001 - the thread's end would freeze what is served
            self._failed(part, error, ServingError.kind, ServingError.summary)
        else:
            self.state.refreshed[part] = time.monotonic()
            self.state.problems.pop(part, None)
            if self._logged.pop(part, None) is not None:
                event(_LOG, logging.INFO, "recovered", f"{part} current again", part=part)

    def _failed(self, part: Part, error: Exception, kind: str, summary: str) -> None:
        self._metrics.refresh_errors.labels(kind).inc()
        self.state.problems[part] = summary
        if self._logged.get(part) == str(error):
            return
        self._logged[part] = str(error)
        trace = None if isinstance(error, ServingError) else error
        event(_LOG, logging.ERROR, "error", str(error), error_type=kind, part=part, exc_info=trace)
