from __future__ import annotations

import io
import json
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import pytest

from cryptoml_serving.contract.prediction import Prediction
from cryptoml_serving.runtime.access_log import AccessLog, Answered, Requested
from cryptoml_serving.runtime.answers import Answer
from cryptoml_serving.telemetry import Metrics
from tests.waiting import until

MADE = datetime(2024, 3, 1, 12, tzinfo=UTC)
PREDICTION = Prediction(
    symbol="BTC/USDT",
    expected_return=-0.001,
    lower=-0.01,
    upper=0.01,
    probability_up=0.25,
    horizon_seconds=3600,
    model_name="m",
    model_version="7",
    role="champion",
    prediction_id=UUID(int=1),
    source="simulated",
    feature_timestamp=MADE - timedelta(minutes=5),
    feature_age_seconds=300.0,
    timestamp=MADE,
)


def test_an_answer_made_in_advance_is_the_predictions_own_json_with_the_age_of_now() -> None:
    answer = Answer.of(PREDICTION)
    age = answer.age((MADE + timedelta(seconds=1.5)).timestamp())
    assert age == 301.5
    later = PREDICTION.model_copy(update={"feature_age_seconds": age})
    assert json.loads(answer.body(age)) == json.loads(later.model_dump_json(by_alias=True))
    assert json.loads(answer.body(age))["prediction"] == -0.001
    assert json.loads(answer.body(age))["confidence"] == 0.75


def requested(number: int) -> Requested:
    return Requested(0.0, f"id{number}", "", "GET", "/p" * 500, 200, 0.25)


def test_lines_are_whole_and_in_order() -> None:
    written: list[str] = []
    log = AccessLog(Metrics("m"), written.append)
    log.add(Answered(MADE.timestamp(), "id0", "desk", Answer.of(PREDICTION), 5.0))
    log.add(requested(1))
    log.flush()
    first, second = map(json.loads, "".join(written).splitlines())
    assert (first["event"], first["caller"], first["request_id"]) == ("prediction", "desk", "id0")
    assert first["time"] == "2024-03-01T12:00:00.000000+00:00"
    assert first["feature_age_seconds"] == 5.0
    assert first["prediction_id"] == str(UUID(int=1))
    assert (second["event"], second["status"]) == ("request", 200)
    assert len(second["path"]) == 200


def test_stopping_writes_what_waits() -> None:
    written: list[str] = []
    log = AccessLog(Metrics("m"), written.append)
    log.start()
    for number in range(100):
        log.add(requested(number))
    log.stop()
    assert len("".join(written).splitlines()) == 100


def test_what_nobody_reads_is_dropped_and_counted_and_stopping_does_not_wait_for_it() -> None:
    metrics, free, reached = Metrics("m"), threading.Event(), threading.Event()

    def blocked(_: str) -> None:
        reached.set()
        free.wait(30)

    log = AccessLog(metrics, blocked, most_waiting=3)
    log.start()
    log.add(requested(0))
    assert reached.wait(5)
    for number in range(5):
        log.add(requested(number))
    assert metrics.registry.get_sample_value("access_log_dropped_total") == 2
    began = time.monotonic()
    log.stop()
    assert time.monotonic() - began < 5
    free.set()


def test_a_stream_that_is_gone_is_told_once_and_stops_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls = []

    def broken(lines: str) -> None:
        calls.append(lines)
        raise OSError("gone")

    log = AccessLog(Metrics("m"), broken)
    log.start()
    for number in range(3):
        log.add(requested(number))
        until(lambda: not log._queue)
    log.stop()
    assert len(calls) >= 2
    assert caplog.text.count("requests are not logged") == 1


def test_a_line_that_cannot_be_made_is_dropped_alone_and_the_log_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    written: list[str] = []
    metrics = Metrics("m")
    log = AccessLog(metrics, written.append)
    log.start()
    for caller in ("desk", "\ud800", "desk"):
        log.add(Requested(0.0, "id", caller, "GET", "/models", 200, 0.25))
        log.add(Answered(0.0, "id", caller, Answer.of(PREDICTION), 5.0))
    until(lambda: not log._queue)
    log.add(Requested(float("nan"), "id", "desk", "GET", "/models", 200, 0.25))
    log.add(requested(7))
    log.stop()
    callers = [json.loads(line)["caller"] for line in "".join(written).splitlines()]
    assert callers == ["desk"] * 4 + [""]
    assert metrics.registry.get_sample_value("access_log_dropped_total") == 3
    assert caplog.text.count("a request is not logged") == 1


def test_whatever_writing_fails_of_the_next_lines_are_written() -> None:
    written: list[str] = []
    errors: list[Exception] = [RuntimeError("nobody foresaw it")]

    def write(lines: str) -> None:
        if errors:
            raise errors.pop()
        written.append(lines)

    metrics = Metrics("m")
    log = AccessLog(metrics, write)
    log.start()
    for number in range(2):
        log.add(requested(number))
        until(lambda: not log._queue)
    log.stop()
    assert [json.loads(line)["request_id"] for line in written] == ["id1"]
    assert metrics.registry.get_sample_value("access_log_dropped_total") == 1


@pytest.mark.parametrize("at", [0.0, 1.9999999, 1709294400.123456, 1709294399.9999996])
def test_a_line_is_the_answer_and_what_was_asked_whatever_it_is_made_of(at: float) -> None:
    answer, asked, caller = Answer.of(PREDICTION), 'id"\n', "desk \u20ac\\"
    line = Answered(at, asked, caller, answer, 5.0).line()
    assert b"\n" not in line
    told = json.loads(line)
    assert datetime.fromisoformat(told.pop("time")) == datetime.fromtimestamp(at, UTC)
    assert told == {
        "level": "info",
        "logger": "cryptoml_serving.runtime.access_log",
        "event": "prediction",
        "message": "predicted BTC/USDT",
        "request_id": asked,
        "caller": caller,
        **json.loads(answer.body(5.0)),
    }


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], list[str]]]:
    """What is written, write by write, where standard error is a descriptor."""
    with ExitStack() as stack:

        def written(descriptor: int) -> list[str]:
            writes: list[str] = []
            stream = SimpleNamespace(
                write=writes.append, flush=lambda: None, fileno=lambda: descriptor
            )
            stack.callback(os.close, descriptor)
            monkeypatch.setattr(sys, "stderr", stream)
            log = AccessLog(Metrics("m"))
            for number in range(50):
                log.add(requested(number))
            log.flush()
            return writes

        yield written


def test_a_pipe_gets_whole_lines_that_it_keeps_together(
    lines: Callable[[int], list[str]],
) -> None:
    reading, writing = os.pipe()
    writes = lines(writing)
    os.close(reading)
    assert sum(len(each.splitlines()) for each in writes) == 50
    assert all(each.endswith("\n") and len(each) <= select.PIPE_BUF for each in writes)
    assert len(writes) > 1


def test_a_file_gets_them_at_once(lines: Callable[[int], list[str]], tmp_path: Path) -> None:
    (written,) = lines(os.open(tmp_path / "log", os.O_CREAT | os.O_WRONLY))
    assert len(written.splitlines()) == 50


def test_a_stream_in_memory_gets_them_too(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    log = AccessLog(Metrics("m"))
    log.add(requested(0))
    log.flush()
    assert json.loads(stream.getvalue())["request_id"] == "id0"
