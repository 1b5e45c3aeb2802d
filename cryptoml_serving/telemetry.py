"""What the service tells about itself: Prometheus metrics and JSON log lines."""

from __future__ import annotations

import logging
from bisect import bisect_left
from datetime import UTC, datetime
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import orjson
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client import Metric

    from cryptoml_serving.runtime.snapshot import Snapshot
    from cryptoml_serving.runtime.state import State

_LATENCY_BUCKETS = (
    *(50e-6, 100e-6, 250e-6, 500e-6),
    *(1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 1.0),
)


class Metrics:
    """The service's counters, in a registry of their own.

    Every label takes few values: symbols are those of the settings, errors those of the code,
    versions those deployed since the start.
    """

    def __init__(self, model_name: str) -> None:
        """Create them at zero, for one registered model."""
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._model_name = model_name
        self.tally = Tally(model_name)
        self.registry.register(self.tally)
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
        self.access_log_dropped = Counter(
            "access_log_dropped_total",
            "Requests without a line in the log: nobody read it fast enough, or writing it failed",
            registry=self.registry,
        )
        self._count_by_version()
        self._count_log()

    def _count_by_version(self) -> None:
        """What a challenger's promotion or end is decided on, beside its outcomes."""
        labels = ["model_version", "role"]
        self._predict_seconds = Histogram(
            "model_predict_seconds",
            "Time a model takes for the features of all served symbols",
            labels,
            buckets=_LATENCY_BUCKETS,
            registry=self.registry,
        )
        self._challenger_predictions = Counter(
            "challenger_predictions_total",
            "Predictions that challengers made beside the champion, one a symbol and reading",
            labels,
            registry=self.registry,
        )
        self.challenger_errors = Counter(
            "challenger_errors_total",
            "Predictions that challengers failed to make, one a symbol and reading, by type",
            [*labels, "error_type"],
            registry=self.registry,
        )

    def _count_log(self) -> None:
        """What became of the predictions that were to be kept."""
        self.log_written = Counter(
            "prediction_log_written_total",
            "Predictions this service added to the lake",
            registry=self.registry,
        )
        self.log_errors = Counter(
            "prediction_log_errors_total",
            "Failed attempts to put predictions on disk or into the lake; they are tried again",
            registry=self.registry,
        )
        self.log_dropped = Counter(
            "prediction_log_dropped_total",
            "Predictions lost to the log because queue and disk were full",
            registry=self.registry,
        )
        self.log_pending = Gauge(
            "prediction_log_pending",
            "Predictions that wait in memory or on disk for the lake",
            registry=self.registry,
        )

    def predicted(self, snapshot: Snapshot) -> None:
        """Record how long a model took for all symbols."""
        placed = snapshot.model.placement
        self._predict_seconds.labels(placed.model_version, placed.role).observe(
            snapshot.predict_seconds
        )

    def challenged(self, snapshot: Snapshot) -> None:
        """Record what a challenger made of one reading."""
        self.predicted(snapshot)
        version, role = snapshot.model.placement.model_version, snapshot.model.placement.role
        self._challenger_predictions.labels(version, role).inc(len(snapshot.predictions))
        errors = self.challenger_errors.labels(version, role, "no_prediction")
        errors.inc(snapshot.invalid)

    def observe(self, state: State, clock: Callable[[], datetime]) -> None:
        """Add gauges that are read from the state when scraped."""
        self.registry.register(_StateCollector(state, clock))

    def exposition(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)


class Tally(Collector):
    """What ``POST /predict`` counts, without the locks and labels of other counters.

    The loop's thread alone counts; whoever scrapes reads whole numbers. An answer costs some
    twenty microseconds, of which counting in the usual way took three.
    """

    def __init__(self, model_name: str) -> None:
        """Begin at zero, for one registered model."""
        self._model_name = model_name
        self._requests: dict[str, int] = {}
        self._answers: dict[tuple[str, str], int] = {}
        self._buckets = [0] * (len(_LATENCY_BUCKETS) + 1)
        self._seconds = 0.0

    def requested(self, symbol: str) -> None:
        """Count a request for a served symbol."""
        self._requests[symbol] = self._requests.get(symbol, 0) + 1

    def answered(self, version: str, role: str) -> None:
        """Count an answer by the version that made it."""
        key = (version, role)
        self._answers[key] = self._answers.get(key, 0) + 1

    def took(self, seconds: float) -> None:
        """Record the time from the parsed request to the answer."""
        self._buckets[bisect_left(_LATENCY_BUCKETS, seconds)] += 1
        self._seconds += seconds

    def collect(self) -> Iterator[Metric]:
        """What was counted so far."""
        requests = CounterMetricFamily(
            "prediction_requests_total",
            "Requests for a prediction of a served symbol, whatever came of them",
            labels=["model_name", "symbol"],
        )
        for symbol, count in tuple(self._requests.items()):
            requests.add_metric([self._model_name, symbol], count)
        yield requests
        answers = CounterMetricFamily(
            "prediction_answers_total",
            "Predictions answered, by the version that made them",
            labels=["model_version", "role"],
        )
        for key, count in tuple(self._answers.items()):
            answers.add_metric(key, count)
        yield answers
        yield self._latencies()

    def _latencies(self) -> Metric:
        latencies = HistogramMetricFamily(
            "prediction_latency_seconds",
            "Time that POST /predict took, from its whole body to its answer",
            labels=["model_name"],
        )
        bounds = (*map(floatToGoString, _LATENCY_BUCKETS), "+Inf")
        counts = accumulate(self._buckets)
        buckets = list(zip(bounds, counts, strict=True))
        latencies.add_metric([self._model_name], buckets, self._seconds)
        return latencies


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
        yield GaugeMetricFamily(
            "registry_alias_moved",
            "1 while the registry's alias names another version than the signed deployment",
            float(state.alias_moved),
        )
        yield GaugeMetricFamily(
            "champion_not_served",
            "1 while the version that answers is another than the deployed champion",
            float(state.other_answers),
        )
        yield GaugeMetricFamily(
            "registry_from_disk",
            "1 while the deployment served is the one kept on disk, for want of a sound registry",
            float(state.from_disk),
        )
        feature_ages = GaugeMetricFamily(
            "feature_age_seconds", "Age of the features served", labels=["symbol"]
        )
        model = GaugeMetricFamily(
            "model_info",
            "1 for each model that predicts, in its role",
            labels=["model_name", "model_version", "bundle_digest", "role"],
        )
        if snapshot is not None:
            now = self._clock()
            for symbol, prediction in snapshot.predictions.items():
                age = (now - prediction.feature_timestamp).total_seconds()
                feature_ages.add_metric([symbol], age)
        for each in (*(() if snapshot is None else (snapshot,)), *state.challengers):
            record = each.model.record
            values = [record.model_name, record.model_version, record.bundle_digest, record.role]
            model.add_metric(values, 1.0)
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
