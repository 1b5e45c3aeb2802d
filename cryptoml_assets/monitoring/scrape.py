"""What the inference service says of itself, as plain numbers: its Prometheus metrics.

Each worker of it counts for itself, since it started. What the service did is what all of them
counted, and what it did lately is what that has grown by since an earlier look, as Prometheus'
``increase`` has it: a counter that fell began anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx
from prometheus_client.parser import text_string_to_metric_families

from cryptoml_assets.errors import ServiceMetricsError
from cryptoml_assets.monitoring.workers import Worker, workers
from cryptoml_serving.contract.stores import masked

if TYPE_CHECKING:
    from cryptoml_assets.settings import Settings

_BYTES_PER_MB = 1e6
_MS_PER_SECOND = 1e3
_LATENCY = "prediction_latency_seconds"
_PUBLIC = "CRYPTOML_INFERENCE_URL"


@dataclass(frozen=True)
class Metrics:
    """Samples of one scrape, be it of one worker or of all: (name, labels, value)."""

    samples: tuple[tuple[str, Mapping[str, str], float], ...]

    def total(self, name: str, **labels: str) -> float | None:
        """Sum of the samples of ``name`` that have ``labels``; none where there is no such."""
        found = [value for _, value in self._of(name, labels)]
        return math.fsum(found) if found else None

    def by(self, name: str, label: str, **labels: str) -> dict[str, float]:
        """The samples of ``name`` that have ``labels``, summed by the value of ``label``."""
        sums: dict[str, float] = {}
        for own, value in self._of(name, labels):
            sums[own.get(label, "")] = sums.get(own.get(label, ""), 0.0) + value
        return sums

    def quantile(self, name: str, share: float, **labels: str) -> float | None:
        """Quantile of a histogram, by linear interpolation within its bucket.

        The rule is that of Prometheus' ``histogram_quantile``: what lies past the last finite
        bound is told as that bound.

        Args:
            name: of the histogram, without ``_bucket``.
            share: 0 to 1.
            labels: those of the histograms to put together.

        Returns:
            In the histogram's unit; none where nothing was observed.
        """
        counts = {
            float(bound): count
            for bound, count in self.by(f"{name}_bucket", "le", **labels).items()
        }
        return _quantile(sorted(counts.items()), share)

    def _of(
        self, name: str, labels: Mapping[str, str]
    ) -> Iterable[tuple[Mapping[str, str], float]]:
        for found, own, value in self.samples:
            if found == name and labels.items() <= own.items():
                yield own, value


def _quantile(buckets: list[tuple[float, float]], share: float) -> float | None:
    """Quantile of cumulative ``buckets`` (upper bound, count), sorted, the last one infinite."""
    if not buckets or buckets[-1][1] == 0:
        return None
    rank = share * buckets[-1][1]
    below, counted = 0.0, 0.0
    for bound, count in buckets:
        if count >= rank:
            if math.isinf(bound):
                return below
            inside = count - counted
            return below + (bound - below) * ((rank - counted) / inside if inside else 1.0)
        below, counted = bound, count
    return below


@dataclass(frozen=True)
class Counters:
    """What one worker had counted at one look.

    Attributes:
        started: when it started, seconds since 1970; 0 where it does not say.
        requests: symbols asked for that are served, several in one request among them.
        answered: those of them that got a prediction.
        buckets: cumulative counts of the time to an answer, by upper bound in seconds as written.
    """

    started: float
    requests: float
    answered: float
    buckets: Mapping[str, float]

    @classmethod
    def of(cls, metrics: Metrics) -> Counters:
        """Those of one worker's scrape."""
        return cls(
            started=metrics.total("process_start_time_seconds") or 0.0,
            requests=metrics.total("prediction_requests_total") or 0.0,
            answered=metrics.total("prediction_answers_total") or 0.0,
            buckets=metrics.by(f"{_LATENCY}_bucket", "le"),
        )

    @classmethod
    def read(cls, told: object) -> Counters | None:
        """What :func:`dataclasses.asdict` made of them; none of anything else."""
        try:
            return cls(**told)  # type: ignore[arg-type]
        except TypeError:
            return None

    def since(self, before: Counters | None) -> Counters:
        """What was counted after ``before``; everything where the worker has started since."""
        if before is None or before.started != self.started or before.requests > self.requests:
            return self
        return Counters(
            started=self.started,
            requests=self.requests - before.requests,
            answered=self.answered - before.answered,
            buckets={
                bound: count - before.buckets.get(bound, 0.0)
                for bound, count in self.buckets.items()
            },
        )


@dataclass(frozen=True)
class ChallengerFigures:
    """How a version does that is scored beside the champion, in one role.

    Attributes:
        predictions: those it made.
        errors: by type: failures to load it, and answers that are no numbers.
        error_rate: share of its predictions that failed, 0 to 1; 1 where it never made any but
            failed; none where nothing was asked of it.
        latency_ms: 95th percentile of its time for all symbols, milliseconds.
    """

    predictions: float
    errors: Mapping[str, float]
    error_rate: float | None
    latency_ms: float | None


@dataclass(frozen=True)
class ServiceFigures:
    """How the inference service does; a figure it does not tell is none.

    Attributes:
        requests: requests for a served symbol since the look before.
        error_rate: share of them that got no prediction, 0 to 1.
        errors: answers with an error by type since the workers started, the callers' own mistakes
            among them.
        latency_ms: 50th, 95th and 99th percentile of the time to an answer since the look before,
            milliseconds.
        memory_mb: resident memory of all workers, megabytes of 10^6 bytes.
        metrics: everything that was scraped, of all workers.
        counters: of each worker by its address, for the next look.
    """

    requests: float
    error_rate: float | None
    errors: Mapping[str, float]
    latency_ms: Mapping[int, float | None]
    memory_mb: float | None
    metrics: Metrics
    counters: Mapping[str, Counters]

    def challenger(self, model_version: str, role: str) -> ChallengerFigures:
        """How a challenger does in ``role``, shadow or canary."""
        labels = {"model_version": model_version, "role": role}
        predictions = self.metrics.total("challenger_predictions_total", **labels) or 0.0
        errors = self.metrics.by("challenger_errors_total", "error_type", **labels)
        failed = math.fsum(errors.values())
        asked = predictions + failed
        seconds = self.metrics.quantile("model_predict_seconds", 0.95, **labels)
        return ChallengerFigures(
            predictions=predictions,
            errors=errors,
            error_rate=failed / asked if asked else None,
            latency_ms=None if seconds is None else seconds * _MS_PER_SECOND,
        )


def parse(text: str) -> Metrics:
    """Read Prometheus' text format.

    Raises:
        ValueError: it is something else.
    """
    return Metrics(
        tuple(
            (sample.name, sample.labels, float(sample.value))
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        )
    )


def counters_of(told: object) -> dict[str, Counters]:
    """By address, what ``ServiceFigures.counters`` was written as; none of anything else."""
    if not isinstance(told, Mapping):
        return {}
    read = {str(address): Counters.read(each) for address, each in told.items()}
    return {address: each for address, each in read.items() if each is not None}


def figures(
    workers: Mapping[str, Metrics], before: Mapping[str, Counters] | None = None
) -> ServiceFigures:
    """The figures of one scrape of every worker of the inference service.

    A request counts as failed where it was not answered with a prediction: what callers got wrong,
    as a symbol that is not served, is no request for a served symbol.

    Args:
        workers: what each told, by its address.
        before: of the look from which on to count; of a worker that is not in it, all counts.
    """
    metrics = Metrics(tuple(sample for each in workers.values() for sample in each.samples))
    now = {address: Counters.of(each) for address, each in workers.items()}
    before = before or {}
    lately = [each.since(before.get(address)) for address, each in now.items()]
    requests = math.fsum(each.requests for each in lately)
    unanswered = max(requests - math.fsum(each.answered for each in lately), 0.0)
    times: dict[float, float] = {}
    for each in lately:
        for bound, count in each.buckets.items():
            times[float(bound)] = times.get(float(bound), 0.0) + count
    seconds = {percent: _quantile(sorted(times.items()), percent / 100) for percent in (50, 95, 99)}
    memory = metrics.total("process_resident_memory_bytes")
    return ServiceFigures(
        requests=requests,
        # A request under way is counted already and answered later.
        error_rate=unanswered / requests if requests else None,
        errors=metrics.by("prediction_errors_total", "error_type"),
        latency_ms={
            percent: None if value is None else value * _MS_PER_SECOND
            for percent, value in seconds.items()
        },
        memory_mb=None if memory is None else memory / _BYTES_PER_MB,
        metrics=metrics,
        counters=now,
    )


def look(configured: Settings, before: Mapping[str, Counters] | None = None) -> ServiceFigures:
    """How the inference service does, all workers of it.

    They share the public port, where one or the other answers; each has an admin port of its own.

    Args:
        configured: where the workers are. The public port is read where no admin port is known.
        before: as ``figures`` has it.

    Raises:
        ServiceMetricsError: as ``scrape`` has it.
    """
    key, authority = configured.inference_key, configured.inference_ca_file
    if configured.inference_admin_urls:
        asked = workers(configured.inference_admin_urls, authority)
        return _scrape(asked, 5.0, before, key, "CRYPTOML_INFERENCE_ADMIN_URLS")
    return _scrape(
        [Worker(configured.inference_url, authority=authority)], 5.0, before, key, _PUBLIC
    )


def scrape(
    url: str,
    timeout: float = 5.0,
    before: Mapping[str, Counters] | None = None,
    key: str = "",
) -> ServiceFigures:
    """Read the metrics of one worker of the inference service.

    Args:
        url: of the worker, CRYPTOML_INFERENCE_URL.
        timeout: longest wait, seconds.
        before: as ``figures`` has it.
        key: API key of the service; none is sent when empty.

    Raises:
        ServiceMetricsError: it does not answer, or not with metrics. Passwords are not in it.
    """
    return _scrape([Worker(url)], timeout, before, key, _PUBLIC)


def _scrape(
    asked: list[Worker],
    timeout: float,
    before: Mapping[str, Counters] | None,
    key: str,
    setting: str,
) -> ServiceFigures:
    """Read the metrics of workers and add them up; ``setting`` named their addresses.

    Raises:
        ServiceMetricsError: one does not answer, or not with metrics: what the others counted is
            not what the service did.
    """
    told = {masked(each.url): _told(each, timeout, key=key, setting=setting) for each in asked}
    return figures(told, before)


def _told(worker: Worker, timeout: float, *, key: str, setting: str) -> Metrics:
    try:
        answer = worker.ask("GET", "/metrics", key=key, timeout=timeout)
        metrics = parse(answer.text)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        why = f"tells no metrics: {type(error).__name__}: {error}"
    except ValueError as error:
        why = f"answers with something that is no Prometheus metrics: {error}"
    else:
        if metrics.total("service_ready") is not None:
            return metrics
        why = "is no inference service of this platform"
    # Not as the cause of the error: its own text can hold the password.
    address = f"{worker.url.rstrip('/')}/metrics"
    raise ServiceMetricsError(masked(f"{setting}: {address} {why}"))
