"""The application: routes wired to a runtime that refreshes itself in the background.

Importing this module is quick. MLflow, Feast and JAX are imported by the background thread once
the application starts, so that ``/health`` answers while they load.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from fastapi import FastAPI

from cryptoml_serving.api import (
    docs,
    features,
    models,
    operations,
    page,
    predict,
    predictions,
    problems,
    stream,
)
from cryptoml_serving.api.door import Door
from cryptoml_serving.api.joining import ready_to_join
from cryptoml_serving.api.listener import AdminListener
from cryptoml_serving.api.open_inference import routes as open_inference
from cryptoml_serving.api.openapi import document
from cryptoml_serving.api.service import Service
from cryptoml_serving.runtime.access_log import AccessLog
from cryptoml_serving.runtime.batcher import Batcher
from cryptoml_serving.runtime.chronicle import Chronicle
from cryptoml_serving.runtime.features import OnlineFeatures
from cryptoml_serving.runtime.prediction_log import PredictionLog
from cryptoml_serving.runtime.processes import end_with_parent, take_short_turns
from cryptoml_serving.runtime.refresher import Refresher
from cryptoml_serving.runtime.registry import ModelRegistry
from cryptoml_serving.runtime.state import DRAIN_SIGNAL
from cryptoml_serving.security.guard import Guard
from cryptoml_serving.settings import ServingSettings
from cryptoml_serving.telemetry import Metrics
from cryptoml_serving.tracing import Tracing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from cryptoml_serving.runtime.snapshot import Snapshot

#: Longest wait for what runs beside the requests to end; the server kills the worker after ten.
_STOP_SECONDS = 6.0


def create_app(settings: ServingSettings | None = None) -> Door:
    """Build the application; nothing is loaded before it starts.

    Args:
        settings: those to use; the environment's when absent.

    Raises:
        SettingsError: a variable of the environment, or a file that one names, cannot be used.
    """
    settings = settings or ServingSettings.load()
    metrics = Metrics(settings.model_name)
    log = _prediction_log(settings, metrics)
    refresher = _refresher(settings, metrics, log)
    metrics.observe(refresher.state, settings.clock)
    service = Service(
        settings=settings,
        metrics=metrics,
        state=refresher.state,
        look=refresher.ask,
        guard=Guard.of(settings),
        batcher=Batcher(refresher.state, settings, metrics),
        access_log=AccessLog(metrics),
    )
    chronicle = Chronicle.of(settings, refresher.state, metrics)
    refresher.tell(chronicle.announcer.publish)
    refresher.tell(_Settling())
    tracing = Tracing.of(settings)
    running = _lifespan(_Parts(service, refresher, log, chronicle, tracing))
    return Door(framework(service, chronicle, running), service, tracing)


def framework(
    service: Service,
    chronicle: Chronicle,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]],
) -> FastAPI:
    """Every route but the door's own.

    Args:
        service: what they reach for.
        chronicle: what some of them do besides.
        lifespan: what runs while the application does.
    """
    app = FastAPI(
        title="cryptoml inference",
        version=version("cryptoml"),
        description="Predictions of the latest approved model.",
        lifespan=lifespan,
        # The address of a redirect would be made from whatever Host header the caller sent.
        redirect_slashes=False,
        # FastAPI's documentation pages load their scripts from the internet.
        docs_url=None,
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.service = service
    app.state.chronicle = chronicle
    problems.install(app)
    # The stream's path comes before that of one prediction, which has any name.
    for room in (operations, models, stream, predictions, open_inference, docs, page):
        app.include_router(room.router)
    # FastAPI's own way to extend it.
    app.openapi = document(app, [predict.OPERATION, features.OPERATION])  # type: ignore[method-assign]
    return app


class _Settling:
    """Takes what was loaded at the start out of the garbage collector's sight.

    The libraries leave some million objects that live as long as the process. Going through them
    again and again stops every thread for a tenth of a second each time.
    """

    def __init__(self) -> None:
        self._done = False

    def __call__(self, snapshot: Snapshot) -> None:
        if not self._done and snapshot.model.placement.role == "champion":
            self._done = True
            gc.collect()
            gc.freeze()


@dataclass(frozen=True)
class _Parts:
    """What runs while the application does."""

    service: Service
    refresher: Refresher
    log: PredictionLog | None
    chronicle: Chronicle
    tracing: Tracing | None

    def start(self) -> None:
        self.service.access_log.start()
        if self.log is not None:
            self.log.start()
        self.service.guard.start()
        self.service.batcher.start()
        self.refresher.start()
        self.chronicle.start()

    def stop(self) -> None:
        """End all of it, each beside the others, in less time than the server waits for."""
        self.chronicle.stop()
        self.service.batcher.stop()
        steps = [self._stop_refreshing, self.service.guard.stop]
        if self.tracing is not None:
            steps.append(self.tracing.stop)
        threads = [threading.Thread(target=step, daemon=True) for step in steps]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + _STOP_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self.service.access_log.stop()

    def _stop_refreshing(self) -> None:
        if self.log is not None:
            # At once: whatever hangs below, what was predicted so far is on disk.
            self.log.flush()
        self.refresher.stop()
        if self.log is not None:
            # After the last snapshot was offered.
            self.log.stop()


def _lifespan(parts: _Parts) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        parts.start()
        _drain_at_signal(parts.service)
        admin = AdminListener.of(parts.service)
        if admin is not None:
            admin.start()
        try:
            await ready_to_join(parts.service)
            yield
        finally:
            if admin is not None:
                admin.stop()
            parts.stop()

    return lifespan


def _drain_at_signal(service: Service) -> None:
    """Say at ``/ready`` that this worker is about to stop, once its server tells it."""
    if threading.current_thread() is not threading.main_thread():
        return

    def drain() -> None:
        service.state.draining = True

    asyncio.get_running_loop().add_signal_handler(DRAIN_SIGNAL, drain)


def _prediction_log(settings: ServingSettings, metrics: Metrics) -> PredictionLog | None:
    if not settings.serving_log:
        return None
    log = PredictionLog(
        lake=settings.lake_uri,
        folder=settings.outbox_path,
        queue=settings.serving_log_queue,
        interval=settings.serving_log_interval,
        metrics=metrics,
    )
    metrics.log_pending.set_function(log.pending)
    return log


def _refresher(settings: ServingSettings, metrics: Metrics, log: PredictionLog | None) -> Refresher:
    registry = ModelRegistry(
        address=settings.tracking_address,
        model_name=settings.model_name,
        public_key=settings.public_key_path,
        cache=settings.model_cache_path,
        world=settings.world,
    )

    def features() -> OnlineFeatures:
        return OnlineFeatures(settings.feature_repo, settings.stores)

    return Refresher(settings, registry, features, metrics, log)


def application() -> Door:
    """The application of a server's worker process, which ends when its server does."""
    logging.captureWarnings(capture=True)
    end_with_parent()
    take_short_turns()
    return create_app()
