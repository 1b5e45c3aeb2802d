"""The error budget: how many requests may fail over a while. Pure but for one query."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from cryptoml_assets.operations.smoke.checks import Check
from cryptoml_assets.operations.smoke.service import beyond
from cryptoml_serving.contract.settings import SettingsError
from cryptoml_serving.contract.stores import masked

#: Types of errors that are the service's own fault, not a caller's.
OWN_ERRORS = (
    "deadline",
    "internal",
    "issuer-unread",
    "no-prediction",
    "not-ready",
    "overloaded",
    "stale-features",
    "http-5..",
)
_TIMEOUT_SECONDS = 10.0


@dataclass
class Tally:
    """Requests of the smoke test itself.

    Attributes:
        failed: how often each reason was seen.
        seconds: that each answered request took.
    """

    failed: dict[str, int] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)

    def add(self, trouble: str | None, seconds: float) -> None:
        """Count one request; no trouble: it was answered as it should be."""
        if trouble is None:
            self.seconds.append(seconds)
        else:
            self.failed[trouble] = self.failed.get(trouble, 0) + 1

    @property
    def failures(self) -> int:
        """Requests that failed."""
        return sum(self.failed.values())

    @property
    def asked(self) -> int:
        """Requests in all."""
        return len(self.seconds) + self.failures

    def spent(self, budget: float, planned: int) -> bool:
        """Whether the budget of ``planned`` requests is spent, whatever the rest of them brings."""
        return self.failures > budget * max(planned, self.asked)

    def check(self, budget: float) -> Check:
        """Whether the requests kept within the budget, a share from 0 to 1."""
        if not self.asked:
            return Check("error budget", well=False, seen="nothing was asked")
        share = self.failures / self.asked
        seen = (
            f"{self.failures} of {self.asked} requests failed, {share:.2%} of at most {budget:.2%}"
        )
        if self.seconds:
            slow = sorted(self.seconds)[math.ceil(0.95 * len(self.seconds)) - 1]
            seen += f"; 95 of 100 answered within {slow * 1000:.0f} ms"
        if self.failed:
            seen += f"; most often: {max(self.failed, key=lambda why: self.failed[why])}"
        return Check("error budget", share <= budget, seen)


@dataclass(frozen=True)
class Prometheus:
    """Where the requests of all callers are counted.

    Attributes:
        url: of its HTTP API.
        matching: label matchers that pick the deployment, e.g. ``namespace="production"``.
    """

    url: str
    matching: str = ""

    def check(self, budget: float, seconds: float) -> Check:
        """Whether the callers of the last ``seconds`` kept within the budget.

        Raises:
            SettingsError: it does not answer the query; what was not measured is not well.
        """
        errors = f'error_type=~"{"|".join(OWN_ERRORS)}"'
        answered = self._grown("prediction_latency_seconds_count", seconds)
        return callers(answered, self._grown("prediction_errors_total", seconds, errors), budget)

    def _grown(self, counter: str, seconds: float, *matchers: str) -> float:
        """What all series of a counter have grown by.

        Not ``increase``: that misses what a series begins with, and a deployment begins series.
        """
        window = f"{math.ceil(seconds)}s"
        series = f"{counter}{{{','.join(filter(None, (self.matching, *matchers)))}}}"
        newest = f"max_over_time({series}[{window}])"
        return self._value(f"sum(({newest} - ({series} offset {window})) or {newest})")

    def _value(self, query: str) -> float:
        address = f"{self.url.rstrip('/')}/api/v1/query"
        try:
            reply = httpx.get(
                address,
                params={"query": query},
                timeout=_TIMEOUT_SECONDS,
                trust_env=beyond(self.url),
            )
            told: Any = reply.json()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            why = f"{type(error).__name__}: {error}"
            raise SettingsError(masked(f"--prometheus {self.url}: {why}")) from None
        if not isinstance(told, Mapping) or told.get("status") != "success":
            why = told.get("error", reply.text) if isinstance(told, Mapping) else reply.text
            message = f"--prometheus {self.url}: {query} was answered: {why}"
            raise SettingsError(masked(message))
        samples = told["data"]["result"]
        return float(samples[0]["value"][1]) if samples else 0.0


def callers(answered: float, failed: float, budget: float) -> Check:
    """Whether all callers together kept within the budget.

    The smoke test is one of them: where nothing was counted, the wrong thing was looked at.

    Args:
        answered: requests that got a prediction.
        failed: requests that got an error which is not their own.
        budget: largest share that may fail, 0 to 1.
    """
    asked = answered + failed
    if not asked > 0:
        seen = "Prometheus counted no request: does it scrape this service, as --matching says?"
        return Check("callers", well=False, seen=seen)
    share = failed / asked
    seen = f"{failed:.0f} of {asked:.0f} requests failed, {share:.2%} of at most {budget:.2%}"
    return Check("callers", share <= budget, seen)
