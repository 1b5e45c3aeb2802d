"""The sandbox world as one ASGI application."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.routing import Route

from cryptoml_sandbox import ethereum
from cryptoml_sandbox.binance import Venue
from cryptoml_sandbox.coinmetrics import MetricsApi
from cryptoml_sandbox.faults import FaultMiddleware, FaultSchedule
from cryptoml_sandbox.world import make_world

if TYPE_CHECKING:
    from starlette.requests import Request

    from cryptoml_sandbox.settings import SandboxSettings


def create_app(settings: SandboxSettings) -> Starlette:
    """The world that ``settings`` describe; its clock is ``app.state.clock``.

    Raises:
        ReplayError: when the folder to replay cannot be used.
        ValueError: for a setting no world can have.
    """
    world = make_world(settings)
    schedule = FaultSchedule(settings.faults, settings.seed)

    async def healthz(_request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    async def describe(_request: Request) -> JSONResponse:
        return JSONResponse(world.describe(settings))

    async def faults(_request: Request) -> JSONResponse:
        counts = dict(sorted(schedule.counts.items()))
        return JSONResponse({"requests": schedule.requests, "counts": counts})

    routes = [
        Route("/healthz", healthz),
        Route("/world", describe),
        Route("/faults", faults),
        *Venue(world.market, world.clock, schedule, settings.seed).routes(),
        *MetricsApi(world.metrics, world.clock, settings.metrics_lag).routes(),
        *ethereum.routes(settings, world.clock),
    ]
    app = Starlette(routes=routes, middleware=[Middleware(FaultMiddleware, schedule=schedule)])
    app.state.clock = world.clock
    return app
