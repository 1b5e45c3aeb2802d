"""cryptoml why: over a lake on disk, with the gap ledger beside the bars."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cryptoml_assets.cli import app
from cryptoml_assets.errors import LakeError
from cryptoml_assets.prices.ledger import LEDGER_TABLE
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import settings
from tests.feature_data import some_days
from tests.holed_bars import HOLED, LEDGER, NOON


@pytest.fixture(autouse=True)
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    monkeypatch.setenv("CRYPTOML_LAKE", str(tmp_path / "lake"))
    settings.cache_clear()
    made = Lake(str(tmp_path / "lake"))
    made.replace_days("raw_prices", HOLED, some_days(3))
    made.replace_days(LEDGER_TABLE, LEDGER, LEDGER["date"].unique().to_list())
    return made


def ask(*words: str) -> str:
    done = CliRunner().invoke(app, ["why", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_missing_bars_and_their_cause_are_told() -> None:
    told = ask("sma_20", "BTC/USDT", f"{NOON:%Y-%m-%dT%H:%M:%S}")
    assert told.splitlines() == [
        "sma_20 of BTC/USDT at 2024-01-02 12:00 UTC is null:",
        "  missing_bar: a bar of the window is not there",
        "    BTC/USDT, 2024-01-02 11:30 .. 2024-01-02 11:40: venue_outage",
    ]


def test_a_time_with_a_zone_is_the_instant_it_names() -> None:
    told = ask("sma_20", "ETH/USDT", "2024-01-02T14:00:00+0200")
    assert told.strip() == "sma_20 of ETH/USDT at 2024-01-02 12:00 UTC is not null"


def test_a_feature_that_is_not_there_is_answered_with_close_ones() -> None:
    with pytest.raises(LakeError, match=r"no feature sma_21; close matches: sma_20"):
        ask("sma_21", "BTC/USDT", "2024-01-02T12:00")


def test_a_row_that_is_not_there_is_said() -> None:
    with pytest.raises(LakeError, match="no row of BTC/USDT at 2024-01-02 11:35"):
        ask("sma_20", "BTC/USDT", "2024-01-02T11:35")
