"""Listings, outages and silences: bars are left out, and none is changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import httpx
import polars as pl
import pytest

from cryptoml_sandbox.app import create_app
from cryptoml_sandbox.clock import to_ms
from cryptoml_sandbox.settings import SandboxSettings
from cryptoml_serving.contract.settings import SettingsError
from tests.sandbox_server import sandbox

DAY = datetime(2024, 1, 2, tzinfo=UTC)
NOW = datetime(2024, 1, 3, 0, 2, tzinfo=UTC)
MINUTES_5 = timedelta(minutes=5)


def at(text, day=DAY):
    hour, minute = map(int, text.split(":"))
    return day + timedelta(hours=hour, minutes=minute)


def bars(world, interval="5m", pair="BTCUSDT", **more):
    query = {"symbol": pair, "interval": interval, "limit": 1000, "startTime": to_ms(DAY), **more}
    return {row[0]: row for row in httpx.get(f"{world.url}/api/v3/klines", params=query).json()}


def opened(rows):
    return {datetime.fromtimestamp(ms / 1000, UTC) for ms in rows}


@pytest.fixture(scope="module")
def plain():
    with sandbox(now=NOW) as world:
        yield world


def test_nothing_opens_before_a_listing(plain):
    with sandbox(now=NOW, listings={"BTC/USDT": {"from": at("06:02")}}) as world:
        fives, hours = bars(world), bars(world, "1h")
        days = bars(world, "1d", startTime=0)
        others = bars(world, pair="ETHUSDT")
        early = httpx.get(f"{world.url}/api/v3/aggTrades?symbol=BTCUSDT&fromId=0&limit=1").json()
    assert min(opened(fives)) == at("06:00"), "its first bar holds the minutes since"
    sound = bars(plain)
    assert all(sound[t] == row for t, row in fives.items() if t > to_ms(at("06:00")))
    assert float(fives[to_ms(at("06:00"))][5]) < float(sound[to_ms(at("06:00"))][5])
    assert min(opened(hours)) == at("06:00")
    assert min(opened(days)) == DAY
    assert others == bars(plain, pair="ETHUSDT")
    assert early[0]["T"] >= to_ms(at("06:02"))


def test_after_a_listing_nothing_opens_and_the_status_is_break(plain):
    with sandbox(now=at("11:59"), listings={"BTC/USDT": {"until": at("12:00")}}) as world:
        info = f"{world.url}/api/v3/exchangeInfo?symbol=BTCUSDT"
        before = httpx.get(info).json()["symbols"][0]["status"]
        world.move_to(NOW)
        after = httpx.get(info).json()["symbols"][0]["status"]
        rows = bars(world)
        newest = httpx.get(f"{world.url}/api/v3/klines?symbol=BTCUSDT&interval=1h&limit=1").json()
        ticker = httpx.get(f"{world.url}/api/v3/ticker/24hr?symbol=BTCUSDT").json()
    assert (before, after) == ("TRADING", "BREAK")
    assert max(opened(rows)) == at("11:55")
    assert all(bars(plain)[t] == row for t, row in rows.items())
    assert newest[0][0] == to_ms(at("11:00"))
    assert ticker["lastPrice"] == rows[to_ms(at("11:55"))][4]


def test_a_pair_is_unknown_before_it_is_listed():
    listings = {"BTC/USDT": {"from": at("06:00")}}
    path = "/api/v3/klines?symbol=BTCUSDT&interval=1h"
    with (
        sandbox(now=at("05:00"), listings=listings) as world,
        httpx.Client(base_url=world.url) as client,
    ):
        entries = client.get("/api/v3/exchangeInfo").json()["symbols"]
        assert {"BTCUSDT", "ETHUSDT"} & {entry["symbol"] for entry in entries} == {"ETHUSDT"}
        assert client.get(path).json()["code"] == -1121
        world.move_to(at("06:01"))
        assert len(client.get(path).json()) == 1


def test_in_an_outage_no_pair_has_bars(plain):
    outages = [[at("04:00"), at("06:30")], [at("23:00"), at("23:01")]]
    with sandbox(now=NOW, outages=outages) as world:
        for pair in ("BTCUSDT", "XRPUSDT"):
            sound, rows = bars(plain, pair=pair), bars(world, pair=pair)
            gone = {t for t in opened(sound) if at("04:00") <= t < at("06:30")}
            assert opened(sound) - opened(rows) == gone
            assert len(gone) == 30
            left = to_ms(at("23:00"))
            assert all(sound[t] == row for t, row in rows.items() if t != left)
            assert float(rows[left][5]) < float(sound[left][5]), "four of its minutes are left"
        hours = bars(world, "1h")
    assert opened(bars(plain, "1h")) - opened(hours) == {at("04:00"), at("05:00")}
    half = to_ms(at("06:00"))
    assert hours[half][4] == bars(plain, "1h")[half][4]
    assert hours[half][1] == bars(plain)[to_ms(at("06:30"))][1]


def test_pages_reach_over_an_outage_in_both_directions():
    with sandbox(now=NOW, outages=[[at("01:00"), at("22:00")]]) as world:
        forward = bars(world, "1m", limit=100)
        query = "symbol=BTCUSDT&interval=1m&limit=200"
        newest = httpx.get(f"{world.url}/api/v3/klines?{query}").json()
    assert max(opened(forward)) == at("22:39")
    assert len(newest) == 200
    assert newest[0][0] == to_ms(DAY - timedelta(minutes=18))


def test_one_quiet_pair_is_alone(plain):
    spans = [[at("03:10"), at("03:20")], [at("09:00"), at("10:00")]]
    with sandbox(now=NOW, quiet={"XRP/USDT": spans}) as world:
        quiet, others = bars(world, pair="XRPUSDT"), bars(world)
        hours = bars(world, "1h", pair="XRPUSDT")
    gone = opened(bars(plain, pair="XRPUSDT")) - opened(quiet)
    assert gone == {at("03:10"), at("03:15")} | {at("09:00") + k * MINUTES_5 for k in range(12)}
    assert others == bars(plain)
    assert at("09:00") not in opened(hours)
    assert at("03:00") in opened(hours)


def test_a_bar_does_not_form_in_an_outage():
    with sandbox(now=at("04:02"), outages=[[at("04:00"), at("06:30")]]) as world:
        rows = bars(world, "1m")
        book = httpx.get(f"{world.url}/api/v3/depth?symbol=BTCUSDT").json()
    assert max(opened(rows)) == at("03:59")
    assert book["bids"]


def test_a_replayed_market_lives_too(tmp_path):
    start = datetime(2024, 5, 1, tzinfo=UTC)
    count = 48
    price = [100.0 + k for k in range(count)]
    frame = pl.DataFrame(
        {
            "date": [start + k * MINUTES_5 for k in range(count)],
            **dict.fromkeys(("open", "high", "low", "close"), price),
            "volume": [1.0] * count,
        },
        schema_overrides={"date": pl.Datetime("ns", "UTC")},
    )
    (tmp_path / "ohlcv").mkdir()
    frame.write_ipc(tmp_path / "ohlcv" / "BTC_USDT-5m.feather")
    life = {
        "listings": {"BTC/USDT": {"from": at("00:20", start), "until": at("03:30", start)}},
        "outages": [[at("01:00", start), at("02:00", start)]],
        "quiet": {"BTC/USDT": [[at("03:00", start), at("03:05", start)]]},
    }
    with sandbox(world="replay", replay=tmp_path, **life) as world:
        fives = opened(bars(world, startTime=to_ms(start)))
        hours = opened(bars(world, "1h", startTime=to_ms(start)))
    sound = {start + k * MINUTES_5 for k in (*range(4, 12), *range(24, 36), *range(37, 42))}
    assert fives == sound
    assert hours == {start, at("02:00", start), at("03:00", start)}


def test_a_pair_vanishes_after_so_many_requests():
    faults = {"delisted_after": {"BTC/USDT": 2}}
    path = "klines?symbol=BTCUSDT&interval=1h&limit=3"
    with sandbox(now=NOW, faults=faults) as world:
        with httpx.Client(base_url=f"{world.url}/api/v3") as client:
            assert [client.get(path).status_code for _ in range(2)] == [200, 200]
            gone = client.get(path)
            names = [entry["symbol"] for entry in client.get("exchangeInfo").json()["symbols"]]
            tickers = [entry["symbol"] for entry in client.get("ticker/24hr").json()]
            assert client.get(path.replace("BTC", "ETH")).status_code == 200
        counted = httpx.get(f"{world.url}/faults").json()["counts"]
    assert gone.status_code == 400
    assert gone.json() == {"code": -1121, "msg": "Invalid symbol."}
    assert "BTCUSDT" not in names
    assert names == tickers
    assert counted == {"delisted_after": 1}


def test_life_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv(
        "CRYPTOML_SANDBOX_LISTINGS", '{"SOL/USDT": {"from": "2024-02-01", "until": "2024-03-01"}}'
    )
    monkeypatch.setenv("CRYPTOML_SANDBOX_OUTAGES", '[["2024-01-10T04:00:00Z", "2024-01-10T05:00"]]')
    monkeypatch.setenv("CRYPTOML_SANDBOX_QUIET", '{"XRP/USDT": [["2024-01-12", "2024-01-13"]]}')
    loaded = SandboxSettings.load()
    assert loaded.listings["SOL/USDT"].since == datetime(2024, 2, 1, tzinfo=UTC)
    assert loaded.listings["SOL/USDT"].until == datetime(2024, 3, 1, tzinfo=UTC)
    ten = datetime(2024, 1, 10, tzinfo=UTC)
    assert loaded.outages == [(at("04:00", ten), at("05:00", ten))]
    assert [len(spans) for spans in loaded.quiet.values()] == [1]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("LISTINGS", '{"SOL/USDT": {"till": "2024-02-01"}}', "till"),
        ("LISTINGS", '{"SOL/USDT": {"from": "2024-02-01", "until": "2024-01-01"}}', "ends before"),
        ("OUTAGES", '[["2024-02-01", "2024-01-01"]]', "ends before it begins"),
        ("OUTAGES", '[["2024-02-01"]]', "Field required"),
        ("QUIET", '[["2024-02-01", "2024-02-02"]]', "valid dictionary"),
    ],
)
def test_a_life_nothing_can_have_is_refused(monkeypatch, name, value, said):
    monkeypatch.setenv(f"CRYPTOML_SANDBOX_{name}", value)
    with pytest.raises(SettingsError, match=f"(?s)CRYPTOML_SANDBOX_{name}.*{said}"):
        SandboxSettings.load()


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"listings": {"DOGE/USDT": {"from": NOW}}}, "LISTINGS"),
        ({"quiet": {"DOGE/USDT": [(DAY, NOW)]}}, "QUIET"),
        ({"faults": {"delisted_after": {"DOGE/USDT": 1}}}, "FAULTS.delisted_after"),
    ],
)
def test_the_life_of_a_pair_the_world_lacks_is_refused(settings, name):
    with pytest.raises(ValueError, match=rf"{name}: no symbol DOGE/USDT.*BTC/USDT"):
        create_app(SandboxSettings(**settings))
