"""The README's first command in worlds other than the one it shows: recorded bars, pure noise."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from cryptoml_assets.resources.lake import Lake
from tests.demo_command import HOUR, demo, last_line

pytestmark = [pytest.mark.long, pytest.mark.timeout(280)]


def test_pure_noise_is_never_approved(tmp_path: Path) -> None:
    done = demo(
        tmp_path, CRYPTOML_NOW=HOUR, CRYPTOML_SANDBOX_SIGNAL="0", CRYPTOML_FAMILIES="linear"
    )
    assert done.returncode == 1
    assert "the gate approved no model" in done.stderr
    assert "Traceback" not in done.stderr
    assert "deployments" not in Lake(str(tmp_path / "simulated" / "lake")).tables()


@pytest.mark.realdata
def test_replay_of_recorded_data(tmp_path: Path, realdata: Path) -> None:
    done = demo(tmp_path, "--replay", str(realdata), CRYPTOML_DAYS="60", CRYPTOML_FAMILIES="linear")
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
