from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]


def cryptoml(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cryptoml_assets.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
        env={"PATH": str(Path(sys.executable).parent), "HOME": "/nonexistent", **environment},
    )


def test_help_lists_every_command() -> None:
    done = cryptoml("--help")
    assert done.returncode == 0
    commands = (
        "demo",
        "up",
        "sandbox",
        "serve",
        "backfill",
        "import",
        "retrain",
        "doctor",
        "settings",
    )
    for command in (*commands, "settings"):
        assert command in done.stdout


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        (("demo", "--replay", "no/such/folder"), {}, "no such folder"),
        (("demo", "--world", "replay"), {}, "--world replay needs a folder"),
        (("demo",), {"CRYPTOML_DAYS": "0"}, "CRYPTOML_DAYS='0'"),
        (
            ("serve",),
            {"CRYPTOML_HORIZN": "9"},
            "CRYPTOML_HORIZN: no such setting; close: CRYPTOML_HORIZON",
        ),
        (
            ("backfill", "--start", "2024-03-05", "--end", "2024-03-01"),
            {"CRYPTOML_NOW": "2024-04-01T00:00:00Z"},
            "the first not after the last",
        ),
        (("import", "bars.csv"), {}, "CRYPTOML_WORLD=simulated: its prices are made up"),
        (("import", "bars.csv", "--world", "live"), {}, "bars.csv: no such file or folder"),
        (("retrain", "--run", "x"), {}, "give --verify, --out DIR or both"),
        (("retrain", "--run", "x", "--verify"), {}, "no training run has been tracked yet"),
    ],
)
def test_bad_input_stops_at_start_in_one_message(
    tmp_path: Path, arguments: tuple[str, ...], environment: dict[str, str], expected: str
) -> None:
    done = cryptoml(*arguments, CRYPTOML_HOME=str(tmp_path / "home"), **environment)
    assert done.returncode == 1
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "home").exists()


def test_doctor_names_a_wrong_setting(tmp_path: Path) -> None:
    done = cryptoml(
        "doctor", CRYPTOML_HOME=str(tmp_path), CRYPTOML_BATCH_SIZE="none", COLUMNS="200"
    )
    assert done.returncode == 1
    assert "CRYPTOML_BATCH_SIZE='none'" in done.stdout


def test_doctor_is_content_with_a_sound_machine(tmp_path: Path) -> None:
    from cryptoml_assets.operations.processes import free_port  # noqa: PLC0415

    ports = {
        f"CRYPTOML_{name}_PORT": str(free_port("127.0.0.1"))
        for name in ("DAGSTER", "MLFLOW", "SERVING", "SERVING_ADMIN")
    }
    sandbox_url = f"http://127.0.0.1:{free_port('127.0.0.1')}"
    done = cryptoml(
        "doctor", CRYPTOML_HOME=str(tmp_path), CRYPTOML_SANDBOX_URL=sandbox_url, **ports
    )
    assert done.returncode == 0, done.stdout
    assert "!!" not in done.stdout


@pytest.mark.parametrize("recipe", ["demo", "up"])
def test_make_hands_world_and_replay_on(recipe: str) -> None:
    def commands(*variables: str) -> str:
        done = subprocess.run(
            ["make", "--dry-run", recipe, *variables],
            capture_output=True,
            text=True,
            check=True,
            cwd=REPOSITORY,
        )
        return done.stdout

    assert f"cryptoml {recipe} --world 'live'" in " ".join(commands("WORLD=live").split())
    assert f"cryptoml {recipe} --replay 'some where'" in " ".join(
        commands("REPLAY=some where").split()
    )
    assert "--" not in commands().splitlines()[-1]
