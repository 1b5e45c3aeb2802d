"""What the routes reach for: one object per application."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

from cryptoml_serving.contract.settings import format_duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptoml_serving.runtime.access_log import AccessLog
    from cryptoml_serving.runtime.answers import Answer
    from cryptoml_serving.runtime.batcher import Batcher
    from cryptoml_serving.runtime.state import State
    from cryptoml_serving.security.guard import Guard
    from cryptoml_serving.settings import ServingSettings
    from cryptoml_serving.telemetry import Metrics


@dataclass(frozen=True)
class Service:
    """Settings, counters and the state that is answered from.

    Attributes:
        settings: of the process.
        metrics: its counters.
        state: what is answered from.
        look: asks for a look at the registry, without waiting for it.
        guard: says who may ask, and how often.
        batcher: predicts rows that callers send.
        access_log: gets a line for every request.
        symbols: those served.
        most_age: of features that are served, in seconds.
        now: the world's POSIX second; that of the machine, where nothing sets another clock.
    """

    settings: ServingSettings
    metrics: Metrics
    state: State
    look: Callable[[], None]
    guard: Guard
    batcher: Batcher
    access_log: AccessLog
    symbols: frozenset[str] = field(init=False)
    most_age: float = field(init=False)
    now: Callable[[], float] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "symbols", frozenset(self.settings.symbols))
        age = self.settings.serving_max_feature_age.total_seconds()
        object.__setattr__(self, "most_age", age)
        moved = self.settings.now is not None or self.settings.clock_file is not None
        now = (lambda: self.settings.clock().timestamp()) if moved else time.time
        object.__setattr__(self, "now", now)

    def why_stale(self, answer: Answer, age: float) -> str:
        """Why an answer whose features are older than ``most_age`` is not given, for callers.

        Args:
            answer: of a symbol.
            age: of its features, in seconds.
        """
        limit = format_duration(self.settings.serving_max_feature_age)
        instant = answer.prediction.feature_timestamp.isoformat()
        return f"the features are of {instant}, {age:.0f} s old; served up to {limit}"

    def retry_after(self) -> dict[str, str]:
        """The header that says when something may have changed: at the next refresh."""
        seconds = math.ceil(self.settings.serving_refresh.total_seconds())
        return {"Retry-After": str(seconds)}


async def current_service(request: Request) -> Service:
    """The service of the application that got this request."""
    service: Service = request.app.state.service
    return service


CurrentService = Annotated[Service, Depends(current_service)]
