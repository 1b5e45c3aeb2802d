"""What is kept in production is in the servers of production, and nothing of it in the home."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import date
from pathlib import Path

import boto3
import dagster as dg
import polars as pl
import pytest
from sqlalchemy import create_engine, text

from cryptoml_assets.operations.graph import prepare_dagster_home
from cryptoml_assets.operations.processes import ChildError, Children, free_port
from cryptoml_assets.production.local import objects
from cryptoml_assets.production.local.objects import BUCKET, start_objects
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.resources.tracker import Tracker
from cryptoml_assets.settings import settings
from cryptoml_serving.contract import tables
from cryptoml_serving.runtime.errors import RegistryUnavailableError
from cryptoml_serving.runtime.registry_client import RegistryClient, connect
from feature_repo.lake_offline_store import read_table
from tests.production.credentials import command_lines, files_with, secrets_of

REPOSITORY = Path(__file__).parents[2]


@dg.asset
def talkative(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """Says a word that its logs must hold."""
    context.log.info("a word for people")
    return dg.MaterializeResult(metadata={"told": True})


def test_dagster_keeps_runs_in_postgresql_and_what_steps_print_in_s3(
    production: Mapping[str, str],
) -> None:
    home = settings().home_path
    prepare_dagster_home(home)
    with dg.DagsterInstance.get() as instance:
        result = dg.materialize([talkative], instance=instance)
        assert result.success
        (key,) = [
            event.event_specific_data.file_key
            for event in result.all_events
            if event.event_type is dg.DagsterEventType.LOGS_CAPTURED
        ]
    # Another process, as the UI is, finds all of it; what is here is forgotten.
    with dg.DagsterInstance.get() as instance:
        assert type(instance.event_log_storage).__name__ == "PostgresEventLogStorage"
        assert instance.get_latest_materialization_event(dg.AssetKey("talkative")) is not None
        logs = instance.compute_log_manager
        logs.local_manager.delete_logs(log_key=[result.run_id, "compute_logs", key])
        told = logs.get_log_data([result.run_id, "compute_logs", key])
        assert told.stderr is not None
        assert b"a word for people" in told.stderr
    bucket = boto3.resource("s3").Bucket(production["CRYPTOML_DAGSTER_LOGS_BUCKET"])
    kept = [each.key for each in bucket.objects.filter(Prefix="dagster-logs/")]
    assert any(result.run_id in name for name in kept)
    assert {file.name for file in home.rglob("*") if file.is_file()} == {"dagster.yaml"}
    assert files_with(home, secrets_of(production)) == []


def test_the_instance_leaves_out_what_is_not_set(
    production: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CRYPTOML_DAGSTER_LOGS_BUCKET")
    settings.cache_clear()
    text = (prepare_dagster_home(settings().home_path) / "dagster.yaml").read_text()
    assert "postgres" in text
    assert "compute_logs" not in text
    assert "run_launcher" not in text
    monkeypatch.delenv("CRYPTOML_DAGSTER_POSTGRES_URL")
    settings.cache_clear()
    text = (prepare_dagster_home(settings().home_path) / "dagster.yaml").read_text()
    assert text == (REPOSITORY / "dagster.yaml").read_text()


@pytest.fixture
def mlflow_server(production: Mapping[str, str], tmp_path: Path) -> Iterator[str]:
    """MLflow's server before PostgreSQL and S3, started as the chart starts it."""
    port = free_port("127.0.0.1")
    variables = {
        "MLFLOW_BACKEND_STORE_URI": production["CRYPTOML_TRACKING_URI"],
        "MLFLOW_ARTIFACTS_DESTINATION": f"{production['CRYPTOML_ARTIFACTS']}/served",
        "MLFLOW_SERVER_ALLOWED_HOSTS": f"127.0.0.1:{port}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    program = Path(sys.executable).with_name("mlflow")
    command = [str(program), "server", "--host", "127.0.0.1", "--port", str(port)]
    with Children(tmp_path / "logs") as children:
        child = children.start(
            "mlflow", [*command, "--workers", "1", "--serve-artifacts"], variables
        )
        address = f"http://127.0.0.1:{port}"
        children.wait_ready(child, f"{address}/health", 120)
        yield address
        words = secrets_of(production)
        lines = command_lines().values()
        assert sum(f"--port\0{port}" in line for line in lines) > 0
        assert [line for line in lines if any(word in line for word in words)] == []
    assert files_with(tmp_path / "logs", words) == []


def test_serving_reads_the_champion_through_mlflows_server(
    mlflow_server: str, tmp_path: Path
) -> None:
    # The experiment's artifacts go where the server says: through itself, to S3.
    run = register(Tracker(tracking_uri=mlflow_server, experiment="served"), tmp_path)
    check_champion(connect(mlflow_server), "served", run)
    kept = boto3.client("s3").list_objects_v2(Bucket=BUCKET, Prefix="mlflow/served/")
    assert any(each["Key"].endswith("bundle/manifest.json") for each in kept["Contents"])


def test_serving_reads_what_the_tracker_wrote(
    production: Mapping[str, str], tmp_path: Path
) -> None:
    configured = settings()
    tracker = Tracker(
        tracking_uri=configured.tracking_address,
        artifact_location=configured.artifacts_address,
        experiment="stores",
    )
    run = register(tracker, tmp_path)
    experiment = tracker.client().get_experiment_by_name("stores")
    assert experiment.artifact_location.startswith(production["CRYPTOML_ARTIFACTS"])
    registry = connect(configured.tracking_address)
    check_champion(registry, "stores", run)
    assert registry.model("nobody") is None


OPENER = """
import os
import mlflow
from cryptoml_assets.resources.tracker import Tracker
from cryptoml_serving.runtime.registry_mlflow import MlflowRegistry
address = os.environ["OPENED"]
print("ready", flush=True)
input()
"""
OPENERS = ("Tracker(tracking_uri=address).client()", "MlflowRegistry(address).model('nobody')")


def test_a_run_and_the_service_open_a_new_database_at_once(
    production: Mapping[str, str],
) -> None:
    """Both make MLflow's tables; neither gets in the way of the other."""
    engine = create_engine(production["CRYPTOML_TRACKING_URI"], isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("CREATE DATABASE unopened"))
    engine.dispose()
    address = production["CRYPTOML_TRACKING_URI"].removesuffix("/mlflow") + "/unopened"
    with ExitStack() as stack:
        started = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", OPENER + opener],
                    cwd=REPOSITORY,
                    env={**os.environ, "OPENED": address},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            for opener in OPENERS
        ]
        for process in started:
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in started:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        told = [process.communicate()[1][-2000:] for process in started]
        assert [process.returncode for process in started] == [0, 0], told


def test_a_lock_that_others_never_give_back_is_told(
    production: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_MOST_SECONDS", 1)
    address = production["CRYPTOML_TRACKING_URI"]
    with (
        tables.making_tables(address),
        pytest.raises(RegistryUnavailableError, match="lock timeout"),
    ):
        connect(address).model("nobody")


def test_a_store_without_room_on_its_disk_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(objects, "_LEAST_FREE", "1000000GiB")
    monkeypatch.setattr(objects, "_TAKE_SECONDS", 1)
    with (
        Children(tmp_path / "logs") as children,
        pytest.raises(ChildError, match=r"takes no object \(it needs 1000000GiB of room in"),
    ):
        start_objects(children, tmp_path / "s3", "k" * 20, "s" * 20)


def register(tracker: Tracker, folder: Path) -> str:
    """A champion with one file, under the name of the experiment; its run."""
    name, client = tracker.experiment, tracker.client()
    run = client.create_run(client.get_experiment_by_name(name).experiment_id).info.run_id
    (folder / "manifest.json").write_text("{}")
    client.log_artifact(run, str(folder / "manifest.json"), "bundle")
    client.create_registered_model(name, tags={"deployed": "1"})
    client.create_model_version(name, f"runs:/{run}/bundle", run)
    client.set_registered_model_alias(name, "champion", "1")
    return str(run)


def check_champion(registry: RegistryClient, name: str, run: str) -> None:
    """The service's own client reads it, and its file."""
    model = registry.model(name)
    assert model is not None
    assert (model.tags, model.aliases) == ({"deployed": "1"}, {"champion": "1"})
    artifacts = registry.artifacts(run)
    assert artifacts.names("bundle") == ["manifest.json"]
    assert artifacts.read("bundle/manifest.json", 100) == b"{}"


def test_feast_reads_tables_of_s3_at_any_version(production: Mapping[str, str]) -> None:
    lake = Lake(f"{production['CRYPTOML_LAKE']}/versions")
    days = [date(2024, 1, 1), date(2024, 1, 2)]
    first = pl.DataFrame({"date": days, "symbol": ["a", "b"], "value": [0.1, 0.2]})
    second = first.with_columns(value=pl.col("value") + 1)
    assert lake.replace_days("table", first, days) == 0
    assert lake.replace_days("table", second, days) == 1
    for version, wanted in ((0, first), (1, second), (None, second)):
        table = read_table(lake.address("table"), version)
        answer = table.filter(table.symbol == "b").select("symbol", "value").order_by("symbol")
        seen = pl.DataFrame(answer.to_pyarrow())
        assert seen.equals(wanted.filter(symbol="b").select("symbol", "value"))
