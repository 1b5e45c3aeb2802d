from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import httpx
import polars as pl
import pytest

from cryptoml_sandbox.app import create_app
from cryptoml_sandbox.clock import to_ms
from cryptoml_sandbox.replay import RecordedMarket, RecordedMetrics, ReplayError
from cryptoml_sandbox.settings import SandboxSettings
from cryptoml_sandbox.venue import Page, klines
from tests.sandbox_server import sandbox

START = datetime(2024, 5, 1, tzinfo=UTC)
FIVE = timedelta(minutes=5)


def record(folder, name="BTC_USDT", drop=(), **columns):
    """A made-up recording of 24 bars from START, in freqtrade's shape."""
    rows = [k for k in range(24) if k not in drop]
    frame = pl.DataFrame(
        {
            "date": [START + k * FIVE for k in rows],
            "open": [100.5 + k for k in rows],
            "high": [102.25 + k for k in rows],
            "low": [99.0 + k for k in rows],
            "close": [101.5 + k for k in rows],
            "volume": [1.125 * k for k in rows],
        },
        schema_overrides={"date": pl.Datetime("ns", "UTC")},
    ).with_columns(**columns)
    path = folder / "ohlcv" / f"{name}-5m.feather"
    path.parent.mkdir(exist_ok=True)
    frame.write_ipc(path)
    return frame


def served(folder, **more):
    return sandbox(world="replay", replay=folder, **more)


def test_bars_are_served_as_recorded_at_their_own_dates(tmp_path):
    frame = record(tmp_path)
    with served(tmp_path) as world, httpx.Client(base_url=world.url) as client:
        answer = client.get("/api/v3/klines?symbol=BTCUSDT&interval=5m")
        described = client.get("/world").json()
    rows = answer.json()
    assert answer.headers["X-Cryptoml-Source"] == "replay"
    assert [row[0] for row in rows] == [to_ms(t) for t in frame["date"]]
    assert [[float(x) for x in row[1:6]] for row in rows] == [
        list(row) for row in frame.select("open", "high", "low", "close", "volume").rows()
    ]
    assert described["source"] == "replay"
    assert described["symbols"] == ["BTC/USDT"]
    past_the_end = datetime.fromisoformat(described["now"]) - (START + 24 * FIVE)
    assert timedelta(0) < past_the_end < FIVE
    assert any(part.startswith("blocks") for part in described["simulated_parts"])


def test_the_clock_hides_what_was_not_yet_recorded(tmp_path):
    record(tmp_path)
    now = START + 3 * FIVE + timedelta(minutes=2)
    with served(tmp_path, now=now) as world:
        rows = httpx.get(f"{world.url}/api/v3/klines?symbol=BTCUSDT&interval=5m").json()
    assert [row[0] for row in rows] == [to_ms(START + k * FIVE) for k in range(4)]
    assert float(rows[-1][1]) == 103.5
    assert float(rows[-1][5]) < 1.125 * 3  # still forming


def test_longer_bars_come_from_resampling(tmp_path):
    record(tmp_path)
    with served(tmp_path) as world:
        rows = httpx.get(f"{world.url}/api/v3/klines?symbol=BTCUSDT&interval=1h").json()
    assert [[float(x) for x in row[1:6]] for row in rows] == [
        [100.5, 113.25, 99.0, 112.5, 1.125 * 66],
        [112.5, 125.25, 111.0, 124.5, 1.125 * 210],
    ]


@pytest.mark.parametrize("interval", ["1m", "3m", "7m"])
def test_finer_bars_than_recorded_are_refused(tmp_path, interval):
    record(tmp_path)
    with served(tmp_path) as world:
        answer = httpx.get(f"{world.url}/api/v3/klines?symbol=BTCUSDT&interval={interval}")
    assert answer.status_code == 400
    assert answer.json()["code"] == -1120


def test_a_gap_stays_a_gap_and_pages_reach_over_it(tmp_path):
    record(tmp_path, drop=range(5, 15))
    market = RecordedMarket(tmp_path)
    (symbol,) = market.symbols
    end = to_ms(START + 24 * FIVE)
    page = klines(market, symbol, "5m", Page(to_ms(START), None, 8), end)
    kept = [*range(5), *range(15, 18)]
    assert page.open_time.tolist() == [to_ms(START + k * FIVE) for k in kept]
    newest = klines(market, symbol, "5m", Page(None, None, 12), end)
    kept = [*range(2, 5), *range(15, 24)]
    assert newest.open_time.tolist() == [to_ms(START + k * FIVE) for k in kept[-12:]]


def test_odd_recordings_are_put_in_order(tmp_path):
    frame = record(tmp_path, date_duplicated_0=pl.lit("junk"))
    path = tmp_path / "ohlcv" / "BTC_USDT-5m.feather"
    pl.concat([frame.reverse(), frame.head(3)]).write_ipc(path)
    market = RecordedMarket(tmp_path)
    bars = market.bars(market.symbols[0], 0, to_ms(START + timedelta(days=1)))
    assert bars.open_time.tolist() == [to_ms(t) for t in frame["date"]]


def test_a_recording_without_a_column_is_named(tmp_path):
    record(tmp_path)
    path = tmp_path / "ohlcv" / "BTC_USDT-5m.feather"
    pl.read_ipc(path).drop("close").write_ipc(path)
    with pytest.raises(ReplayError, match=r"BTC_USDT-5m\.feather: no column close"):
        RecordedMarket(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ohlcv/BTC_USDT-5m.feather", b"junk"),
        ("onchain/btc.csv", b"day,TxCnt\n2024-05-01,1\n"),
        ("onchain/btc.csv", b"time,TxCnt\nyesterday,1\n"),
        ("onchain/btc.csv", b"time,TxCnt\n"),
    ],
)
def test_a_file_that_is_no_recording_is_named(tmp_path, name, content):
    record(tmp_path)
    (tmp_path / "onchain").mkdir()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ReplayError, match=name):
        create_app(SandboxSettings(world="replay", replay=tmp_path))


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(ReplayError, match="no ohlcv"):
        RecordedMarket(tmp_path)


def test_metrics_are_served_as_recorded(tmp_path):
    folder = tmp_path / "onchain"
    folder.mkdir()
    (folder / "btc.csv").write_text(
        "time,AdrActCnt,TxCnt,HashRate,PriceUSD\n"
        "2021-05-04,12.0,,1.5,53724.10892519\n"
        "2021-05-05,13.0,7.0,,57342.0256616014\n"
    )
    recorded = RecordedMetrics(tmp_path)
    assert recorded.metrics == {"btc": ("AdrActCnt", "TxCnt", "HashRate", "PriceUSD")}
    assert recorded.row("btc", date(2021, 5, 4)) == {
        "AdrActCnt": "12.0",
        "HashRate": "1.5",
        "PriceUSD": "53724.10892519",
    }
    assert recorded.row("btc", date(2021, 5, 6)) is None


def test_a_folder_without_metrics_has_none(tmp_path):
    assert RecordedMetrics(tmp_path).metrics == {}


@pytest.mark.realdata
@pytest.mark.parametrize("pair", ["BTC_USDT", "ETH_USDT"])
def test_resampled_recordings_equal_the_venues_own_hourly_bars(realdata, pair):
    market = RecordedMarket(realdata)
    symbol = next(s for s in market.symbols if s.id == pair.replace("_", ""))
    native = pl.read_ipc(realdata / "ohlcv" / f"{pair}-1h.feather").sort("date")
    first, last = market.extent(symbol)
    hours = klines(market, symbol, "1h", Page(first, last - 3_600_000, 10**5), last)
    ours = pl.DataFrame(
        {
            "ms": hours.open_time,
            **{k: getattr(hours, k) for k in ("open", "high", "low", "close", "volume")},
        }
    )
    scale = pl.col("open", "high", "low", "close") * 10**symbol.price_decimals
    theirs = native.select(
        pl.col("date").dt.epoch("ms").alias("ms"),
        scale.round().cast(pl.Int64),
        (pl.col("volume") * 10**symbol.lot_decimals).round().cast(pl.Int64),
    )
    both = ours.join(theirs, on="ms", how="inner", suffix="_native")
    assert both.height > 5900
    for column in ("open", "high", "low", "close", "volume"):
        assert both.filter(pl.col(column) != pl.col(f"{column}_native")).height == 0, column
