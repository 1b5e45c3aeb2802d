"""What the service tells about itself: Prometheus metrics and JSON log lines."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client import Metric

    from cryptoml_serving.runtime.refresher import State

_LATENCY_BUCKETS = (
    *(50e-6, 100e-6, 250e-6, 500e-6),
    *(1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 1.0),
)


class Metrics:
    """The service's counters, in a registry of their own.

    Every label takes few values: symbols are those of the settings, errors those of the code.
    """

    def __init__(self, model_name: str) -> None:
        """Create them at zero, for one registered model."""
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._model_name = model_name
        self._requests = Counter(
            "prediction_requests_total",
            "Requests for a prediction of a served symbol, whatever came of them",
            ["model_name", "symbol"],
            registry=self.registry,
        )
        self._latency = Histogram(
            "prediction_latency_seconds",
            "Time from the parsed request to the answer",
            ["model_name"],
            buckets=_LATENCY_BUCKETS,
            registry=self.registry,
        ).labels(model_name)
        self.errors = Counter(
            "prediction_errors_total",
            "Requests answered with an error, by type",
            ["error_type"],
            registry=self.registry,
        )
        self.refresh_errors = Counter(
            "refresh_errors_total",
            "Failed looks at the registry or the feature store, by type",
            ["error_type"],
            registry=self.registry,
        )

    def requested(self, symbol: str) -> None:
        """Count a request for a served symbol."""
        self._requests.labels(self._model_name, symbol).inc()

    def answered(self, seconds: float) -> None:
        """Record how long a prediction took to answer."""
        self._latency.observe(seconds)

    def observe(self, state: State, clock: Callable[[], datetime]) -> None:
        """Add gauges that are read from the state when scraped."""
        self.registry.register(_StateCollector(state, clock))

    def exposition(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)


class _StateCollector(Collector):
    """Gauges of what is served right now; nothing is kept beside the state itself."""

    def __init__(self, state: State, clock: Callable[[], datetime]) -> None:
        self._state = state
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """Read the state once."""
        state, snapshot = self._state, self._state.snapshot
        yield GaugeMetricFamily(
            "service_ready", "1 once predictions are served", float(state.ready)
        )
        ages = GaugeMetricFamily(
            "refresh_age_seconds",
            "Time since the model or the features were last found or made current",
            labels=["part"],
        )
        for part in ("model", "features"):
            if (age := state.age(part)) is not None:
                ages.add_metric([part], age)
        yield ages
        feature_ages = GaugeMetricFamily(
            "feature_age_seconds", "Age of the features served", labels=["symbol"]
        )
        model = GaugeMetricFamily(
            "model_info",
            "1 for the model served",
            labels=["model_name", "model_version", "bundle_digest"],
        )
        if snapshot is not None:
            now = self._clock()
            for symbol, prediction in snapshot.predictions.items():
                age = (now - prediction.feature_timestamp).total_seconds()
                feature_ages.add_metric([symbol], age)
            record = snapshot.model.record
            model.add_metric([record.model_name, record.model_version, record.bundle_digest], 1.0)
        yield feature_ages
        yield model


class JsonFormatter(logging.Formatter):
    """One JSON object a line, with the record's event name and fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Render a record; a traceback becomes one string."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": getattr(record, "event", "log"),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def event(
    logger: logging.Logger,
    level: int,
    name: str,
    message: str,
    *,
    exc_info: BaseException | None = None,
    **fields: Any,
) -> None:
    """Log one event.

    Args:
        logger: the module's own.
        level: of the standard library.
        name: what happened: prediction, error, model_loaded, recovered.
        message: for a person.
        exc_info: an exception whose traceback to add.
        fields: further members of the JSON object.
    """
    logger.log(level, message, exc_info=exc_info, extra={"event": name, "fields": fields})


def logging_configuration() -> dict[str, Any]:
    """Everything to stderr as JSON, for ``logging.config.dictConfig``; the server's lines too."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": f"{__name__}.{JsonFormatter.__name__}"}},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "formatter": "json",
                "stream": "ext://sys.stderr",
            }
        },
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {
            "cryptoml_serving": {"level": "INFO"},
            "_granian": {"level": "INFO"},
        },
    }
