"""A training run made again from what it left in MLflow and in the lake, by the command itself."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable
from typer.testing import CliRunner

from cryptoml_assets.cli import app
from cryptoml_assets.errors import TrainingRecordError, TrainingResourcesError
from cryptoml_assets.models import resources
from cryptoml_assets.models.record import RECORD_FILE, write_record
from cryptoml_assets.models.resources import Request
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import settings
from cryptoml_serving.contract.bundle import load_bundle
from cryptoml_serving.contract.registry import BUNDLE_FOLDER, DIGEST_TAG, MLFLOW_ENVIRONMENT
from tests import model_worlds

ROWS = 2400
CONFIG = dataclasses.replace(
    model_worlds.CONFIG, epochs=2, ensemble_size=1, hidden_units=(4,), batch_size=256
)
TASK = dataclasses.replace(
    model_worlds.TASK,
    features=tuple(each for each in model_worlds.INPUTS if each.name in ("rsi", "log_return_12")),
    embargo=timedelta(0),
    folds=1,
    training=CONFIG,
    lake_versions={"training_set": 1},
)


@dataclass(frozen=True)
class World:
    """A home with one tracked run, whose rows are the second of three versions of the table."""

    home: Path
    run: str
    digest: str


def client() -> Any:
    os.environ.update(MLFLOW_ENVIRONMENT)
    from mlflow import MlflowClient  # noqa: PLC0415

    # Both addresses: other tests of this process leave MLflow pointed elsewhere.
    return MlflowClient(settings().tracking_address, settings().tracking_address)


def use(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYPTOML_HOME", str(home))
    settings.cache_clear()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    from cryptoml_assets.models.candidates import train_candidate  # noqa: PLC0415

    home = tmp_path_factory.mktemp("retrain") / "home"
    with pytest.MonkeyPatch.context() as monkeypatch:
        use(home, monkeypatch)
        lake, rows = Lake(settings().lake_uri), model_worlds.training_set(signal=0.5, days=5)
        for version in (rows.head(ROWS - 2), rows.head(ROWS), rows.head(ROWS - 1)):
            lake.overwrite("training_set", version)
        frame = lake.scan("training_set", version=1).collect()
        bundle = home / "bundle"
        trained = train_candidate(frame, TASK, bundle, log=lambda _: None)
        record = write_record(TASK, frame, triggered_by="schedule retrain_daily")
        artifacts = (settings().home_path / "mlartifacts").as_uri()
        run = client().create_run(client().create_experiment("test", artifacts)).info.run_id
        client().log_artifacts(run, str(bundle), BUNDLE_FOLDER)
        client().set_tag(run, DIGEST_TAG, trained.digest)
        client().log_text(run, record.decode(), RECORD_FILE)
    settings.cache_clear()
    return World(home, run, trained.digest)


@pytest.fixture
def world(made: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A lake of the test's own, and the run's artifacts as they were."""
    use(made.home, monkeypatch)
    shutil.copytree(settings().lake_uri, tmp_path / "lake")
    monkeypatch.setenv("CRYPTOML_LAKE", str(tmp_path / "lake"))
    settings.cache_clear()
    record = artifact(made, RECORD_FILE).read_bytes()
    yield made
    artifact(made, RECORD_FILE).write_bytes(record)


def artifact(world: World, name: str) -> Path:
    (file,) = world.home.glob(f"*/mlartifacts/{world.run}/artifacts/{name}")
    return file


def retrain(run: str, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Exit status, the JSON answer and what was said meanwhile."""
    done = CliRunner().invoke(app, ["retrain", "--run", run, "--json", *arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, json.loads(done.stdout), done.stderr


def edit_record(world: World, **changes: Any) -> None:
    file = artifact(world, RECORD_FILE)
    record = json.loads(file.read_text())
    for place, value in changes.items():
        *parents, name = place.split("__")
        inner = record
        for parent in parents:
            inner = inner[parent]
        inner[name] = value
    file.write_text(json.dumps(record))


def test_the_record_alone_gives_the_same_bundle(world: World, tmp_path: Path) -> None:
    runs = len(client().search_runs(["1"]))
    status, answer, said = retrain(world.run, "--verify", "--out", str(tmp_path / "again"))
    assert (status, answer["same"], answer["digest"]) == (0, True, world.digest)
    assert answer["environment"] == {}
    assert "asked for by schedule retrain_daily: 2400 rows of training_set version 1" in said
    assert "not to be expected" not in said
    bundle = load_bundle(Path(answer["bundle"]), expected_digest=world.digest)
    assert bundle.manifest.lake_versions == {"training_set": 1}
    assert len(client().search_runs(["1"])) == runs
    assert not client().search_registered_models()


def test_an_altered_row_fails_and_is_named_as_the_reason(world: World) -> None:
    lake = Lake(settings().lake_uri)
    (file,) = DeltaTable(lake.address("training_set"), version=1).file_uris()
    rows = pl.read_parquet(file)
    first = pl.int_range(pl.len()) == 0
    altered = pl.when(first).then(pl.col("label") + 1e-3).otherwise("label").alias("label")
    rows.with_columns(altered).write_parquet(file)
    status, answer, said = retrain(world.run, "--verify")
    assert (status, answer["same"], answer["same_rows"]) == (1, False, False)
    assert "these rows are not those the run learnt from" in said
    assert answer["digest"] != world.digest
    assert "weights.safetensors" in answer["differences"]["files"]


def test_another_seed_fails_with_what_differs_and_by_how_much(world: World) -> None:
    edit_record(world, task__training__seed=8)
    status, answer, _ = retrain(world.run, "--verify")
    assert (status, answer["same"], answer["same_rows"]) == (1, False, True)
    found = answer["differences"]
    assert found["files"] == ["weights.safetensors"]
    assert found["manifest"] == []
    # Scaling and labels have no seed; the network's numbers do.
    assert {name.partition(".")[0] for name in found["weights"]} >= {"member"}
    assert not any(name.startswith(("scaling", "label")) for name in found["weights"])
    assert max(found["weights"].values()) > 1e-3
    before, after = found["metrics"]["crps_skill"]
    assert before != after


def test_other_code_or_libraries_are_told_before_anything_is_trained(world: World) -> None:
    edit_record(world, environment__code="0" * 64, environment__libraries={"jax": "0.1"})
    done = CliRunner().invoke(app, ["retrain", "--run", world.run, "--verify"])
    said = done.stderr
    assert f"code: {'0' * 64} then" in said
    assert "libraries.jax: 0.1 then" in said
    before, warned, training = said.partition("the same bundle is not to be expected\n")
    assert warned
    assert "1 folds" not in before
    assert "1 folds" in training
    # The bytes decide, whatever could have been expected.
    assert (done.exit_code, done.stdout) == (0, f"the same bundle: {world.digest}\n")


def test_what_needs_too_much_memory_is_refused_by_the_threads_and_the_gpu_there_are(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit_record(world, task__training__ensemble_size=4)
    needs: dict[int, int] = {}

    def refuse(request: Request, limit: int, gpu_limit: int | None = None) -> None:
        assert (limit, gpu_limit) == (2**30, 77)
        needs[threads] = request.parts["networks"]
        raise TrainingResourcesError("too much")

    monkeypatch.setenv("CRYPTOML_TRAINING_MEMORY_GIB", "1")
    settings.cache_clear()
    monkeypatch.setattr(resources, "gpu_memory", lambda: 77)
    monkeypatch.setattr(resources, "check_fits", refuse)
    for threads in (1, 2, 4, 64):
        monkeypatch.setattr(resources, "cores", lambda threads=threads: threads)
        with pytest.raises(TrainingResourcesError, match="too much"):
            retrain(world.run, "--verify")
    assert needs[1] < needs[2] < needs[4] == needs[64]


def test_what_cannot_be_made_again_is_said_before_anything_is_trained(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(run: str, why: str) -> None:
        with pytest.raises(TrainingRecordError, match=why):
            retrain(run, "--verify")

    refused("0" * 32, f"no run {'0' * 32} in sqlite:")
    refused(client().create_run("1").info.run_id, f"left no {RECORD_FILE}")
    whole = artifact(world, RECORD_FILE).read_bytes()
    edit_record(world, task__novelty=1)
    refused(world.run, "task says novelty, which this code does not know")
    artifact(world, RECORD_FILE).write_bytes(whole)
    edit_record(world, task__lake_versions={"training_set": 77})
    refused(world.run, "version 77 of training_set .* cannot be read any more")
    artifact(world, RECORD_FILE).write_bytes(whole)
    table = DeltaTable(Lake(settings().lake_uri).address("training_set"))
    table.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
    refused(world.run, "version 1 of training_set .* vacuumed")
    use(tmp_path / "nobody", monkeypatch)
    refused(world.run, "no training run has been tracked yet")
    assert not (tmp_path / "nobody").exists()
