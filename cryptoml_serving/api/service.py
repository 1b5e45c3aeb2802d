"""What the routes reach for: one object per application."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

if TYPE_CHECKING:
    from cryptoml_serving.runtime.refresher import State
    from cryptoml_serving.settings import ServingSettings
    from cryptoml_serving.telemetry import Metrics


@dataclass(frozen=True)
class Service:
    """Settings, counters and the state that is answered from."""

    settings: ServingSettings
    metrics: Metrics
    state: State

    def retry_after(self) -> dict[str, str]:
        """The header that says when something may have changed: at the next refresh."""
        seconds = math.ceil(self.settings.serving_refresh.total_seconds())
        return {"Retry-After": str(seconds)}


async def current_service(request: Request) -> Service:
    """The service of the application that got this request."""
    service: Service = request.app.state.service
    return service


CurrentService = Annotated[Service, Depends(current_service)]
