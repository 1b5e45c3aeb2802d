"""The application: routes wired to a runtime that refreshes itself in the background.

Importing this module is quick. MLflow, Feast and JAX are imported by the background thread once
the application starts, so that ``/health`` answers while they load.
"""

from __future__ import annotations

import ctypes
import logging
import signal
import sys
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING

from fastapi import FastAPI

from cryptoml_serving.api import operations, predict, problems
from cryptoml_serving.api.openapi import document
from cryptoml_serving.api.requests import RequestMiddleware
from cryptoml_serving.api.service import Service
from cryptoml_serving.runtime.features import OnlineFeatures
from cryptoml_serving.runtime.refresher import Refresher
from cryptoml_serving.runtime.registry import ModelRegistry
from cryptoml_serving.settings import ServingSettings
from cryptoml_serving.telemetry import Metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

#: ``linux/prctl.h``
_PR_SET_PDEATHSIG = 1


def create_app(settings: ServingSettings | None = None) -> FastAPI:
    """Build the application; nothing is loaded before it starts.

    Args:
        settings: those to use; the environment's when absent.

    Raises:
        SettingsError: a variable of the environment cannot be used.
    """
    settings = settings or ServingSettings.load()
    metrics = Metrics(settings.model_name)
    refresher = _refresher(settings, metrics)
    metrics.observe(refresher.state, settings.clock)

    app = FastAPI(
        title="cryptoml inference",
        version=version("cryptoml"),
        description="Predictions of the latest approved model.",
        lifespan=_lifespan(refresher),
        # The address of a redirect would be made from whatever Host header the caller sent.
        redirect_slashes=False,
        # FastAPI's documentation pages load their scripts from the internet.
        docs_url=None,
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.service = Service(settings, metrics, refresher.state)
    app.add_middleware(RequestMiddleware)
    problems.install(app)
    app.include_router(predict.router)
    app.include_router(operations.router)
    app.openapi = document(app)  # type: ignore[method-assign] # FastAPI's own way to extend it
    return app


def _lifespan(refresher: Refresher) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        refresher.start()
        try:
            yield
        finally:
            refresher.stop()

    return lifespan


def _refresher(settings: ServingSettings, metrics: Metrics) -> Refresher:
    registry = ModelRegistry(
        address=settings.tracking_address,
        model_name=settings.model_name,
        public_key=settings.public_key_path,
        cache=settings.model_cache_path,
        world=settings.world,
    )
    features = OnlineFeatures(settings.feature_repo, settings.stores)
    return Refresher(settings, registry, features, metrics)


def application() -> FastAPI:
    """The application of a server's worker process, which ends when its server does."""
    logging.captureWarnings(capture=True)
    _end_with_parent()
    return create_app()


def _end_with_parent() -> None:
    """Have the kernel stop this process when the server that started it dies.

    A worker left behind by a killed server would keep its port, and answer from another world.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
