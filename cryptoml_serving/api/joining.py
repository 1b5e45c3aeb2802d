"""When one of several workers begins to take its share of the connections."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptoml_serving.api.service import Service

#: Longest wait: where nothing can be served, that is told rather than nothing.
_MOST_SECONDS = 20.0
_LOOK_SECONDS = 0.05


async def ready_to_join(service: Service, most: float = _MOST_SECONDS) -> None:
    """Wait until this worker has something to answer, where others may answer meanwhile.

    The kernel spreads connections over all workers that listen. One that took the place of a
    worker that died would answer 503 to its share while it loads its models.

    Args:
        service: of the worker.
        most: longest wait in seconds.
    """
    if service.settings.serving_workers == 1:
        # Alone it listens at once, so that liveness is told while the models load.
        return
    deadline = time.monotonic() + most
    # The state is written by threads, which set no event of this loop.
    while not service.state.ready and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(_LOOK_SECONDS)
