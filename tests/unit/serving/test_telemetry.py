from __future__ import annotations

import json
import logging
import logging.config
from datetime import UTC, datetime
from uuid import UUID

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cryptoml_serving.telemetry import JsonFormatter, Metrics, event, logging_configuration


def test_an_event_is_one_line_of_json(caplog: pytest.LogCaptureFixture) -> None:
    at = datetime(2024, 3, 1, tzinfo=UTC)
    logger = logging.getLogger("cryptoml_serving.test")
    with caplog.at_level(logging.INFO):
        event(logger, logging.INFO, "prediction", "line\nbreak", at=at, name_of=UUID(int=7))
    text = JsonFormatter().format(caplog.records[0])
    assert "\n" not in text
    line = json.loads(text)
    assert line["event"] == "prediction"
    assert line["message"] == "line\nbreak"
    assert line["level"] == "info"
    assert line["at"] == "2024-03-01T00:00:00+00:00"
    assert line["name_of"] == str(UUID(int=7))
    assert datetime.fromisoformat(line["time"]).tzinfo is not None


def test_lines_of_other_libraries_are_json_too() -> None:
    record = logging.LogRecord("feast", logging.WARNING, __file__, 1, "%s left", (3,), None)
    line = json.loads(JsonFormatter().format(record))
    assert (line["event"], line["message"]) == ("log", "3 left")


def test_logging_configuration_is_accepted() -> None:
    root, handlers = logging.getLogger(), list(logging.getLogger().handlers)
    level = root.level
    try:
        logging.config.dictConfig(logging_configuration())
        assert isinstance(root.handlers[0].formatter, JsonFormatter)
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def test_metrics_of_two_services_do_not_meet() -> None:
    one, other = Metrics("a"), Metrics("b")
    one.tally.requested("BTC/USDT")
    labels = {"model_name": "a", "symbol": "BTC/USDT"}
    assert one.registry.get_sample_value("prediction_requests_total", labels) == 1
    assert b"BTC/USDT" not in other.exposition()


def test_what_predictions_count_reads_as_any_other_metric() -> None:
    metrics = Metrics("m")
    for seconds in (20e-6, 60e-6, 60e-6, 9.0):
        metrics.tally.took(seconds)
    metrics.tally.answered("7", "champion")
    families = {
        family.name: family
        for family in text_string_to_metric_families(metrics.exposition().decode())
    }
    latency = families["prediction_latency_seconds"]
    assert latency.type == "histogram"
    samples = {(s.name, s.labels.get("le")): s.value for s in latency.samples}
    assert samples["prediction_latency_seconds_bucket", "5e-05"] == 1
    assert samples["prediction_latency_seconds_bucket", "0.0001"] == 3
    assert samples["prediction_latency_seconds_bucket", "1.0"] == 3
    assert samples["prediction_latency_seconds_bucket", "+Inf"] == 4
    assert samples["prediction_latency_seconds_count", None] == 4
    assert samples["prediction_latency_seconds_sum", None] == pytest.approx(9.00014)
    (answer,) = families["prediction_answers"].samples
    assert answer.name == "prediction_answers_total"
    assert answer.labels == {"model_version": "7", "role": "champion"}
