"""The admin routes' own small server, in a thread of the worker."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Self

from cryptoml_serving.api.admin import admin_app
from cryptoml_serving.security.sockets import admin_ports, bind, oldest_tls
from cryptoml_serving.telemetry import event

if TYPE_CHECKING:
    import socket

    import uvicorn

    from cryptoml_serving.api.service import Service

_LOG = logging.getLogger(__name__)
_STOP_SECONDS = 2.0
#: Time between two tries where every port is taken: by a worker that is about to end.
_RETRY_SECONDS = 0.5
#: Requests at a time; who runs the service is not many.
_MOST_AT_ONCE = 32


class AdminListener:
    """Serves the admin routes of one worker.

    Each worker takes the first port that is free, of as many as there are workers: which one it is
    says its log line ``admin_listening``. The server is another than that of callers, so that the
    admin routes answer while all of its connections are taken.
    """

    def __init__(self, service: Service) -> None:
        """Listen on nothing yet."""
        self._service = service
        self._settings = service.settings
        self._server: uvicorn.Server | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="admin", daemon=True)

    @classmethod
    def of(cls, service: Service) -> Self | None:
        """The listener that the settings ask for; none where they want no admin routes."""
        return cls(service) if service.settings.serving_admin_port else None

    def start(self) -> None:
        """Begin to listen, in the background."""
        self._thread.start()

    def stop(self) -> None:
        """End the server, and wait a little for it."""
        self._stop.set()
        if self._server is not None:
            self._server.should_exit = True
        self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        try:
            listener = self._bind()
            if listener is not None:
                with listener:
                    self._serve(listener)
        except Exception as error:  # noqa: BLE001 - the thread's end: callers go on being served
            message = f"the admin routes ended: {error}"
            event(_LOG, logging.ERROR, "error", message, exc_info=error, error_type="admin")

    def _serve(self, listener: socket.socket) -> None:
        # Takes 0.2 s to import, which nobody has to wait for.
        import uvicorn  # noqa: PLC0415

        settings = self._settings
        config = uvicorn.Config(
            admin_app(self._service),
            lifespan="off",
            # Otherwise it hands over connections that the routes know nothing of.
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            # Anybody can name another address in a header.
            proxy_headers=False,
            limit_concurrency=_MOST_AT_ONCE,
            timeout_graceful_shutdown=1,
            ssl_certfile=settings.serving_tls_certificate,
            ssl_keyfile=settings.serving_tls_key,
        )
        config.load()
        if config.ssl is not None:
            config.ssl.minimum_version = oldest_tls(settings)
        self._server = uvicorn.Server(config)
        if self._stop.is_set():
            return
        host, port = listener.getsockname()[:2]
        event(_LOG, logging.INFO, "admin_listening", f"admin routes on {host}:{port}", port=port)
        self._server.run(sockets=[listener])

    def _bind(self) -> socket.socket | None:
        """A socket on the first free port; none when told to stop before there was one."""
        ports = admin_ports(self._settings)
        told = False
        while not self._stop.is_set():
            for port in ports:
                if (found := bind(self._settings.serving_admin_host, port)) is not None:
                    return found
            if not told:
                message = f"CRYPTOML_SERVING_ADMIN_PORT: {ports[0]} to {ports[-1]} are all taken"
                event(_LOG, logging.WARNING, "admin_waits", message)
                told = True
            self._stop.wait(_RETRY_SECONDS)
        return None
