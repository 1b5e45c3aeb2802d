"""A running inference service with its page, its stream and what they read of the lake."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from cryptoml_serving.app import create_app
from cryptoml_serving.runtime.chronicle import Chronicle
from tests.sandbox_server import serve
from tests.serving_client import Client
from tests.serving_world import ServingWorld


@contextlib.contextmanager
def paged(world: ServingWorld, **settings: Any) -> Iterator[tuple[Client, Chronicle]]:
    """Serve a world, and give what its application remembers; the lake is read every 100 ms."""
    usual = {"serving_lake_poll": timedelta(milliseconds=100)}
    door = create_app(world.settings(**{**usual, **settings}))
    with serve(door) as url, Client(base_url=url) as client:
        yield client, door.framework.state.chronicle
