"""Two processes commit to the same Delta tables of an S3 store: none of their commits is lost."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import boto3
import polars as pl
import pytest
from botocore.exceptions import ClientError
from deltalake import write_deltalake

from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import settings
from cryptoml_serving.contract.settings import SettingsError
from tests.production.object_wire import Wire
from tests.production.writer import SHARED, own_day

REPOSITORY = Path(__file__).parents[2]
ROUNDS = 8
WRITERS = ("a", "b")
TABLES = ("appended", "extended", "shared_day", "own_days")


def write(uri: str, *options: str) -> None:
    """Both writers at once, to their ends."""
    with ExitStack() as stack:
        started = [start(stack, uri, who, *options) for who in WRITERS]
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in started:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        failures = [process.communicate()[1] for process in started]
        assert [process.returncode for process in started] == [0, 0], failures


def start(stack: ExitStack, uri: str, who: str, *options: str) -> subprocess.Popen[str]:
    """A writer that says when it is there and waits for the word to begin."""
    process = stack.enter_context(
        subprocess.Popen(
            [sys.executable, "-m", "tests.production.writer", uri, who, str(ROUNDS), *options],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    )
    stack.callback(process.kill)
    return process


def commits(production: Mapping[str, str], table: str) -> list[int]:
    """Numbers of the commits in a table's log, as the store lists them."""
    client = boto3.client("s3")
    prefix = f"writers/{table}/_delta_log/"
    found = client.list_objects_v2(Bucket=production["CRYPTOML_DAGSTER_LOGS_BUCKET"], Prefix=prefix)
    names = (Path(each["Key"]).name for each in found["Contents"])
    return sorted(int(name[:20]) for name in names if name.endswith(".json") and name[0] == "0")


def test_no_commit_of_two_processes_is_lost(production: Mapping[str, str]) -> None:
    uri = f"s3://{production['CRYPTOML_DAGSTER_LOGS_BUCKET']}/writers"
    write(uri)
    lake = Lake(uri)
    wanted = {(who, number) for who in WRITERS for number in range(ROUNDS)}
    for table in TABLES:
        rows = lake.scan(table).collect()
        # Each row once: as many as there are, and all of them.
        assert rows.height == len(wanted), table
        assert set(rows.select("writer", "round").iter_rows()) == wanted, table
        assert lake.version(table) == len(wanted) - 1, table
        assert commits(production, table) == list(range(len(wanted))), table
    # Each saw all that was committed before it, and they took turns: it was a contest.
    order = lake.scan("extended").collect().sort("before")
    assert order["before"].to_list() == list(range(len(wanted)))
    turns = order.filter(pl.col("writer") != pl.col("writer").shift())
    assert turns.height > len(WRITERS)
    days = lake.scan("own_days").collect()
    assert set(days["date"]) == {own_day(who, number) for who, number in wanted}
    assert lake.scan("shared_day").select(pl.col("date").unique()).collect().item() == SHARED
    made = len(TABLES) * len(wanted)
    sys.stdout.write(f"{made} commits of 2 processes, none lost; {turns.height} turns\n")


def check_puts(wire: Wire) -> tuple[int, int]:
    """Each commit was put under the condition that it is not there yet; how many it was not."""
    assert {condition for _, condition, _ in wire.puts} == {"*"}
    answers = [code for _, _, code in wire.puts]
    assert set(answers) <= {200, 409, 412}
    return answers.count(200), len(answers) - answers.count(200)


def contest(wire: Wire, uri: str, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Rows that two processes append through a wire on which they meet, and rows there then."""
    with monkeypatch.context() as patched:
        patched.setenv("AWS_ENDPOINT_URL", wire.url)
        write(uri, "one")
    return ROUNDS * len(WRITERS), Lake(uri).row_count("appended")


def test_no_commit_is_lost_where_renames_without_a_condition_are_allowed(
    production: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """delta-rs renames no commits: each is put under a condition, and the store takes one."""
    monkeypatch.setenv("AWS_S3_ALLOW_UNSAFE_RENAME", "true")
    with Wire(production["AWS_ENDPOINT_URL"], contested=len(WRITERS), patience=3) as wire:
        uri = f"s3://{production['CRYPTOML_DAGSTER_LOGS_BUCKET']}/met"
        made, found = contest(wire, uri, monkeypatch)
    assert found == made
    taken, refused = check_puts(wire)
    assert taken == made
    assert refused > 0
    sys.stdout.write(f"{made} commits of 2 processes, none lost; {refused} puts came second\n")


def test_a_store_that_knows_no_conditions_loses_commits(
    production: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the tests above would see lost, is."""
    # Both write as often, so each waits for the other, however slow.
    both = len(WRITERS)
    with Wire(production["AWS_ENDPOINT_URL"], contested=both, patience=20, deaf=True) as wire:
        uri = f"s3://{production['CRYPTOML_DAGSTER_LOGS_BUCKET']}/deaf"
        made, found = contest(wire, uri, monkeypatch)
    assert found < made
    sys.stdout.write(f"{made} commits of 2 processes, {made - found} lost\n")


@pytest.mark.parametrize("name", ["AWS_CONDITIONAL_PUT", "conditional_put"])
def test_commits_without_a_condition_are_refused_by_name(
    production: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "disabled")
    with pytest.raises(SettingsError, match=rf"{name}='disabled': .* or set etag"):
        settings()
    # Nor would delta-rs commit anything.
    with pytest.raises(OSError, match="conditional put is disabled"):
        write_deltalake(
            f"s3://{production['CRYPTOML_DAGSTER_LOGS_BUCKET']}/off", pl.DataFrame({"a": [1]})
        )
    monkeypatch.setenv(name, "etag")
    assert settings().lake_uri == production["CRYPTOML_LAKE"]


def test_the_store_takes_a_key_once_where_it_is_asked_to(production: Mapping[str, str]) -> None:
    """What safe commits rest on; a store without it would lose them unseen."""
    client = boto3.client("s3")
    put = {"Bucket": production["CRYPTOML_DAGSTER_LOGS_BUCKET"], "Key": "once", "IfNoneMatch": "*"}
    client.put_object(**put, Body=b"first")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        client.put_object(**put, Body=b"second")
    body = client.get_object(Bucket=put["Bucket"], Key="once")["Body"]
    assert body.read() == b"first"
