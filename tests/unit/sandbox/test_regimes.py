"""A market that changes its ways: another world after the instant, the very same one before."""

from __future__ import annotations

from dataclasses import astuple
from datetime import UTC, datetime, timedelta

import httpx
import numpy as np
import pytest

from cryptoml_sandbox.bars import DAY_MS, MINUTE_MS, aggregate
from cryptoml_sandbox.clock import to_ms
from cryptoml_sandbox.market import SimulatedMarket
from cryptoml_sandbox.regimes import Ways
from cryptoml_sandbox.settings import SandboxSettings
from cryptoml_sandbox.symbols import KNOWN
from cryptoml_serving.contract.settings import SettingsError
from tests.sandbox_server import sandbox

GENESIS = datetime(2024, 1, 1, tzinfo=UTC)
START = to_ms(GENESIS)
#: In the third week, so that a change lies inside a chunk and chunks before and after it are whole.
CHANGE = 17 * 1440 + 605
AT = START + CHANGE * MINUTE_MS


def market(*changes):
    return SimulatedMarket(KNOWN, seed=7, signal=2.0, genesis_ms=START, changes=changes)


def returns(bars):
    return np.diff(np.log(bars.close))


def correlation(bars):
    hourly = returns(aggregate(bars, "1h"))
    return float(np.corrcoef(hourly[:-1], hourly[1:])[0, 1])


def test_no_bit_before_the_instant_differs_and_the_first_minute_of_it_does():
    plain, changed = market(), market(Ways(CHANGE, -2.0, 3.0))
    for symbol in KNOWN[:2]:
        # The later week first, so that what a chunk leads to is made in either order.
        after = [each.bars(symbol, AT, AT + DAY_MS) for each in (plain, changed)]
        before = [each.bars(symbol, START, AT) for each in (plain, changed)]
        assert all(np.array_equal(*pair) for pair in zip(*map(astuple, before), strict=True))
        assert after[0].close[0] != after[1].close[0]
        assert after[0].open[0] == after[1].open[0]


def test_the_relation_is_turned_round_and_the_returns_are_larger():
    changed = market(Ways(CHANGE, -2.0, 3.0), Ways(CHANGE + 60 * 1440, 2.0))
    then = changed.bars(KNOWN[0], START, AT)
    turned = changed.bars(KNOWN[0], AT, AT + 60 * DAY_MS)
    again = changed.bars(KNOWN[0], AT + 60 * DAY_MS, AT + 120 * DAY_MS)
    assert correlation(then) < -0.2
    assert correlation(turned) > 0.12
    assert correlation(again) < -0.2
    usual = market().bars(KNOWN[0], AT, AT + 60 * DAY_MS)
    # Minute by minute the shocks are the same ones, only three times as large.
    assert np.median(np.abs(returns(turned)) / np.abs(returns(usual)).clip(1e-9)) == pytest.approx(
        3.0, abs=0.25
    )
    assert turned.volume.sum() > 2 * usual.volume.sum()


def test_the_world_tells_its_regimes_and_its_clock_follows_a_file(tmp_path):
    clock = tmp_path / "clock"
    clock.write_text((GENESIS + timedelta(days=20)).isoformat())
    change = {"from": GENESIS + timedelta(days=20, seconds=30), "signal": -1.0, "volatility": 2.0}
    with sandbox(clock_file=clock, regimes=[change]) as world:
        told = httpx.get(f"{world.url}/world").json()
        assert told["now"] == "2024-01-21T00:00:00+00:00"
        assert told["regimes"] == [
            {"since": "2024-01-21T00:00:30Z", "signal": -1.0, "volatility": 2.0}
        ]
        moved = tmp_path / "moved"
        moved.write_text("2024-01-21T00:10:00+00:00")
        moved.replace(clock)
        asked = {"symbol": "BTCUSDT", "interval": "1m", "limit": 12}
        rows = httpx.get(f"{world.url}/api/v3/klines", params=asked).json()
    plain = market_of(world.settings.model_copy(update={"regimes": []}))
    usual = plain.bars(KNOWN[0], rows[0][0], rows[-1][0] + 1)
    closes = [round(float(row[4]) * 100) for row in rows]
    # The minute in progress at the instant stays what it was; the next one is of the new ways.
    opened = [(row[0] - START) // MINUTE_MS - 20 * 1440 for row in rows]
    assert opened == list(range(-2, 10))
    assert closes[:3] == usual.close[:3].tolist()
    assert closes[3] != usual.close[3]


def market_of(settings):
    return SimulatedMarket(KNOWN, seed=settings.seed, signal=settings.signal, genesis_ms=START)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"SANDBOX_REGIMES": '[{"from": "2024-03-01", "signal": -3}]'}, "REGIMES.0.signal=-3"),
        (
            {"SANDBOX_REGIMES": '[{"from": "2024-03-02"}, {"from": "2024-03-01"}]'},
            "2024-03-01T00:00:00.00:00 does not come after 2024-03-02",
        ),
        ({"CLOCK_FILE": "there", "NOW": "2024-03-01"}, "CLOCK_FILE is the clock"),
    ],
)
def test_what_no_world_can_have_is_refused(monkeypatch, variables, said):
    for name, value in variables.items():
        monkeypatch.setenv(f"CRYPTOML_{name}", value)
    with pytest.raises(SettingsError, match=said):
        SandboxSettings.load()
