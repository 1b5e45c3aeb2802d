from __future__ import annotations

import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest

from cryptoml_sandbox.clock import FrozenClock, RealClock, RunningClock, make_clock, to_ms
from cryptoml_sandbox.settings import SandboxSettings
from cryptoml_sandbox.symbols import listed
from cryptoml_serving.contract.settings import SettingsError, reject_unknown_variables

NOW = datetime(2024, 3, 1, tzinfo=UTC)


def test_the_shared_variables_keep_their_shared_names(monkeypatch):
    monkeypatch.setenv("CRYPTOML_NOW", "2024-03-01T00:00:00Z")
    monkeypatch.setenv("CRYPTOML_SANDBOX_SEED", "9")
    monkeypatch.setenv("CRYPTOML_SANDBOX_SYMBOLS", "BTC/USDT, ETH/USDT")
    monkeypatch.setenv("CRYPTOML_SANDBOX_FAULTS", '{"rate_limited": 0.25}')
    loaded = SandboxSettings.load()
    assert loaded.now == NOW
    assert loaded.seed == 9
    assert loaded.symbols == ("BTC/USDT", "ETH/USDT")
    assert loaded.faults.rate_limited == 0.25


def test_every_variable_is_documented_under_the_name_it_is_read_by():
    variables = SandboxSettings.variables()
    assert "CRYPTOML_NOW" in variables
    assert "CRYPTOML_WORLD" in variables
    assert "CRYPTOML_SANDBOX_SEED" in variables
    assert all(variables.values())


def test_a_misspelt_variable_is_refused_with_the_right_spelling(monkeypatch):
    monkeypatch.setenv("CRYPTOML_SANDBOX_SIGNALL", "1")
    with pytest.raises(SettingsError, match="CRYPTOML_SANDBOX_SIGNAL"):
        reject_unknown_variables(SandboxSettings)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"CRYPTOML_WORLD": "live"}, "CRYPTOML_WORLD='live'.*simulated"),
        ({"CRYPTOML_WORLD": "replay"}, "CRYPTOML_SANDBOX_REPLAY"),
        ({"CRYPTOML_SANDBOX_SIGNAL": "-1"}, "CRYPTOML_SANDBOX_SIGNAL='-1'.*Accepted"),
        ({"CRYPTOML_SANDBOX_FAULTS": '{"banned": 2}'}, "CRYPTOML_SANDBOX_FAULTS.banned=2"),
        ({"CRYPTOML_SANDBOX_FAULTS": '{"bannd": 1}'}, "CRYPTOML_SANDBOX_FAULTS.bannd"),
        ({"CRYPTOML_SANDBOX_GENESIS": "2024-01-01T05:00"}, "not midnight"),
        ({"CRYPTOML_NOW": "2023-12-31"}, "before the world begins"),
        ({"CRYPTOML_NOW": "2024-03-01", "CRYPTOML_SANDBOX_SPEED": "60"}, "freezes the clock"),
        ({"CRYPTOML_SANDBOX_SYMBOLS": "BTCUSDT"}, "BASE/QUOTE"),
    ],
)
def test_a_wrong_setting_says_its_name_and_what_is_accepted(monkeypatch, variables, said):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"(?s){said}"):
        SandboxSettings.load()


def test_the_command_says_a_wrong_setting_without_a_trace():
    result = subprocess.run(
        [sys.executable, "-m", "cryptoml_sandbox"],
        env={"CRYPTOML_SANDBOX_PORT": "many"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert "CRYPTOML_SANDBOX_PORT='many'" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_command_says_what_a_replay_folder_lacks(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "cryptoml_sandbox"],
        env={"CRYPTOML_WORLD": "replay", "CRYPTOML_SANDBOX_REPLAY": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert "ohlcv/*-5m.feather" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_real_clock_runs_with_the_machine():
    clock = make_clock(now=None, start=None, speed=1.0)
    assert isinstance(clock, RealClock)
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(seconds=1)


def test_a_frozen_clock_stands_until_it_is_moved():
    clock = make_clock(now=NOW, start=None, speed=1.0)
    assert isinstance(clock, FrozenClock)
    assert clock.now() == NOW
    assert clock.now_ms() == to_ms(NOW) == 1_709_251_200_000
    clock.move_to(NOW + timedelta(minutes=5))
    assert clock.now() == NOW + timedelta(minutes=5)


def test_an_accelerated_clock_runs_from_its_start_at_its_speed():
    clock = make_clock(now=None, start=NOW, speed=3600.0)
    assert isinstance(clock, RunningClock)
    first = clock.now()
    threading.Event().wait(0.05)
    assert first >= NOW
    assert timedelta(minutes=2) < clock.now() - first < timedelta(hours=2)


def test_no_name_lists_every_known_pair():
    assert [symbol.name for symbol in listed(())] == [
        *("BTC/USDT", "ETH/USDT", "SOL/USDT", "BNB/USDT", "XRP/USDT"),
    ]
