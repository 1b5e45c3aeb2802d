"""Candidates and gate over a real lake, a real MLflow store and a real Dagster run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from cryptoml_assets.deployment import history
from cryptoml_assets.deployment.assets import validated_deployment
from cryptoml_assets.models.assets import candidate_models
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.resources.tracker import Tracker
from cryptoml_assets.settings import settings
from cryptoml_serving.contract import approval
from cryptoml_serving.contract.bundle import OUTPUTS, load_bundle
from cryptoml_serving.contract.registry import (
    BUNDLE_FOLDER,
    DIGEST_TAG,
    MLFLOW_ENVIRONMENT,
    approval_file,
)
from tests import model_worlds

UPSTREAM = dg.AssetSpec("training_set").with_io_manager_key("lake")
SMALL = {
    "CRYPTOML_EPOCHS": "4",
    "CRYPTOML_ENSEMBLE_SIZE": "2",
    "CRYPTOML_BATCH_SIZE": "256",
    "CRYPTOML_LEARNING_RATE": "0.005",
}


@dataclass
class World:
    """A home folder in which candidates have been trained once."""

    home: Path
    rows: pl.DataFrame
    trained: dg.ExecuteInProcessResult

    @property
    def lake(self) -> Lake:
        return Lake(settings().lake_uri)

    @property
    def candidate(self) -> dict[str, Any]:
        return self.lake.scan("candidate_models").collect().row(0, named=True)

    @property
    def client(self) -> Any:
        return tracker().client()

    @property
    def champion(self) -> str | None:
        aliases = self.client.get_registered_model(settings().model_name).aliases
        return str(aliases["champion"]) if "champion" in aliases else None


def tracker() -> Tracker:
    configured = settings()
    return Tracker(
        tracking_uri=configured.tracking_address,
        artifact_location=str(configured.home_path / "mlartifacts"),
    )


def materialise(
    *assets: dg.AssetsDefinition, upstream_version: int | None = None
) -> dg.ExecuteInProcessResult:
    with dg.DagsterInstance.ephemeral() as instance:
        if upstream_version is not None:
            made = {"table_version": upstream_version, "lake_versions": {"raw_prices": 41}}
            instance.report_runless_asset_event(
                dg.AssetMaterialization("training_set", metadata=made)
            )
        return dg.materialize(
            [UPSTREAM, candidate_models, validated_deployment],
            selection=[asset.key for asset in assets],
            resources={"lake": LakeIOManager(uri=settings().lake_uri), "tracker": tracker()},
            instance=instance,
        )


def use(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**SMALL, "CRYPTOML_HOME": str(home)}.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()


def train(home: Path, signal: float) -> World:
    with pytest.MonkeyPatch.context() as monkeypatch:
        use(home, monkeypatch)
        world = World(home, model_worlds.training_set(signal=signal), trained=None)
        world.lake.overwrite("training_set", world.rows)
        world.trained = materialise(candidate_models, upstream_version=0)
    settings.cache_clear()
    return world


@pytest.fixture(scope="module")
def skilled_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return train(tmp_path_factory.mktemp("skilled"), signal=0.4)


@pytest.fixture(scope="module")
def noise_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return train(tmp_path_factory.mktemp("noise"), signal=0.0)


@pytest.fixture
def skilled(skilled_world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    use(skilled_world.home, monkeypatch)
    yield skilled_world
    undo(skilled_world)


@pytest.fixture
def noise(noise_world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    use(noise_world.home, monkeypatch)
    yield noise_world
    undo(noise_world)


def undo(world: World) -> None:
    """Take back every approval, so that the next test finds candidates and nothing more."""
    if world.champion is not None:
        world.client.delete_registered_model_alias(settings().model_name, "champion")
    shutil.rmtree(settings().home_path / "lake" / "deployments", ignore_errors=True)
    for folder in settings().home_path.glob("mlartifacts/*/artifacts/approval"):
        shutil.rmtree(folder)


def deployments(result: dg.ExecuteInProcessResult) -> list[dict[str, Any]]:
    assert result.success
    return [
        {name: value.value for name, value in event.metadata.items()}
        for event in result.asset_materializations_for_node("validated_deployment")
    ]


def test_training_is_tracked_under_the_dagster_run(skilled: World) -> None:
    row, client = skilled.candidate, skilled.client
    version = client.get_model_version(settings().model_name, row["model_version"])
    assert version.tags[DIGEST_TAG] == row["bundle_digest"]
    assert version.run_id == row["run_id"]
    run = client.get_run(row["run_id"])
    assert run.data.tags["dagster_run_id"] == skilled.trained.run_id
    assert run.data.params["lake.training_set"] == "0"
    assert run.data.tags["lake.raw_prices"] == "41"
    assert run.data.metrics["log_loss_skill"] == row["log_loss_skill"]
    assert len(client.get_metric_history(row["run_id"], "validation_loss_1")) == 4
    parent = client.get_run(run.data.tags["mlflow.parentRunId"])
    assert parent.data.tags["dagster_run_id"] == skilled.trained.run_id
    assert parent.info.status == run.info.status == "FINISHED"


def test_the_flag_that_forbids_loading_objects_wins_over_the_environment(
    skilled: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in MLFLOW_ENVIRONMENT:
        monkeypatch.setenv(name, "true")
    assert skilled.client is not None
    assert {name: os.environ[name] for name in MLFLOW_ENVIRONMENT} == MLFLOW_ENVIRONMENT


def test_the_registered_model_loads_through_mlflow_and_answers_as_the_bundle(
    skilled: World, tmp_path: Path
) -> None:
    import mlflow  # noqa: PLC0415  (the resource sets its environment first)

    row = skilled.candidate
    folder = skilled.client.download_artifacts(row["run_id"], BUNDLE_FOLDER, str(tmp_path))
    bundle = load_bundle(Path(folder), expected_digest=row["bundle_digest"])
    names = [feature.name for feature in bundle.manifest.features]
    inputs = skilled.rows.head(50).select(names).to_pandas()
    expected = bundle.predict(inputs.to_numpy())
    answers = mlflow.pyfunc.load_model(f"models:/{settings().model_name}/1").predict(inputs)
    assert tuple(answers.columns) == OUTPUTS
    for name in OUTPUTS:
        assert answers[name].to_numpy() == pytest.approx(expected[name], abs=1e-6)


def described(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (event,) = result.asset_materializations_for_node("candidate_models")
    return {name: value.value for name, value in event.metadata.items()}


def runs(world: World) -> int:
    (experiment,) = world.client.search_experiments(filter_string="name = 'cryptoml'")
    return len(world.client.search_runs([experiment.experiment_id]))


def versions(world: World) -> list[Any]:
    return list(world.client.search_model_versions(f"name = '{settings().model_name}'"))


def test_the_same_inputs_reuse_the_version_and_train_nothing(skilled: World) -> None:
    before, runs_before = skilled.candidate, runs(skilled)
    skilled.lake.overwrite("training_set", skilled.rows.head(-1))
    skilled.lake.overwrite("training_set", skilled.rows.sample(fraction=1.0, shuffle=True, seed=3))
    again = described(materialise(candidate_models))
    assert described(skilled.trained)["reused"] is False
    assert again["reused"] is True
    same = ("model_version", "bundle_digest", "source", "git_commit", "figures")
    assert {name: again[name] for name in same} == {
        name: described(skilled.trained)[name] for name in same
    }
    assert skilled.candidate == before
    assert skilled.lake.version("candidate_models") == 0
    assert (runs(skilled), len(versions(skilled))) == (runs_before, 1)


def test_another_label_or_setting_trains_again(
    skilled: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(f"CRYPTOML_{name}", value)
        settings.cache_clear()

    change(HOME=str(tmp_path / "home"), EPOCHS="1", ENSEMBLE_SIZE="1")
    world = World(tmp_path / "home", skilled.rows.tail(3000), trained=None)
    world.lake.overwrite("training_set", world.rows)
    materialise(candidate_models)
    one_label = pl.when(pl.int_range(pl.len()) == 0).then(1e-9).otherwise(0.0)
    world.lake.overwrite("training_set", world.rows.with_columns(label=pl.col("label") + one_label))
    assert described(materialise(candidate_models))["reused"] is False
    assert world.candidate["model_version"] == "2"
    change(SEED="8")
    assert described(materialise(candidate_models))["reused"] is False
    assert world.candidate["model_version"] == "3"


def test_a_model_with_skill_is_approved_once(skilled: World, tmp_path: Path) -> None:
    row = skilled.candidate
    (decided,) = deployments(materialise(validated_deployment))
    assert decided["unchanged"] is False
    assert "| beats_base_rate | PASS |" in decided["criteria"]
    assert "data:image/png" in decided["skill_by_day"]
    assert skilled.champion == row["model_version"]

    file = skilled.client.download_artifacts(row["run_id"], approval_file("1"), str(tmp_path))
    key = approval.load_public_key(settings().public_key_path)
    record = approval.verify(approval.read_signed(Path(file).read_bytes()), key)
    assert (record.model_version, record.bundle_digest) == ("1", row["bundle_digest"])
    assert history.newest_approval(settings()) == record

    (again,) = deployments(materialise(validated_deployment))
    assert again["unchanged"] is True
    assert skilled.lake.row_count("deployments") == 1


def test_a_run_that_died_before_the_alias_is_finished_with_the_same_record(skilled: World) -> None:
    materialise(validated_deployment)
    before = skilled.lake.scan("deployments").collect()
    skilled.client.delete_registered_model_alias(settings().model_name, "champion")
    assert len(deployments(materialise(validated_deployment))) == 1
    assert skilled.lake.scan("deployments").collect().equals(before)
    assert skilled.champion == "1"


def test_a_row_added_to_the_table_by_hand_is_no_approval(skilled: World) -> None:
    row = skilled.candidate
    forged = dict.fromkeys(history.SCHEMA, "x")
    columns = ("model_name", "model_version", "bundle_digest")
    forged |= {name: row[name] for name in columns}
    forged["decided_at"] = settings().clock()
    skilled.lake.append("deployments", pl.DataFrame([forged], schema=history.SCHEMA))
    skilled.client.set_registered_model_alias(settings().model_name, "champion", "1")
    (decided,) = deployments(materialise(validated_deployment))
    assert decided["unchanged"] is False
    assert skilled.lake.row_count("deployments") == 2


def test_an_altered_bundle_is_rejected(skilled: World) -> None:
    manifest = next(
        settings().home_path.glob(f"mlartifacts/{skilled.candidate['run_id']}/**/manifest.json")
    )
    written = manifest.read_bytes()
    manifest.write_bytes(written.replace(b'"simulated"', b'"live"'))
    try:
        assert deployments(materialise(validated_deployment)) == []
    finally:
        manifest.write_bytes(written)
    assert not skilled.lake.exists("deployments")
    assert skilled.champion is None


def test_rows_that_changed_since_training_are_no_evidence(
    skilled: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(settings().lake_uri, tmp_path / "lake")
    monkeypatch.setenv("CRYPTOML_LAKE", str(tmp_path / "lake"))
    settings.cache_clear()
    skilled.lake.overwrite("training_set", skilled.rows.head(-40))
    assert deployments(materialise(validated_deployment)) == []


def test_noise_is_rejected_with_its_reasons_and_leaves_no_materialisation(noise: World) -> None:
    result = materialise(validated_deployment)
    assert deployments(result) == []
    (observation,) = [
        event.asset_observation_data.asset_observation
        for event in result.all_events
        if event.is_asset_observation
    ]
    assert observation.metadata["approved"].value is False
    assert "significance" in observation.metadata["reasons"].value
    assert not noise.lake.exists("deployments")
    assert noise.champion is None


def test_an_alias_moved_by_hand_earns_no_materialisation(noise: World) -> None:
    noise.client.set_registered_model_alias(settings().model_name, "champion", "1")
    assert deployments(materialise(validated_deployment)) == []
