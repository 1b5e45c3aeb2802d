"""OpenTelemetry traces: one span a request, sent in the background, and nothing at all when off.

FastAPI can trace itself, but only what reaches it: not ``POST /predict``, which the door answers,
nor what the door refuses. So the span is around the door, and FastAPI's own are off.

Everything else follows the standard variables of OpenTelemetry: ``OTEL_SERVICE_NAME``,
``OTEL_TRACES_SAMPLER``, ``OTEL_EXPORTER_OTLP_HEADERS`` and so on.
"""

from __future__ import annotations

from http import HTTPStatus
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Self

from cryptoml_serving.api import features, predict

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from cryptoml_serving.settings import ServingSettings

_SERVICE = "cryptoml-inference"
#: What probes ask and scrapers read every few seconds tells nothing.
_UNTRACED = frozenset({"/health", "/ready", "/metrics", "/v2/health/live", "/v2/health/ready"})
#: Methods that may name a span; any other word of a caller's would make a name of its own.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
#: The routes that the door answers itself.
_DIRECT = frozenset({predict.PATH, features.PATH})
_REQUEST_ID = b"x-request-id"


class Tracing:
    """Makes spans and sends them."""

    def __init__(self, provider: TracerProvider) -> None:
        """Trace through this provider, which is shut down with it."""
        self._provider = provider
        self._tracer = provider.get_tracer("cryptoml_serving", version("cryptoml"))

    @classmethod
    def of(cls, settings: ServingSettings) -> Self | None:
        """What the settings ask for; none where they name no address.

        Nothing of OpenTelemetry's SDK is imported then.
        """
        if not settings.serving_traces:
            return None
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415 - when on
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import (  # noqa: PLC0415 - when on
            OTELResourceDetector,
            Resource,
        )
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - when on
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - when on

        # What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say comes before this.
        own = {"service.name": _SERVICE, "service.version": version("cryptoml")}
        resource = Resource.create(own).merge(OTELResourceDetector().detect())
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=settings.serving_traces)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        return cls(provider)

    def around(self, app: ASGIApp) -> ASGIApp:
        """The same application with a span around each request that says something."""

        async def traced(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or scope["path"] in _UNTRACED:
                await app(scope, receive, send)
            else:
                await self._trace(app, scope, receive, send)

        return traced

    def stop(self) -> None:
        """Send what is left, for as long as the exporter's patience; blocks meanwhile."""
        self._provider.shutdown()

    async def _trace(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        from opentelemetry import propagate, trace  # noqa: PLC0415 - when on

        carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in _own(scope)}
        span = self._tracer.start_span(
            _method(scope),
            context=propagate.extract(carrier),
            kind=trace.SpanKind.SERVER,
            attributes={
                "http.request.method": _method(scope),
                "url.path": scope["path"],
                "url.scheme": scope.get("scheme", "http"),
            },
        )
        status = 0

        async def tell(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                # Every answer has it, whoever made it.
                for name, value in message["headers"]:
                    if name == _REQUEST_ID:
                        span.set_attribute("cryptoml.request_id", value.decode("latin-1"))
            await send(message)

        try:
            with trace.use_span(span, record_exception=False):
                await app(scope, receive, tell)
        finally:
            _finish(span, scope, status)


def _finish(span: Any, scope: Scope, status: int) -> None:
    from opentelemetry.trace import StatusCode  # noqa: PLC0415 - when on

    if (route := _route(scope)) is not None:
        span.update_name(f"{_method(scope)} {route}")
        span.set_attribute("http.route", route)
    if status:
        span.set_attribute("http.response.status_code", status)
    if not status or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        span.set_status(StatusCode.ERROR)
    span.end()


def _method(scope: Scope) -> str:
    return scope["method"] if scope["method"] in _METHODS else "HTTP"


def _route(scope: Scope) -> str | None:
    """The route's pattern, of which there are few; none where nothing answers that path."""
    if scope["path"] in _DIRECT:
        return str(scope["path"])
    return getattr(scope.get("route"), "path", None)


def _own(scope: Scope) -> list[tuple[bytes, bytes]]:
    """The headers a caller's trace is told in."""
    return [each for each in scope["headers"] if each[0] in {b"traceparent", b"tracestate"}]
