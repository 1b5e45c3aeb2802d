"""The README's first command, small: world to served prediction, in real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from cryptoml_assets.operations.demo import ANSWER_FIELDS
from cryptoml_assets.resources.lake import Lake
from tests import notebooks

REPOSITORY = Path(__file__).parents[2]
SMALL = {
    "CRYPTOML_DAYS": "20",
    "CRYPTOML_ENSEMBLE_SIZE": "2",
    "CRYPTOML_SANDBOX_SIGNAL": "1.5",
    "CRYPTOML_SANDBOX_BLOCK_SECONDS": "1800",
}

pytestmark = pytest.mark.timeout(280)


def demo(home: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("CRYPTOML_")}
    return subprocess.run(
        [sys.executable, "-m", "cryptoml_assets.cli", "demo", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
        env={**kept, **SMALL, "CRYPTOML_HOME": str(home), **settings},
    )


def rows(lake: Lake) -> dict[str, int]:
    return {table: lake.row_count(table) for table in lake.tables()}


def last_line(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    assert done.returncode == 0, done.stdout + done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert tuple(answer) == ANSWER_FIELDS
    return dict(answer)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a world whose demo has run once."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / "first").write_text(json.dumps(last_line(demo(folder))))
    return folder


def test_the_notebook_reads_what_the_demo_made_and_complains_of_nothing(
    home: Path, tmp_path: Path
) -> None:
    (notebook,) = notebooks.NOTEBOOKS
    settings = {**SMALL, "CRYPTOML_HOME": str(home)}
    done = notebooks.execute(notebook, tmp_path, **settings)
    shown = notebooks.shown(done)
    assert any("training_set" in text for text in shown)
    assert any("rows, equal to the training set: True" in text for text in shown)
    assert any("state_space" in text and "linear" in text for text in shown)
    assert any("probability_up" in text and "BTC/USDT" in text for text in shown)
    assert sum(1 for cell in done.cells if "image/png" in str(cell.get("outputs"))) == 2
    assert notebooks.complaints(done) == []


def test_demo_answers_and_a_second_one_changes_no_row(home: Path) -> None:
    first = json.loads((home / "first").read_text())
    assert first["symbol"] == "BTC/USDT"
    assert first["source"] == "simulated"
    assert first["lower"] < first["expected_return"] < first["upper"]  # type: ignore[operator]
    assert 0 < first["probability_up"] < 1  # type: ignore[operator]

    lake = Lake(str(home / "simulated" / "lake"))
    before = rows(lake)
    assert before["deployments"] == 1
    newest = lake.scan("price_features").select(pl.col("event_timestamp").max()).collect().item()
    assert newest == datetime.fromisoformat(str(first["feature_timestamp"]))

    second = last_line(demo(home))
    assert second == first
    assert rows(lake) == before


def test_pure_noise_is_never_approved(tmp_path: Path) -> None:
    done = demo(tmp_path, CRYPTOML_SANDBOX_SIGNAL="0", CRYPTOML_FAMILIES="linear,mlp")
    assert done.returncode == 1
    assert "the gate approved no model" in done.stderr
    assert "Traceback" not in done.stderr
    assert "deployments" not in Lake(str(tmp_path / "simulated" / "lake")).tables()


def test_a_silent_venue_fails_with_its_address_and_keeps_what_was_there(tmp_path: Path) -> None:
    live = {"CRYPTOML_RETRY_DELAYS": "0.1", "CRYPTOML_VENUE_URL": "http://127.0.0.1:9"}
    urls = {f"CRYPTOML_{part}_URL": "http://127.0.0.1:9" for part in ("CHAIN", "METRICS")}
    done = demo(tmp_path, "--world", "live", **live, **urls)
    assert done.returncode == 1
    for part in ("venue http://127.0.0.1:9", "chain node", "network metrics", "after 2 attempts"):
        assert part in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.realdata
def test_replay_of_recorded_data(tmp_path: Path, realdata: Path) -> None:
    done = demo(tmp_path, "--replay", str(realdata), CRYPTOML_DAYS="60")
    answer = last_line(done)
    assert answer["source"] == "replay"
    assert "simulated all the same: " in done.stdout
    bars = Lake(str(tmp_path / "replay" / "lake")).scan("raw_prices").collect()
    assert bars["source"].unique().to_list() == ["replay"]
    recorded = pl.read_ipc(realdata / "ohlcv" / "BTC_USDT-5m.feather", use_pyarrow=True)
    stored = bars.filter(pl.col("symbol") == "BTC/USDT").sort("open_time")
    newest = recorded.sort("date").tail(stored.height)
    assert stored["open_time"].to_list() == newest["date"].to_list()
    for column in ("open", "high", "low", "close", "volume"):
        assert stored[column].to_list() == newest[column].to_list()
