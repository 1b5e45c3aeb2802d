"""Webserver, daemon and code server as processes over PostgreSQL: launched, killed, run again.

``make lost-run`` runs this; for ``make test`` it starts too many processes.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import dagster as dg
import httpx
import pytest
from dagster._grpc.client import DagsterGrpcClient
from pg8000.native import Connection
from sqlalchemy import make_url

from cryptoml_assets.operations.graph import prepare_dagster_home
from cryptoml_assets.operations.processes import Children, free_port
from cryptoml_assets.settings import settings
from tests.production.credentials import command_lines, files_with, secrets_of
from tests.waiting import until

REPOSITORY = Path(__file__).parents[2]
HOST = "127.0.0.1"
LAUNCH = """
mutation ($parameters: ExecutionParams!) {
  launchRun(executionParams: $parameters) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message stack }
  }
}
"""
LOCATIONS = """
{ workspaceOrError { ... on Workspace { locationEntries {
  name loadStatus locationOrLoadError { __typename }
} } } }
"""
SECONDS = 180.0


@dataclass(frozen=True)
class Deployment:
    """Its processes' answers: the webserver's address, the code server's port, files."""

    address: str
    port: int
    home: Path
    variables: Mapping[str, str]

    def ask(self, query: str, **variables: Any) -> Any:
        """The webserver's answer to a question in GraphQL."""
        answer = httpx.post(
            f"{self.address}/graphql",
            json={"query": query, "variables": variables},
            timeout=60,
            trust_env=False,
        )
        assert answer.is_success, answer.text
        assert "errors" not in answer.json(), answer.text
        return answer.json()["data"]

    def launch(self, job: str) -> str:
        """Launch a job as a person does in the UI; the run's id."""
        selector = {
            "repositoryLocationName": "cryptoml",
            "repositoryName": "__repository__",
            "jobName": job,
        }
        told = self.ask(LAUNCH, parameters={"selector": selector, "mode": "default"})["launchRun"]
        assert told["__typename"] == "LaunchRunSuccess", told
        return str(told["run"]["runId"])


@pytest.fixture(scope="module")
def deployment(servers: Mapping[str, str]) -> Iterator[Deployment]:
    """`cryptoml dagster` three times, as in production, but for the steps and shorter waits."""
    with tempfile.TemporaryDirectory(prefix="cryptoml-deployment-") as name:
        home, port, web = Path(name), free_port(HOST), free_port(HOST)
        variables = {
            **servers,
            "CRYPTOML_HOME": str(home),
            "CRYPTOML_CODE_SERVER_PORT": str(port),
            "DAGSTER_EVENT_LOG_CONSUMER_DAEMON_INTERVAL_SECONDS": "1",
        }
        command = [sys.executable, "-m", "cryptoml_assets.cli", "dagster"]
        workspace = ["-w", str(REPOSITORY / "production" / "workspace.yaml")]
        with Children(home / "logs") as children:
            served = ["-h", HOST, "-p", str(port), "-m", "tests.production.steps"]
            code = children.start("code", [*command, "api", "grpc", *served], variables)
            children.wait_until(code, lambda: _answers(port), SECONDS, "does not answer")
            page = ["-h", HOST, "-p", str(web), *workspace]
            shown = children.start("webserver", [*command, "webserver", *page], variables)
            children.start("daemon", [*command, "daemon", *workspace], variables)
            address = f"http://{HOST}:{web}"
            children.wait_ready(shown, f"{address}/server_info", SECONDS)
            yield Deployment(address, port, home, variables)


def _answers(port: int) -> bool | None:
    return DagsterGrpcClient(host=HOST, port=port).health_check_query() == "SERVING" or None


@pytest.fixture
def instance(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    """What the deployment keeps in PostgreSQL, as another process reads it."""
    for name, value in deployment.variables.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    monkeypatch.setenv("DAGSTER_HOME", str(prepare_dagster_home(settings().home_path)))
    with dg.DagsterInstance.get() as opened:
        yield opened


def test_a_lost_run_is_run_again_from_the_step_it_was_lost_in(
    deployment: Deployment, instance: dg.DagsterInstance
) -> None:
    (entry,) = deployment.ask(LOCATIONS)["workspaceOrError"]["locationEntries"]
    assert entry["name"] == "cryptoml"
    assert entry["locationOrLoadError"]["__typename"] == "RepositoryLocation"
    # A daemon that has not looked yet would take what failed before for old.
    until(
        lambda: (instance.get_daemon_statuses().get("EVENT_LOG_CONSUMER") or _Never).last_heartbeat,
        SECONDS,
        "the daemon that runs runs again does not",
    )
    whole, run = deployment.launch("both"), deployment.launch("interrupted")
    mark = settings().home_path / "lost"
    until(mark.exists, SECONDS, "the step never began")
    _check_command_lines(deployment)
    os.kill(int(mark.read_text()), signal.SIGKILL)

    until(lambda: _finished(instance, run), SECONDS, "nobody notices that it was lost")
    first = instance.get_run_by_id(run)
    assert first is not None
    assert first.status is dg.DagsterRunStatus.FAILURE
    told = [each.message for each in instance.all_logs(run) if each.dagster_event]
    assert any("terminated by signal 9 (SIGKILL)" in message for message in told), told

    filters = dg.RunsFilter(tags={"dagster/parent_run_id": run})
    until(lambda: instance.get_runs(filters), SECONDS, "it is not run again")
    (again,) = instance.get_runs(filters)
    until(lambda: _finished(instance, again.run_id), SECONDS, "it does not end")
    (again,) = instance.get_runs(filters)
    assert again.status is dg.DagsterRunStatus.SUCCESS
    assert again.tags["dagster/retry_number"] == "1"
    assert again.step_keys_to_execute == ["lost"]
    steps = [step.step_key for step in instance.get_run_step_stats(again.run_id)]
    assert steps == ["lost"]

    until(lambda: _finished(instance, whole), SECONDS, "it does not end")
    done = instance.get_run_by_id(whole)
    assert done is not None
    assert done.status is dg.DagsterRunStatus.SUCCESS
    origin = done.remote_job_origin
    assert origin is not None
    assert origin.repository_origin.code_location_origin.port == deployment.port
    _check_places(deployment)


class _Never:
    last_heartbeat = None


def _finished(instance: dg.DagsterInstance, run: str) -> bool:
    found = instance.get_run_by_id(run)
    return found is not None and found.is_finished


def _check_command_lines(deployment: Deployment) -> None:
    """Nobody who lists the processes of this machine reads a password."""
    lines = command_lines()
    assert sum("tests.production.steps" in line for line in lines.values()) > 0
    words = secrets_of(deployment.variables)
    assert [line for line in lines.values() if any(word in line for word in words)] == []


def _check_places(deployment: Deployment) -> None:
    """Neither files and logs, nor what Dagster keeps, nor what steps print has a password."""
    words = secrets_of(deployment.variables)
    assert {file.name for file in (deployment.home / "logs").iterdir()} == {
        "code.log",
        "daemon.log",
        "webserver.log",
    }
    assert files_with(deployment.home, words) == []
    address = make_url(deployment.variables["CRYPTOML_DAGSTER_POSTGRES_URL"])
    connection = Connection(
        address.username or "",
        host=address.host,
        port=address.port or 0,
        database=address.database,
        password=address.password,
    )
    try:
        names = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
        tables = [name for (name,) in connection.run(names)]
        assert {"event_logs", "runs", "instance_info"} <= set(tables)
        for table in tables:
            for word in words:
                query = f'SELECT count(*) FROM "{table}" AS t WHERE position(:w IN t::text) > 0'  # noqa: S608
                ((count,),) = connection.run(query, w=word)
                assert count == 0, table
    finally:
        connection.close()
    bucket = boto3.resource("s3").Bucket(deployment.variables["CRYPTOML_DAGSTER_LOGS_BUCKET"])
    for kept in bucket.objects.filter(Prefix="dagster-logs/"):
        text = kept.get()["Body"].read().decode(errors="replace")
        assert not any(word in text for word in words), kept.key
