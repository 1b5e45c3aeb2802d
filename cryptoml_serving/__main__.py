"""``python -m cryptoml_serving``: serve over HTTP until told to stop."""

from __future__ import annotations

import socket
import sys

from granian import Granian
from granian.constants import Interfaces

from cryptoml_serving.contract.settings import SettingsError
from cryptoml_serving.settings import ServingSettings
from cryptoml_serving.telemetry import logging_configuration

_UNUSABLE_SETTINGS = 2
#: Longest wait for requests in flight when told to stop.
_DRAIN_SECONDS = 10


def main() -> int:
    """Serve with one worker; returns the exit status."""
    try:
        settings = ServingSettings.load()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return _UNUSABLE_SETTINGS
    if not _free(settings.serving_host, settings.serving_port):
        sys.stderr.write(
            f"CRYPTOML_SERVING_PORT={settings.serving_port}: {settings.serving_host} already has "
            "a listener on this port, or is no address of this machine\n"
        )
        return _UNUSABLE_SETTINGS
    Granian(
        "cryptoml_serving.app:application",
        factory=True,
        address=settings.serving_host,
        port=settings.serving_port,
        interface=Interfaces.ASGI,
        workers=1,
        workers_kill_timeout=_DRAIN_SECONDS,
        websockets=False,
        log_dictconfig=logging_configuration(),
    ).serve()
    return 0


def _free(host: str, port: int) -> bool:
    """Whether nothing listens there. The server itself would share the port without a word."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


if __name__ == "__main__":
    sys.exit(main())
