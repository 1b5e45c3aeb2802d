"""The log of predictions: each once in the lake, whatever stops, kills or disturbs the services."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable, Field
from deltalake.schema import PrimitiveType

from cryptoml_assets.resources.delta import configuration
from cryptoml_assets.resources.lake import Lake
from cryptoml_serving.contract.prediction import Prediction, prediction_id
from cryptoml_serving.contract.served import SERVED_PREDICTIONS, SERVED_PROPERTIES
from cryptoml_serving.runtime import prediction_log as module
from cryptoml_serving.runtime import served_table
from cryptoml_serving.runtime.prediction_log import MOST_BYTES, PredictionLog
from cryptoml_serving.telemetry import Metrics

#: Minutes to the end of a UTC day, so that the rows of a few bars are of two days.
BAR = datetime(2024, 3, 1, 23, 50, tzinfo=UTC)
SYMBOLS = ("BTC/USDT", "ETH/USDT", "SOL/USDT")


def snapshot(number: int = 0, digest: str = "d" * 64, role: str = "champion") -> Any:
    """What a model predicted at the `number`th bar; the expected return says which snapshot."""
    instant = BAR + number * timedelta(minutes=5)
    record = SimpleNamespace(bundle_digest=digest, role=role, sequence=4)
    predictions = {
        symbol: Prediction(
            symbol=symbol,
            expected_return=number / 10,
            lower=-1.0,
            upper=1.0,
            probability_up=0.5,
            horizon_seconds=3600,
            model_name="m",
            model_version="3",
            role=role,  # type: ignore[arg-type]
            prediction_id=prediction_id(digest, symbol, instant, [number]),
            source="simulated",
            feature_timestamp=instant,
            feature_age_seconds=60.0,
            timestamp=instant + timedelta(minutes=1),
        )
        for symbol in SYMBOLS
    }
    return SimpleNamespace(model=SimpleNamespace(record=record), predictions=predictions)


def prediction_log(root: Path, **options: Any) -> PredictionLog:
    """One that commits only when told to, or when it stops."""
    values = {
        "lake": str(root / "lake"),
        "folder": root / "outbox",
        "queue": 1000,
        "interval": timedelta(hours=1),
        "metrics": Metrics("m"),
        "most_bytes": MOST_BYTES,
    }
    return PredictionLog(**{**values, **options})


def kept(folder: Path) -> pl.DataFrame:
    rows = Lake(str(folder / "lake")).scan(SERVED_PREDICTIONS).collect()
    assert rows["prediction_id"].is_unique().all()
    return rows


def test_what_is_kept_can_be_read_by_the_lake(tmp_path: Path) -> None:
    log = prediction_log(tmp_path)
    for number in range(4):
        log.offer(snapshot(number))
        log.offer(snapshot(number))  # the same features, read again
    log.offer(snapshot(3, "e" * 64, "shadow"))
    assert log.pending() == 15
    log.flush()
    assert log.pending() == 15
    log.commit()
    assert log.pending() == 0
    lake, rows = Lake(str(tmp_path / "lake")), kept(tmp_path)
    assert (rows.height, lake.version(SERVED_PREDICTIONS)) == (15, 1)
    # As the asset graph makes the tables it stores by days.
    assert configuration(lake.schema(SERVED_PREDICTIONS), by_days=True) == SERVED_PROPERTIES
    (first, second) = lake.day_versions(SERVED_PREDICTIONS)
    assert lake.scan(SERVED_PREDICTIONS, [second]).collect().height == 9
    assert lake.day_rows(SERVED_PREDICTIONS, [first, second]) == {first: 6, second: 9}
    row = rows.filter(role="shadow", symbol="ETH/USDT").row(0, named=True)
    instant = BAR + timedelta(minutes=15)
    assert row == {
        "prediction_id": str(prediction_id("e" * 64, "ETH/USDT", instant, [3])),
        "model_name": "m",
        "model_version": "3",
        "bundle_digest": "e" * 64,
        "role": "shadow",
        "symbol": "ETH/USDT",
        "feature_timestamp": instant,
        "horizon_seconds": 3600,
        "expected_return": 0.3,
        "lower": -1.0,
        "upper": 1.0,
        "probability_up": 0.5,
        "source": "simulated",
        "computed_at": instant + timedelta(minutes=1),
        "sequence": 4,
        "date": instant.date(),
    }


def test_replicas_and_restarts_keep_each_prediction_once(tmp_path: Path) -> None:
    """Four services with one outbox each, and one restarted, all with the same snapshots."""
    metrics = Metrics("m")
    logs = [prediction_log(tmp_path, folder=tmp_path / str(n), metrics=metrics) for n in range(4)]
    start = threading.Barrier(len(logs))

    def serve(log: PredictionLog) -> None:
        for number in range(6):
            log.offer(snapshot(number))
            log.flush()
            start.wait()  # all of them make the table, and then write to it, at the same time
            log.commit()

    threads = [threading.Thread(target=serve, args=(log,)) for log in logs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    again = prediction_log(tmp_path, metrics=metrics)
    for number in range(7):
        again.offer(snapshot(number))
    again.flush()
    again.commit()
    assert kept(tmp_path).height == 21
    assert metrics.registry.get_sample_value("prediction_log_written_total") == 21
    assert Lake(str(tmp_path / "lake")).version(SERVED_PREDICTIONS) <= 8
    version = Lake(str(tmp_path / "lake")).version(SERVED_PREDICTIONS)
    logs[0].offer(snapshot(0))
    logs[0].flush()
    logs[0].commit()
    assert Lake(str(tmp_path / "lake")).version(SERVED_PREDICTIONS) == version  # nothing was new


def test_a_commit_between_look_and_write_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another service that commits the same rows just after this one found them new."""
    ours, theirs = prediction_log(tmp_path), prediction_log(tmp_path, folder=tmp_path / "theirs")
    for log in (ours, theirs):
        log.offer(snapshot())
        log.flush()
    look = served_table._held

    def look_then_lose(table: Any, predictions: Any) -> set[str]:
        found = look(table, predictions)
        monkeypatch.setattr(served_table, "_held", look)
        theirs.commit()
        return found

    monkeypatch.setattr(served_table, "_held", look_then_lose)
    ours.commit()
    assert kept(tmp_path).height == len(SYMBOLS)


KILLED = """
import os, signal, sys
from pathlib import Path
from cryptoml_serving.runtime import prediction_log as module
from tests.unit.serving.test_prediction_log import prediction_log, snapshot

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

folder, point = Path(sys.argv[1]), sys.argv[2]
log = prediction_log(folder)
log.offer(snapshot())
log.flush()
if point == "before":
    module.append_new = die
if point == "after":
    log._outbox.remove = die
log.commit()
"""


@pytest.mark.parametrize(("point", "rows"), [("before", 0), ("after", 3)])
def test_a_killed_service_neither_loses_nor_doubles(tmp_path: Path, point: str, rows: int) -> None:
    repository = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), point],
        env={**os.environ, "PYTHONPATH": str(repository)},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    if rows:
        assert kept(tmp_path).height == rows
    after = prediction_log(tmp_path)
    assert after.pending() == 3  # what was on disk outlived the process
    after.start()
    after.stop()
    assert after.pending() == 0
    assert kept(tmp_path).height == 3


def test_what_the_queue_cannot_hold_is_counted_and_never_waited_for(tmp_path: Path) -> None:
    metrics = Metrics("m")
    log = prediction_log(tmp_path, queue=4, metrics=metrics)
    for number in range(3):
        log.offer(snapshot(number))
    assert log.pending() == 4
    # Two of the second are in no snapshot any more; those of the third may still find room.
    assert metrics.registry.get_sample_value("prediction_log_dropped_total") == 2
    log.flush()
    log.offer(snapshot(3))
    assert log.pending() == 7
    assert metrics.registry.get_sample_value("prediction_log_dropped_total") == 5


def test_what_found_the_queue_full_is_kept_once_there_is_room(tmp_path: Path) -> None:
    metrics = Metrics("m")
    log = prediction_log(tmp_path, queue=2, metrics=metrics)
    for _ in range(3):
        log.offer(snapshot(0))  # as every few seconds: three symbols, and room for two
    assert log.pending() == 2
    log.flush()
    log.offer(snapshot(0))
    log.offer(snapshot(1))  # one waits: room for one
    for _ in range(3):
        log.offer(snapshot(1))
    log.start()
    log.stop()
    rows = kept(tmp_path)["expected_return"].to_list()
    assert sorted(rows) == [0.0, 0.0, 0.0, 0.1]
    # Each counts once, however often it was offered in vain.
    assert metrics.registry.get_sample_value("prediction_log_dropped_total") == 2


def test_the_last_commit_makes_room_for_what_waits_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_STOP_SECONDS", 60.0)
    metrics = Metrics("m")
    log = prediction_log(tmp_path, most_bytes=2000, metrics=metrics)
    log.offer(snapshot(0))
    log.flush()
    log.offer(snapshot(1))
    assert not log.flush()
    log.start()
    log.stop()
    assert metrics.registry.get_sample_value("prediction_log_dropped_total") == 0
    again = prediction_log(tmp_path)
    again.start()
    again.stop()
    assert kept(tmp_path).height == 6


def test_how_much_waits_is_told_without_a_look_at_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder may hold thousands of files, and `/metrics` asks in every request's way."""
    ours, theirs = prediction_log(tmp_path), prediction_log(tmp_path)
    for number in range(3):
        ours.offer(snapshot(number))
        ours.flush()
    (tmp_path / "outbox" / "0001-incomplete.jsonl").write_text("")
    assert theirs.pending() == 9
    ours._outbox.remove(ours._outbox.segments()[1])
    with monkeypatch.context() as patched:
        for name in ("scandir", "listdir", "stat"):
            patched.setattr(os, name, _never)
        assert ours.pending() == 6
        assert theirs.pending() == 9
    ours._outbox.set_aside(ours._outbox.segments()[1])
    assert ours.pending() == 3
    theirs._outbox.segments()
    assert theirs.pending() == 3
    # What another service has brought to the lake makes room.
    size = ours._outbox._bytes
    full = prediction_log(tmp_path, most_bytes=size)
    assert full.pending() == 3
    full.offer(snapshot(3))
    assert not full.flush()
    for segment in theirs._outbox.segments():
        theirs._outbox.remove(segment)
    assert full.flush()
    assert full.pending() == 3


def test_a_lake_that_is_away_leaves_everything_on_disk(tmp_path: Path) -> None:
    metrics = Metrics("m")
    (tmp_path / "lake").write_text("no folder")
    # As much as one snapshot takes, and not two.
    log = prediction_log(tmp_path, metrics=metrics, queue=4, most_bytes=2000)
    log.start()
    for number, waiting in enumerate((0, 3, 4)):
        log.offer(snapshot(number))
        _wait(lambda number=number: log._failing.get("outbox") or number == 0)  # type: ignore[misc]
        # What is on disk is in the queue for a moment longer, where the next would not find room.
        _wait(lambda waiting=waiting: log.pending() == 3 + waiting and log._outbox.rows() == 3)  # type: ignore[misc]
    _wait(lambda: metrics.registry.get_sample_value("prediction_log_errors_total"))
    log.stop()
    # The second found the outbox full and waited in memory, of the third one row had room there.
    assert metrics.registry.get_sample_value("prediction_log_dropped_total") == 2 + 4
    (tmp_path / "lake").unlink()
    again = prediction_log(tmp_path)
    again.start()
    again.stop()
    assert kept(tmp_path).height == 3


def test_a_segment_nobody_can_read_is_set_aside(tmp_path: Path) -> None:
    log = prediction_log(tmp_path)
    log.offer(snapshot(0))
    log.flush()
    (segment,) = log._outbox.segments()
    segment.write_bytes(segment.read_bytes()[:-20])
    log.offer(snapshot(1))
    log.flush()
    log.commit()
    assert kept(tmp_path)["expected_return"].unique().to_list() == [0.1]
    assert [path.suffix for path in (tmp_path / "outbox").iterdir()] == [".refused"]
    log.commit()


def test_a_column_added_by_others_is_left_empty(tmp_path: Path) -> None:
    log = prediction_log(tmp_path)
    log.offer(snapshot(0))
    log.flush()
    log.commit()
    table = DeltaTable(str(tmp_path / "lake" / SERVED_PREDICTIONS))
    table.alter.add_columns([Field("note", PrimitiveType("string"))])
    log.offer(snapshot(1))
    log.flush()
    log.commit()
    assert kept(tmp_path)["note"].to_list() == [None] * 6


def _never(*_: object) -> None:
    message = "the folder was looked at"
    raise AssertionError(message)


def _wait(condition: Callable[[], object]) -> None:
    turn = threading.Event()
    for _ in range(1000):
        if condition():
            return
        turn.wait(0.01)
    message = "it never came about"
    raise AssertionError(message)
