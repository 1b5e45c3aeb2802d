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
from cryptoml_sandbox.fault_middleware import FaultMiddleware
from cryptoml_sandbox.faults import FaultSchedule
from cryptoml_sandbox.life import Listings
from cryptoml_sandbox.rate_limit import RateLimit
from cryptoml_sandbox.world import make_world

if TYPE_CHECKING:
    from starlette.requests import Request

    from cryptoml_sandbox.settings import SandboxSettings


def create_app(settings: SandboxSettings) -> Starlette:
    """The world that ``settings`` describe.

    Its clock is ``app.state.clock``, and what goes wrong in it ``app.state.schedule``.

    Raises:
        ReplayError: when the folder to replay cannot be used.
        ValueError: for a setting no world can have.
    """
    world = make_world(settings)
    schedule = FaultSchedule(settings.faults, settings.seed)
    limit = RateLimit(
        settings.rate_limit_weight,
        settings.rate_limit_seconds,
        patience=settings.rate_limit_patience,
        ban_seconds=settings.rate_limit_ban_seconds,
    )
    venue = Venue(
        world.market,
        world.clock,
        schedule,
        listings=Listings(world.market.symbols, settings.listings, schedule),
        limit=limit,
        seed=settings.seed,
    )

    async def healthz(_request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    async def describe(_request: Request) -> JSONResponse:
        return JSONResponse(world.describe(settings))

    async def faults(_request: Request) -> JSONResponse:
        counts = dict(sorted(schedule.counts.items()))
        answer = {"requests": schedule.requests, "counts": counts, "rate_limit": limit.describe()}
        return JSONResponse(answer)

    routes = [
        Route("/healthz", healthz),
        Route("/world", describe),
        Route("/faults", faults),
        *venue.routes(),
        *MetricsApi(world.metrics, world.clock, settings.metrics_lag).routes(),
        *ethereum.routes(settings, world.clock, schedule),
    ]
    app = Starlette(routes=routes, middleware=[Middleware(FaultMiddleware, schedule=schedule)])
    app.state.clock = world.clock
    app.state.schedule = schedule
    return app
