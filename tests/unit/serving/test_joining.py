from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace
from typing import Any

from cryptoml_serving.api.joining import ready_to_join


def service(workers: int) -> Any:
    settings = SimpleNamespace(serving_workers=workers)
    return SimpleNamespace(settings=settings, state=SimpleNamespace(ready=False))


def seconds(one: Any, most: float) -> float:
    began = time.monotonic()
    asyncio.run(ready_to_join(one, most))
    return time.monotonic() - began


def test_one_of_several_waits_until_it_can_answer() -> None:
    one = service(workers=2)
    threading.Timer(0.2, lambda: setattr(one.state, "ready", True)).start()
    assert 0.2 <= seconds(one, most=20.0) < 10.0


def test_it_does_not_wait_for_ever() -> None:
    assert 0.2 <= seconds(service(workers=2), most=0.2) < 10.0


def test_a_worker_alone_listens_at_once() -> None:
    assert seconds(service(workers=1), most=20.0) < 1.0
