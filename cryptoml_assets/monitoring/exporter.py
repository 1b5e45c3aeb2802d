"""What the asset graph tells Prometheus: figures of the lake and of Dagster, read when scraped.

A table that does not exist has no samples, and neither has a report that is out of date
(:mod:`~cryptoml_assets.monitoring.stale`): a gauge is of now. A table that cannot be read has none
either, and is counted in ``exporter_errors_total``; the others are told all the same. Labels take
few values: symbols, features and windows of the tables, pipelines of the code, classes of errors.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import polars as pl
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from cryptoml_assets.monitoring.stale import stale

if TYPE_CHECKING:
    from datetime import datetime

    from prometheus_client import Metric

    from cryptoml_assets.deployment.standing import Standing
    from cryptoml_assets.resources.lake import Lake

_LOG = logging.getLogger(__name__)
#: Seconds for which what was read is told again: several scrapers cost no more than one.
_KEEP_SECONDS = 5.0
#: Most samples of one source; more would be a label that takes values without end.
_MOST_SAMPLES = 50_000


class TooManySamplesError(Exception):
    """A source has more samples than a monitoring system should be given."""


class Sample(NamedTuple):
    """One number: the metric, the values of its labels in order, and how much."""

    metric: str
    labels: tuple[str, ...]
    value: float


Source = Callable[[], Iterable[Sample]]


@dataclass(frozen=True)
class Described:
    """What a metric means.

    Attributes:
        kind: a gauge, or a counter that only grows while the process lives.
        meaning: for a person, with the unit.
        labels: names of its labels.
    """

    kind: Literal["gauge", "counter"]
    meaning: str
    labels: tuple[str, ...]


_OF_WINDOW = ("model_name", "time_window")
#: Every metric of the asset graph. The label of a pipeline cannot be ``job``: Prometheus itself
#: writes that one.
METRICS: Mapping[str, Described] = {
    "model_accuracy": Described(
        "gauge", "Share of the champion's directions that came true, 0 to 1", _OF_WINDOW
    ),
    "model_log_loss": Described(
        "gauge", "Mean log loss of the champion's probabilities, nats", _OF_WINDOW
    ),
    "model_coverage": Described(
        "gauge", "Share of outcomes inside the champion's 90 % interval, 0 to 1", _OF_WINDOW
    ),
    "model_mean_squared_error": Described(
        "gauge", "Mean squared error of the champion's expected log return", _OF_WINDOW
    ),
    "model_outcomes": Described(
        "gauge", "Predictions of the champion whose outcome is known", _OF_WINDOW
    ),
    "model_promised_accuracy": Described(
        "gauge", "Accuracy that the champion had out of sample when it was approved", _OF_WINDOW
    ),
    "model_below_promise": Described(
        "gauge",
        "1 where the champion is significantly worse than promised, else 0; none where not judged",
        _OF_WINDOW,
    ),
    "trading_pnl_usd": Described(
        "gauge",
        "Profit and loss after costs of following the predictions of a role, US dollars",
        ("strategy", "symbol"),
    ),
    "feature_drift_score": Described(
        "gauge",
        "Population stability index of a model input against the champion's training rows",
        ("feature_name", "symbol"),
    ),
    "prediction_drift_score": Described(
        "gauge",
        "Population stability index of a model output against its out-of-sample answers",
        ("output_name", "symbol"),
    ),
    "drifted_pairs": Described(
        "gauge", "Pairs of feature and symbol, or of output and symbol, that drifted", ("kind",)
    ),
    "unjudged_pairs": Described(
        "gauge", "Pairs that too few rows allowed no judgement of", ("kind",)
    ),
    "gate_verdicts_total": Described(
        "counter", "Candidates that the gate judged", ("model_name", "verdict")
    ),
    "gate_failures_total": Described(
        "counter", "Criteria of the gate that candidates did not pass", ("model_name", "criterion")
    ),
    "deployed_model_info": Described(
        "gauge",
        "1 for each version that may serve now, by the newest decision",
        ("model_name", "model_version", "role", "bundle_digest"),
    ),
    "quality_state": Described(
        "gauge",
        "State of a figure of the quality report: 0 healthy, 1 warning, 2 critical, -1 unknown",
        ("metric",),
    ),
    "quality_value": Described("gauge", "Figure of the quality report", ("metric",)),
    "pipeline_runs_total": Described("counter", "Runs that ended, by how", ("pipeline", "status")),
    "pipeline_run_seconds": Described(
        "gauge", "Time that the newest finished run of a pipeline took", ("pipeline",)
    ),
    "pipeline_errors_total": Described(
        "counter", "Failed runs, by the class of the error", ("error_type",)
    ),
    "asset_age_seconds": Described(
        "gauge", "Time since the newest partition of an asset was materialised", ("asset",)
    ),
    "notices_total": Described(
        "counter",
        "Tries to send a notice, by how they ended: sent, failed, refused or expired",
        ("channel", "outcome"),
    ),
    "exporter_errors_total": Described(
        "counter", "Times that a source of these metrics could not be read", ("source",)
    ),
}
_LIVE = {
    "model_accuracy": "accuracy",
    "model_log_loss": "log_loss",
    "model_coverage": "coverage",
    "model_mean_squared_error": "mse",
    "model_promised_accuracy": "promised_accuracy",
}
#: States of the quality report as numbers that a colour can be given.
STATES = {"HEALTHY": 0.0, "WARNING": 1.0, "CRITICAL": 2.0, "UNKNOWN": -1.0}


class GraphCollector(Collector):
    """Reads every source when scraped, at most once in a few seconds."""

    def __init__(
        self,
        sources: Mapping[str, Source],
        *,
        keep: float = _KEEP_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the sources by the names that errors are counted under.

        Args:
            sources: what to read.
            keep: seconds for which what was read is told again.
            clock: seconds of a clock that never goes back.
        """
        self._sources = dict(sources)
        self._keep = keep
        self._clock = clock
        self._errors = dict.fromkeys(sources, 0)
        self._lock = threading.Lock()
        self._read_at: float | None = None
        self._samples: list[Sample] = []

    def collect(self) -> Iterator[Metric]:
        """Every metric of :data:`METRICS`, those without a sample too."""
        with self._lock:
            now = self._clock()
            if self._read_at is None or now - self._read_at >= self._keep:
                self._samples, self._read_at = self._read(), now
            samples = self._samples
        families = {
            name: (CounterMetricFamily if each.kind == "counter" else GaugeMetricFamily)(
                name, each.meaning, labels=each.labels
            )
            for name, each in METRICS.items()
        }
        for sample in samples:
            families[sample.metric].add_metric(sample.labels, sample.value)
        yield from families.values()

    def _read(self) -> list[Sample]:
        samples: list[Sample] = []
        for name, source in self._sources.items():
            try:
                samples += _few(source())
            # A scrape is a boundary: whatever is wrong with one source, the others are told.
            except Exception as error:  # noqa: BLE001
                self._errors[name] += 1
                _LOG.warning("metrics of %s: %s: %s", name, type(error).__name__, error)
        return samples + [
            Sample("exporter_errors_total", (name,), count) for name, count in self._errors.items()
        ]


def _few(samples: Iterable[Sample]) -> list[Sample]:
    kept = list(samples)
    if len(kept) > _MOST_SAMPLES:
        message = f"{len(kept)} samples; at most {_MOST_SAMPLES} are told"
        raise TooManySamplesError(message)
    return kept


def lake_sources(
    lake: Lake, standing: Callable[[], Standing], clock: Callable[[], datetime]
) -> dict[str, Source]:
    """A source for each table that metrics come from, under the table's name.

    Args:
        lake: where the tables are.
        standing: reads and verifies which versions may serve.
        clock: the world's present instant, which tells what is out of date.
    """

    def whole(table: str, told: Callable[[pl.LazyFrame], Iterator[Sample]]) -> Source:
        return lambda: list(told(lake.scan(table))) if lake.exists(table) else ()

    def current(
        table: str,
        told: Callable[[pl.LazyFrame], Iterator[Sample]],
        end: str = "window_end",
    ) -> Source:
        def fresh(rows: pl.LazyFrame) -> Iterator[Sample]:
            ends = rows.select(end).collect()
            return iter(()) if stale(ends, clock(), end) else told(rows)

        return whole(table, fresh)

    return {
        "model_performance": current(
            "model_performance", lambda rows: of_performance(rows, standing().champion_version)
        ),
        "prediction_outcomes": whole("prediction_outcomes", of_outcomes),
        "feature_drift": current(
            "feature_drift", lambda rows: of_drift(rows, "feature", "feature_drift_score")
        ),
        "prediction_drift": current(
            "prediction_drift", lambda rows: of_drift(rows, "output", "prediction_drift_score")
        ),
        "gate_verdicts": whole("gate_verdicts", of_verdicts),
        "quality_report": current("quality_report", of_quality, "reported_at"),
        "deployments": lambda: of_standing(standing()),
    }


def of_performance(rows: pl.LazyFrame, champion: str | None) -> Iterator[Sample]:
    """Live figures, by window, of the version that is champion by the verified decisions.

    Of one that was champion before nothing is told, nor of a promise that nobody could judge.
    """
    own = rows.filter(
        pl.col("role") == "champion", pl.col("symbol") == "all", pl.col("model_version") == champion
    )
    for row in own.collect().iter_rows(named=True):
        labels = (row["model_name"], row["time_window"])
        yield Sample("model_outcomes", labels, row["predictions"])
        if row["p_value"] is not None:
            yield Sample("model_below_promise", labels, float(row["below_promise"]))
        for metric, column in _LIVE.items():
            if row[column] is not None:
                yield Sample(metric, labels, row[column])


def of_outcomes(rows: pl.LazyFrame) -> Iterator[Sample]:
    """Profit and loss of each role and symbol since the first outcome."""
    told = (
        rows.group_by("role", "symbol")
        .agg(pl.col("pnl_usd").sum())
        .sort("role", "symbol")
        .collect()
    )
    for role, symbol, pnl in told.iter_rows():
        yield Sample("trading_pnl_usd", (role, symbol), pnl)


def of_drift(rows: pl.LazyFrame, kind: str, metric: str) -> Iterator[Sample]:
    """The index of each pair that could be judged, how many drifted, and how many could not."""
    report = rows.select("feature", "symbol", "psi", "drifted").collect()
    for feature, symbol, psi, _ in report.filter(pl.col("psi").is_not_null()).iter_rows():
        yield Sample(metric, (feature, symbol), psi)
    yield Sample("drifted_pairs", (kind,), float(report["drifted"].sum()))
    yield Sample("unjudged_pairs", (kind,), float(report["psi"].null_count()))


def of_verdicts(rows: pl.LazyFrame) -> Iterator[Sample]:
    """How many candidates the gate approved and rejected, and for what; rows are only added."""
    verdicts: Counter[tuple[str, str]] = Counter()
    failures: Counter[tuple[str, str]] = Counter()
    for name, approved, criteria in (
        rows.select("model_name", "approved", "criteria").collect().iter_rows()
    ):
        verdicts[name, "approved" if approved else "rejected"] += 1
        failures.update((name, each["name"]) for each in json.loads(criteria) if not each["passed"])
    for labels, count in verdicts.items():
        yield Sample("gate_verdicts_total", labels, count)
    for labels, count in failures.items():
        yield Sample("gate_failures_total", labels, count)


def of_quality(rows: pl.LazyFrame) -> Iterator[Sample]:
    """State and figure of each row of the newest quality report; ``overall`` is one of them."""
    for row in rows.select("metric", "value", "state").collect().iter_rows(named=True):
        yield Sample("quality_state", (row["metric"],), STATES[row["state"]])
        if row["value"] is not None:
            yield Sample("quality_value", (row["metric"],), row["value"])


def of_standing(now: Standing) -> Iterator[Sample]:
    """Each version that may serve, by the verified history of decisions."""
    for entry in now.entries:
        record = entry.record
        labels = (record.model_name, record.model_version, record.role, record.bundle_digest)
        yield Sample("deployed_model_info", labels, 1.0)


def of_notices(counts: Mapping[tuple[str, str], int]) -> Iterator[Sample]:
    """How often sending a notice ended how, by (channel, outcome)."""
    for labels, count in counts.items():
        yield Sample("notices_total", labels, float(count))
