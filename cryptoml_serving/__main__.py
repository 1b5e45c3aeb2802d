"""``python -m cryptoml_serving``: serve over HTTP until told to stop."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from granian import Granian
from granian.constants import Interfaces, SSLProtocols

from cryptoml_serving.contract.settings import SettingsError
from cryptoml_serving.runtime.state import DRAIN_SIGNAL
from cryptoml_serving.security.exposure import warn_of_plain_text
from cryptoml_serving.security.guard import Guard
from cryptoml_serving.security.sockets import check_free, check_tls
from cryptoml_serving.settings import ServingSettings
from cryptoml_serving.telemetry import logging_configuration

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

_UNUSABLE_SETTINGS = 2
#: Longest wait for requests in flight when told to stop.
_DRAIN_SECONDS = 10
#: Time between two times that the workers are told of it: one may have begun since.
_TELL_SECONDS = 0.2
_TLS = {"1.2": SSLProtocols.tls12, "1.3": SSLProtocols.tls13}


class DrainingServer(Granian):  # type: ignore[misc,valid-type] # chosen by platform
    """Tells its workers that the end is near, and ends them a while later.

    A connection that comes in the moment in which a server stops listening is cut. So whoever
    spreads the requests has to know before: ``/ready`` says it for as long as ``drain``.
    """

    def __init__(self, *arguments: Any, drain: timedelta, **options: Any) -> None:
        """As any server, with the time from the signal to the end."""
        super().__init__(*arguments, **options)
        self._drain = drain.total_seconds()

    def signal_handler_interrupt(self, *arguments: Any, **options: Any) -> None:
        """Begin to end; at once when told a second time."""
        seconds, self._drain = self._drain, 0.0
        if not seconds:
            super().signal_handler_interrupt(*arguments, **options)
            return
        end = super().signal_handler_interrupt
        threading.Thread(target=self._tell, args=(seconds, end), daemon=True).start()

    def _tell(self, seconds: float, end: Callable[[], None]) -> None:
        """Tell the workers, those too that take the place of others meanwhile; then end them."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            for worker in tuple(self.wrks):
                if worker.is_alive():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(worker.inner.pid, DRAIN_SIGNAL)
            time.sleep(min(left, _TELL_SECONDS))
        end()


def main() -> int:
    """Serve until told to stop; returns the exit status.

    A worker that dies is replaced. One that dies again within seconds ends all: something is wrong
    that another start does not mend.
    """
    try:
        settings = ServingSettings.load()
        # The workers make their own; whatever keeps them from it is told here, once.
        Guard.of(settings)
        check_tls(settings)
        check_free(settings)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return _UNUSABLE_SETTINGS
    server = DrainingServer(
        "cryptoml_serving.app:application",
        factory=True,
        address=settings.serving_host,
        port=settings.serving_port,
        interface=Interfaces.ASGI,
        workers=settings.serving_workers,
        workers_kill_timeout=_DRAIN_SECONDS,
        respawn_failed_workers=True,
        websockets=False,
        ssl_cert=settings.serving_tls_certificate,
        ssl_key=settings.serving_tls_key,
        ssl_protocol_min=_TLS[settings.serving_tls_minimum],
        log_dictconfig=logging_configuration(),
        drain=settings.serving_drain,
    )
    warn_of_plain_text(settings)
    # The workers inherit it: one that is told to drain while it still imports does not die of it.
    signal.signal(DRAIN_SIGNAL, signal.SIG_IGN)
    server.serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
