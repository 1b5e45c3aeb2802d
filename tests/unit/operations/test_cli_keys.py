"""``cryptoml keys`` from the shell's side: what it prints, and what the service makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cryptoml_assets.cli import app
from cryptoml_serving.contract.settings import SettingsError
from cryptoml_serving.security.guard import Guard
from cryptoml_serving.security.roles import Role
from cryptoml_serving.settings import ServingSettings


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "keys.json"
    monkeypatch.setenv("CRYPTOML_SERVING_KEYS", str(path))
    return path


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["keys", *arguments], catch_exceptions=True)
    if isinstance(done.exception, SettingsError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_key_is_printed_once_and_opens_the_service(keys: Path) -> None:
    desk = run("add", "desk", "--rate", "50").strip()
    ops = run("add", "ops", "--role", "admin").strip()
    guard = Guard.of(ServingSettings.load())
    assert guard.admit([(b"x-api-key", desk.encode())], Role.PREDICT).name == "desk"
    assert guard.admit([(b"x-api-key", ops.encode())], Role.ADMIN).name == "ops"
    told = run("list") + run("list", "--json")
    assert desk not in told
    assert ops not in told
    assert "sha256" not in told
    listed = {each["name"]: each for each in json.loads(run("list", "--json"))["keys"]}
    assert (listed["desk"]["roles"], listed["desk"]["rate"]) == (["predict"], 50.0)
    assert (listed["ops"]["roles"], listed["ops"]["rate"]) == (["admin"], None)
    assert run("revoke", "desk") == "desk is revoked\n"
    assert "desk" not in run("list")


def test_another_file_can_be_named(keys: Path, tmp_path: Path) -> None:
    other = tmp_path / "folder" / "other.json"
    run("add", "desk", "--file", str(other))
    assert other.exists()
    assert not keys.exists()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("add", "desk", "--rate", "-1"), "--rate -1: accepted"),
        (("add", "desk", "--rate", "nan"), "--rate nan: accepted"),
        (("revoke", "desk"), "no such file of keys"),
    ],
)
def test_what_cannot_be_done_is_named(keys: Path, arguments: tuple[str, ...], why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        run(*arguments)


def test_no_file_is_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CRYPTOML_SERVING_KEYS", raising=False)
    with pytest.raises(SettingsError, match="CRYPTOML_SERVING_KEYS"):
        run("list")
