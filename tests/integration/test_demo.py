"""The README's first command, small: world to served prediction, in real processes."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from cryptoml_assets.monitoring.looks import TABLE as LOOKS
from cryptoml_assets.monitoring.prediction_drift import OUTPUTS
from cryptoml_assets.resources.lake import Lake
from cryptoml_serving.contract.served import SERVED_PREDICTIONS
from tests import notebooks
from tests.demo_command import HOUR, SMALL, demo, last_line

pytestmark = [pytest.mark.long, pytest.mark.timeout(280)]


def rows(lake: Lake) -> dict[str, int]:
    return {table: lake.row_count(table) for table in lake.tables()}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a world whose demo has run once."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / "first").write_text(json.dumps(last_line(demo(folder, CRYPTOML_NOW=HOUR))))
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


def test_demo_answers_and_a_second_one_only_judges_what_the_first_served(home: Path) -> None:
    first = json.loads((home / "first").read_text())
    assert first["symbol"] == "BTC/USDT"
    assert first["source"] == "simulated"
    assert first["lower"] < first["prediction"] < first["upper"]  # type: ignore[operator]
    assert 0 < first["probability_up"] < 1  # type: ignore[operator]

    lake = Lake(str(home / "simulated" / "lake"))
    before = rows(lake)
    assert before["deployments"] == 1
    newest = lake.scan("price_features").select(pl.col("event_timestamp").max()).collect().item()
    assert newest == datetime.fromisoformat(str(first["feature_timestamp"]))

    # A demo serves last: nothing had been served when its own graph judged what was.
    served = lake.scan(SERVED_PREDICTIONS).collect()
    assert before["prediction_drift"] == 0
    assert LOOKS in before

    second = last_line(demo(home, CRYPTOML_NOW=HOUR))
    assert second == first
    judged = {
        "prediction_drift": served["symbol"].n_unique() * len(OUTPUTS),
        LOOKS: before[LOOKS] + 1,  # the log of predictions, beside the tables of features
    }
    assert rows(lake) == {**before, **judged}
    drift = lake.scan("prediction_drift").collect()
    assert drift["current_rows"].sum() == served.height * len(OUTPUTS)
    looked = lake.scan(LOOKS).filter(pl.col("table") == SERVED_PREDICTIONS).collect()
    assert looked["version"].to_list() == [lake.version(SERVED_PREDICTIONS)]


def test_a_silent_venue_fails_with_its_address_and_keeps_what_was_there(tmp_path: Path) -> None:
    live = {"CRYPTOML_RETRY_DELAYS": "0.1", "CRYPTOML_VENUE_URL": "http://127.0.0.1:9"}
    urls = {f"CRYPTOML_{part}_URL": "http://127.0.0.1:9" for part in ("CHAIN", "METRICS")}
    done = demo(tmp_path, "--world", "live", **live, **urls)
    assert done.returncode == 1
    for part in ("venue http://127.0.0.1:9", "chain node", "network metrics", "after 2 attempts"):
        assert part in done.stderr
    assert "Traceback" not in done.stderr
