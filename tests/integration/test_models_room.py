"""Candidates and gate over a real lake, a real MLflow store and a real Dagster run."""

from __future__ import annotations

import getpass
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from cryptoml_assets.deployment import history, promotion, verdicts
from cryptoml_assets.deployment.assets import validated_deployment
from cryptoml_assets.deployment.history import Subject
from cryptoml_assets.deployment.options import CRITERIA
from cryptoml_assets.deployment.standing import current
from cryptoml_assets.errors import ApprovalError, TrainingDataError
from cryptoml_assets.models import assets as room
from cryptoml_assets.models.assets import candidate_models
from cryptoml_assets.models.comparison_assets import model_comparison
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.resources.tracker import Tracker
from cryptoml_assets.settings import settings
from cryptoml_serving.contract import approval
from cryptoml_serving.contract.bundle import load_bundle
from cryptoml_serving.contract.manifest import OUTPUTS
from cryptoml_serving.contract.registry import (
    BUNDLE_FOLDER,
    DEPLOYMENT_TAG,
    DIGEST_TAG,
    MLFLOW_ENVIRONMENT,
    approval_file,
)
from tests import model_worlds
from tests.deployment_world import decision

pytestmark = pytest.mark.long

UPSTREAM = dg.AssetSpec("training_set").with_io_manager_key("lake")
SMALL = {
    "CRYPTOML_FAMILIES": "linear,mlp",
    "CRYPTOML_FOLDS": "2",
    "CRYPTOML_LAYOUT": "loop",
    "CRYPTOML_EPOCHS": "4",
    "CRYPTOML_ENSEMBLE_SIZE": "2",
    "CRYPTOML_BATCH_SIZE": "256",
    "CRYPTOML_LEARNING_RATE": "0.005",
    # The rows are invented: there are no features to prove anything of. See test_gate_room.
    "CRYPTOML_GATE_REQUIRED": ",".join(
        name for name in CRITERIA if name not in {"parity", "no_look_ahead"}
    ),
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
        """The one that asks to be approved."""
        return self.lake.scan("model_comparison").filter("chosen").collect().row(0, named=True)

    @property
    def candidates(self) -> dict[str, dict[str, Any]]:
        rows = self.lake.scan("candidate_models").collect().rows(named=True)
        return {row["family"]: row for row in rows}

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
    *assets: dg.AssetsDefinition,
    upstream_version: int | None = None,
    run_config: dict[str, Any] | None = None,
) -> dg.ExecuteInProcessResult:
    with dg.DagsterInstance.ephemeral() as instance:
        if upstream_version is not None:
            made = {"table_version": upstream_version, "lake_versions": {"raw_prices": 41}}
            instance.report_runless_asset_event(
                dg.AssetMaterialization("training_set", metadata=made)
            )
        return dg.materialize(
            [UPSTREAM, candidate_models, model_comparison, validated_deployment],
            selection=[asset.key for asset in assets],
            resources={"lake": LakeIOManager(uri=settings().lake_uri), "tracker": tracker()},
            instance=instance,
            run_config=run_config,
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
        world.trained = materialise(candidate_models, model_comparison, upstream_version=0)
        approval.generate_keys(settings().private_key_path, settings().public_key_path)
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
    trained = {row["model_version"] for row in world.candidates.values()}
    for version in versions(world):
        if str(version.version) not in trained:
            world.client.delete_model_version(settings().model_name, version.version)
    if world.champion is not None:
        world.client.delete_registered_model_alias(settings().model_name, "champion")
    if DEPLOYMENT_TAG in world.client.get_registered_model(settings().model_name).tags:
        world.client.delete_registered_model_tag(settings().model_name, DEPLOYMENT_TAG)
    for table in ("deployments", "gate_verdicts"):
        shutil.rmtree(settings().home_path / "lake" / table, ignore_errors=True)
    for folder in settings().home_path.glob("mlartifacts/*/artifacts/approval"):
        shutil.rmtree(folder)


def deployments(result: dg.ExecuteInProcessResult) -> list[dict[str, Any]]:
    assert result.success
    return [
        {name: value.value for name, value in event.metadata.items()}
        for event in result.asset_materializations_for_node("validated_deployment")
    ]


def observed(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    """What the one observation of a run says."""
    (observation,) = [
        event.asset_observation_data.asset_observation
        for event in result.all_events
        if event.is_asset_observation
    ]
    return dict(observation.metadata)


def test_training_is_tracked_under_the_dagster_run(skilled: World) -> None:
    row, client = skilled.candidates["mlp"], skilled.client
    version = client.get_model_version(settings().model_name, row["model_version"])
    assert version.tags[DIGEST_TAG] == row["bundle_digest"]
    assert version.run_id == row["run_id"]
    run = client.get_run(row["run_id"])
    assert run.data.tags["dagster_run_id"] == skilled.trained.run_id
    assert run.data.params["lake.training_set"] == "0"
    assert run.data.tags["lake.raw_prices"] == "41"
    read = datetime.fromisoformat(run.data.tags["cryptoml.as_of"])
    assert read.timestamp() <= run.info.start_time / 1000 <= time.time()
    assert run.data.metrics["log_loss_skill"] == row["log_loss_skill"]
    assert len(client.get_metric_history(row["run_id"], "validation_loss_fold_1")) == 4
    folds = client.get_metric_history(row["run_id"], "fold_log_loss_skill")
    assert [each.step for each in folds] == [0, 1]
    assert folds[-1].value == row["log_loss_skill"]
    assert run.data.tags["cryptoml.triggered_by"] == f"user {getpass.getuser()}"
    runs = {name: client.get_run(each["run_id"]) for name, each in skilled.candidates.items()}
    assert {name: each.info.run_name for name, each in runs.items()} == {n: n for n in runs}
    (parent_id,) = {each.data.tags["mlflow.parentRunId"] for each in runs.values()}
    parent = client.get_run(parent_id)
    assert "mlflow.parentRunId" not in parent.data.tags
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

    row = skilled.candidates["mlp"]
    folder = skilled.client.download_artifacts(row["run_id"], BUNDLE_FOLDER, str(tmp_path))
    bundle = load_bundle(Path(folder), expected_digest=row["bundle_digest"])
    names = [feature.name for feature in bundle.manifest.features]
    inputs = skilled.rows.head(50).select(names).to_pandas()
    expected = bundle.predict(inputs.to_numpy())
    address = f"models:/{settings().model_name}/{row['model_version']}"
    answers = mlflow.pyfunc.load_model(address).predict(inputs)
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
    assert described(skilled.trained)["trained"] == ["linear", "mlp"]
    assert (again["trained"], again["reused"]) == ([], ["linear", "mlp"])
    same = ("families", "source", "git_commit", "figures")
    assert {name: again[name] for name in same} == {
        name: described(skilled.trained)[name] for name in same
    }
    assert skilled.candidate == before
    assert skilled.lake.version("candidate_models") == 0
    assert (runs(skilled), len(versions(skilled))) == (runs_before, 2)


def test_another_label_or_setting_trains_again(
    skilled: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(f"CRYPTOML_{name}", value)
        settings.cache_clear()

    change(HOME=str(tmp_path / "home"), EPOCHS="1", ENSEMBLE_SIZE="1", FAMILIES="mlp", FOLDS="1")
    world = World(tmp_path / "home", skilled.rows.tail(3000), trained=None)
    world.lake.overwrite("training_set", world.rows)
    materialise(candidate_models)
    one_label = pl.when(pl.int_range(pl.len()) == 0).then(1e-9).otherwise(0.0)
    world.lake.overwrite("training_set", world.rows.with_columns(label=pl.col("label") + one_label))
    assert described(materialise(candidate_models))["trained"] == ["mlp"]
    assert world.candidates["mlp"]["model_version"] == "2"
    change(SEED="8", FAMILIES="linear,mlp")
    assert described(materialise(candidate_models))["trained"] == ["linear", "mlp"]
    assert world.candidates["mlp"]["model_version"] == "4"
    change(FEE_BPS="20")
    assert described(materialise(candidate_models))["trained"] == ["linear", "mlp"]


def compared(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (event,) = result.asset_materializations_for_node("model_comparison")
    return {name: value.value for name, value in event.metadata.items()}


def test_the_comparison_holds_every_family_and_every_benchmark_there_is(skilled: World) -> None:
    table = skilled.lake.scan("model_comparison").collect()
    assert set(table["family"]) == {"linear", "mlp", "lightgbm", "xgboost"}
    assert table.filter("chosen").height == 1
    assert set(table.filter("served")["family"]) == {"linear", "mlp"}
    for row in table.filter("served").rows(named=True):
        assert row["bundle_digest"] == skilled.candidates[row["family"]]["bundle_digest"]
    assert table.filter(~pl.col("served"))["run_id"].null_count() == 2
    facts = compared(skilled.trained)
    assert facts["trials"] == table["trials"].sum()
    drawn = {name for name, value in facts.items() if "data:image/png" in str(value)}
    assert drawn == {"calibration", "equity", "skill_by_fold", "coverage", "learning_curves"}


def test_the_newest_fold_has_no_say_in_which_family_is_chosen(
    skilled: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the choice goes by is the skill in the fold before, recomputed from the runs."""
    table = skilled.lake.scan("model_comparison").filter("served").collect()
    skill = {}
    for family, row in skilled.candidates.items():
        history = skilled.client.get_metric_history(row["run_id"], "fold_log_loss_skill")
        skill[family] = history[0].value
    scores = dict(table.select("family", "choice_score").iter_rows())
    assert scores == pytest.approx(skill)
    assert skilled.candidate["family"] == max(skill, key=lambda family: skill[family])


def test_the_comparison_is_in_the_runs_it_compares(skilled: World) -> None:
    table = skilled.lake.scan("model_comparison").filter("served").collect()
    for row in table.rows(named=True):
        metrics = skilled.client.get_run(row["run_id"]).data.metrics
        assert metrics["comparison_deflated_sharpe"] == row["deflated_sharpe"]
        assert metrics["comparison_chosen"] == float(row["chosen"])


def test_a_family_that_cannot_be_trained_leaves_no_family_registered(
    skilled_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(tmp_path / "home", monkeypatch)
    world = World(tmp_path / "home", skilled_world.rows.tail(3000), trained=None)
    world.lake.overwrite("training_set", world.rows)
    # No setting reaches a rate this wild; the networks alone learn by it.
    planned = room.tasks(settings(), 0)
    wild = [replace(t, training=replace(t.training, learning_rate=1e38)) for t in planned]
    monkeypatch.setattr(room, "tasks", lambda *_: wild)
    with pytest.raises(TrainingDataError, match="CRYPTOML_LEARNING_RATE"):
        materialise(candidate_models)
    assert not world.client.search_registered_models()


def test_a_model_with_skill_is_approved_once(skilled: World, tmp_path: Path) -> None:
    row = skilled.candidate
    (decided,) = deployments(materialise(validated_deployment))
    assert decided["unchanged"] is False
    assert "| beats_base_rate | PASS |" in decided["criteria"]
    assert "data:image/png" in decided["skill_by_day"]
    assert skilled.champion == row["model_version"]

    file = skilled.client.download_artifacts(
        row["run_id"], approval_file(row["model_version"]), str(tmp_path)
    )
    key = approval.load_public_key(settings().public_key_path)
    record = approval.verify(approval.read_signed(Path(file).read_bytes()), key)
    assert record.model_version == row["model_version"]
    assert record.bundle_digest == row["bundle_digest"]
    champion = current(settings()).champion
    assert champion is not None
    assert champion.record == record

    (again,) = deployments(materialise(validated_deployment))
    assert again["unchanged"] is True
    assert skilled.lake.row_count("deployments") == 1


def test_a_run_that_died_before_the_alias_is_finished_with_the_same_record(skilled: World) -> None:
    materialise(validated_deployment)
    before = skilled.lake.scan("deployments").collect()
    skilled.client.delete_registered_model_alias(settings().model_name, "champion")
    assert len(deployments(materialise(validated_deployment))) == 1
    assert skilled.lake.scan("deployments").collect().equals(before)
    assert skilled.champion == skilled.candidate["model_version"]


def test_a_row_added_to_the_table_by_hand_stops_every_decision(skilled: World) -> None:
    materialise(validated_deployment)
    stored = history.rows(skilled.lake)
    skilled.lake.append("deployments", stored.with_columns(sequence=pl.lit(1, pl.Int64)))
    with pytest.raises(ApprovalError, match="not sound: row 1"):
        materialise(validated_deployment)
    assert skilled.champion == skilled.candidate["model_version"]


def test_what_passed_waits_for_a_person_where_one_is_asked_for(
    skilled: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRYPTOML_GATE_APPROVAL", "person")
    settings.cache_clear()
    result = materialise(validated_deployment)
    assert deployments(result) == []
    assert observed(result)["waits_for"].value.startswith("cryptoml approve ")
    assert not skilled.lake.exists("deployments")
    assert verdicts.stored(skilled.lake, settings().model_name)["approved"].to_list() == [True]


def test_the_policys_newest_challenger_takes_the_place_of_its_one_before(
    skilled: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRYPTOML_GATE_ROLE", "canary")
    monkeypatch.setenv("CRYPTOML_GATE_CANARY_PERCENT", "60")
    settings.cache_clear()
    client, name, newest = skilled.client, settings().model_name, skilled.candidate
    other = next(r for r in skilled.candidates.values() if r["run_id"] != newest["run_id"])
    copies = [
        str(client.create_model_version(name, "copy", other["run_id"]).version) for _ in range(2)
    ]
    key = approval.load_private_key(settings().private_key_path)
    given = (
        (other["model_version"], "champion", 0.0, "os:anna"),
        (copies[0], "canary", 60.0, "policy:automatic"),
        (copies[1], "canary", 5.0, "os:anna"),
    )
    for version, role, percent, who in given:
        about = Subject(name, version, other["run_id"], other["bundle_digest"], "direction")
        made = decision(0, role=role, percent=percent, decided_by=who, subject=about)
        promotion.decide(client, skilled.lake, key, made)
    (decided,) = deployments(materialise(validated_deployment))
    # 60 % beside the 60 % of before would have been refused.
    assert (decided["role"], decided["model_version"]) == ("canary", newest["model_version"])
    now = current(settings())
    assert [e.record.model_version for e in now.challengers] == [
        copies[1],
        decided["model_version"],
    ]
    assert (now.champion_version, now.withdrawn) == (other["model_version"], (copies[0],))
    reasons = [e.record.reason for e in history.read(skilled.lake, key.public_key())]
    assert reasons[3] == f"superseded by version {newest['model_version']}"
    # What the gate judged by, and after how many decisions, is in the signed verdict.
    verdict = verdicts.newest(skilled.lake, name, newest["model_version"], key.public_key())
    assert verdict is not None
    assert (verdict.approved, verdict.decisions) == (True, 3)
    assert verdict.limits == verdicts.limits_of(settings())


def test_a_challenger_of_the_policy_stays_until_it_could_be_judged(
    skilled: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRYPTOML_GATE_ROLE", "shadow")
    settings.cache_clear()
    client, name, newest = skilled.client, settings().model_name, skilled.candidate
    other = next(r for r in skilled.candidates.values() if r["run_id"] != newest["run_id"])
    copy = str(client.create_model_version(name, "copy", other["run_id"]).version)
    key = approval.load_private_key(settings().private_key_path)
    yesterday = settings().clock() - timedelta(days=1)
    for version, role in ((other["model_version"], "champion"), (copy, "shadow")):
        about = Subject(name, version, other["run_id"], other["bundle_digest"], "direction")
        made = decision(0, role=role, subject=about, decided_at=yesterday)
        promotion.decide(client, skilled.lake, key, made)
    result = materialise(validated_deployment)
    assert deployments(result) == []
    why = observed(result)["left_out"].value
    assert why == (
        f"the policy's shadow stands first: version {copy} has been compared with the champion for "
        "less than 7 days"
    )
    assert [e.record.model_version for e in current(settings()).challengers] == [copy]
    verdict = verdicts.newest(skilled.lake, name, newest["model_version"], key.public_key())
    assert verdict is not None
    assert verdict.approved


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
    told = observed(result)
    assert told["approved"].value is False
    assert "significance" in told["reasons"].value
    assert not noise.lake.exists("deployments")
    assert noise.champion is None
    kept = verdicts.stored(noise.lake, settings().model_name)
    assert kept["approved"].to_list() == [False]
    assert kept["model_version"].to_list() == [noise.candidate["model_version"]]


def test_a_wider_search_of_one_run_counts_whatever_the_setting_says(
    noise_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `retrain_weekly` does; asked again later, the same version was searched as widely."""
    use(tmp_path / "home", monkeypatch)
    monkeypatch.setenv("CRYPTOML_FAMILIES", "linear")
    settings.cache_clear()
    world = World(tmp_path / "home", noise_world.rows, trained=None)
    world.lake.overwrite("training_set", world.rows)
    wider = {"ops": {"candidate_models": {"config": {"search_trials": 8}}}}
    materialise(candidate_models, model_comparison, run_config=wider)
    approval.generate_keys(settings().private_key_path, settings().public_key_path)
    key = approval.load_public_key(settings().public_key_path)
    assert settings().search_trials == 1
    for _ in range(2):
        told = observed(materialise(validated_deployment))["criteria"].value
        assert "deflated by 8 trials" in told
    kept = verdicts.newest(world.lake, settings().model_name, "1", key)
    assert kept is not None
    (rule,) = (each.rule for each in kept.criteria if each.name == "significance")
    assert "deflated by 8 trials" in rule


def test_an_alias_moved_by_hand_earns_no_materialisation_and_is_put_back(noise: World) -> None:
    version = noise.candidate["model_version"]
    noise.client.set_registered_model_alias(settings().model_name, "champion", version)
    assert deployments(materialise(validated_deployment)) == []
    assert noise.champion is None
