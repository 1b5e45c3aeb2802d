"""What the refresher does when its sources fail; the sources themselves are tested for real."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from cryptoml_serving.runtime.errors import NoChampionError, RegistryUnavailableError
from cryptoml_serving.runtime.refresher import Refresher
from cryptoml_serving.settings import ServingSettings
from cryptoml_serving.telemetry import JsonFormatter, Metrics


class Failing:
    """A registry that raises one error after another, then the last for ever."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    def champion(self) -> None:
        raise self.errors.pop(0) if len(self.errors) > 1 else self.errors[0]


def refresher(registry: Any) -> tuple[Refresher, Metrics]:
    metrics = Metrics("m")
    settings = ServingSettings(serving_registry_poll="1ms")  # type: ignore[arg-type]
    return Refresher(settings, registry, None, metrics), metrics  # type: ignore[arg-type]


def turns(made: Refresher, count: int) -> None:
    for _ in range(count):
        made._next_poll = 0.0
        made.turn()


def test_a_lasting_failure_is_counted_each_time_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made, metrics = refresher(Failing(RegistryUnavailableError("/secret/path is gone")))
    turns(made, 3)
    count = metrics.registry.get_sample_value(
        "refresh_errors_total", {"error_type": "registry_unavailable"}
    )
    assert count == 3
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert made.state.not_ready == RegistryUnavailableError.summary
    assert not made.state.ready


def test_another_failure_is_logged_again(caplog: pytest.LogCaptureFixture) -> None:
    made, _ = refresher(Failing(RegistryUnavailableError("gone"), NoChampionError("none")))
    turns(made, 2)
    assert [record.getMessage() for record in caplog.records] == ["gone", "none"]


def test_an_unexpected_failure_is_survived_and_logged_whole(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made, _ = refresher(Failing(RuntimeError("nobody thought of this")))
    turns(made, 1)
    (record,) = caplog.records
    line = json.loads(JsonFormatter().format(record))
    assert line["event"] == "error"
    assert line["error_type"] == "internal"
    assert "RuntimeError: nobody thought of this" in line["traceback"]
    assert "nobody" not in made.state.not_ready
