from __future__ import annotations

import dataclasses
import getpass
import json
from typing import Any

import polars as pl
import pytest

from cryptoml_assets.errors import TrainingRecordError
from cryptoml_assets.models.provenance import code_digest, library_versions, triggered_by
from cryptoml_assets.models.record import (
    TrainingRecord,
    differences,
    environment,
    read_record,
    rows_digest,
    write_record,
)
from tests import model_worlds

FRAME = model_worlds.training_set(signal=0.5, days=2)
TASK = dataclasses.replace(
    model_worlds.TASK,
    channels=(("rsi",), ("volatility",)),
    training=dataclasses.replace(model_worlds.CONFIG, layout="vectorised", learning_rate=0.1 + 0.2),
)


def written(**changes: Any) -> bytes:
    record = json.loads(write_record(TASK, FRAME, triggered_by="user me"))
    return json.dumps({**record, **changes}).encode()


def test_a_record_reads_back_as_what_was_trained() -> None:
    assert read_record(written()) == TrainingRecord(
        task=TASK,
        rows=rows_digest(FRAME, TASK),
        environment=environment(),
        triggered_by="user me",
    )


def test_a_record_that_leaves_the_layout_open_is_not_written() -> None:
    undecided = dataclasses.replace(TASK.training, layout="auto")
    with pytest.raises(ValueError, match="layout='auto'"):
        write_record(dataclasses.replace(TASK, training=undecided), FRAME, triggered_by="user me")


def test_the_environment_is_code_libraries_and_machine() -> None:
    now = environment()
    assert (now.code, now.libraries) == (code_digest(), library_versions())
    assert all((now.python, now.platform, now.processor, now.threads, now.device))
    assert differences(now, now) == {}
    other = dataclasses.replace(now, threads=now.threads + 1, libraries={"jax": "0.1"})
    found = differences(other, now)
    assert found["threads"] == (now.threads + 1, now.threads)
    assert found["libraries.jax"] == ("0.1", library_versions()["jax"])
    assert found["libraries.numpy"] == (None, library_versions()["numpy"])


@pytest.mark.parametrize(
    "change",
    [
        pl.col("label") + pl.when(pl.int_range(pl.len()) == 0).then(1e-9).otherwise(0.0),
        pl.lit("live").alias("source"),
    ],
    ids=["one label", "another source"],
)
def test_the_digest_of_rows_is_of_their_values_in_any_order(change: pl.Expr) -> None:
    digest = rows_digest(FRAME, TASK)
    assert rows_digest(FRAME.sample(fraction=1.0, shuffle=True, seed=1), TASK) == digest
    assert rows_digest(FRAME.with_columns(change), TASK) != digest


def test_a_record_of_older_code_gets_todays_default_for_what_it_did_not_know() -> None:
    task = json.loads(written())["task"]
    del task["folds"]
    assert read_record(written(task=task)).task.folds == 3


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\xff", "no record"),
        (b"[]", "no record"),
        (b"{}", "it lacks 'format_version'"),
        (written(format_version=2), "format 2, this code reads 1"),
        (written(task={"model_name": "m"}), "family"),
    ],
)
def test_what_is_no_record_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(TrainingRecordError, match=why):
        read_record(data)


def test_a_record_that_says_more_than_this_code_knows_is_refused() -> None:
    task = json.loads(written())["task"]
    task["training"]["dropout"] = 0.1
    with pytest.raises(TrainingRecordError, match=r"task\.training says dropout, which"):
        read_record(written(task=task))


@pytest.mark.parametrize(
    ("tags", "who"),
    [
        ({"dagster/schedule_name": "retrain_daily", "x": "y"}, "schedule retrain_daily"),
        ({"dagster/sensor_name": "retrain_on_drift"}, "sensor retrain_on_drift"),
        ({"user": "ada@example.com"}, "user ada@example.com"),
        ({"dagster/backfill": "abc"}, "backfill abc"),
        ({}, f"user {getpass.getuser()}"),
    ],
)
def test_who_asked_for_a_run_is_read_from_its_tags_else_the_process(
    tags: dict[str, str], who: str
) -> None:
    assert triggered_by(tags) == who


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError

    monkeypatch.setattr(getpass, "getuser", nameless)
    assert triggered_by().removeprefix("user ").isdigit()
