"""The real, unmodified ccxt.binance against the sandbox: only its base URL is another."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import ccxt
import ccxt.async_support
import httpx
import pytest

from cryptoml_sandbox.bars import INTERVALS
from cryptoml_sandbox.clock import to_ms
from tests.sandbox_server import sandbox, venue_client_options

NOW = datetime(2024, 2, 1, 0, 2, 30, tzinfo=UTC)
NOW_MS = to_ms(NOW)
GENESIS_MS = to_ms(datetime(2024, 1, 1, tzinfo=UTC))
FIVE_MS = 300_000


@pytest.fixture(scope="module")
def world():
    with sandbox(now=NOW) as server:
        yield server


@pytest.fixture(scope="module")
def exchange(world):
    client = ccxt.binance(venue_client_options(world.url))
    client.load_markets()
    return client


def ask(world, path):
    return httpx.get(f"{world.url}/api/v3/{path}")


def test_markets_load_with_ticks_and_lots(exchange):
    assert list(exchange.markets) == ["BTC/USDT", "ETH/USDT", "SOL/USDT", "BNB/USDT", "XRP/USDT"]
    btc = exchange.market("BTC/USDT")
    assert btc["spot"]
    assert btc["active"]
    assert btc["precision"]["price"] == 0.01
    assert btc["precision"]["amount"] == 0.00001
    assert exchange.market("XRP/USDT")["precision"]["amount"] == 1.0


def test_the_server_time_is_the_worlds(exchange):
    assert exchange.fetch_time() == NOW_MS


def test_bars_come_a_thousand_at_a_time_from_a_start(exchange):
    bars = exchange.fetch_ohlcv("BTC/USDT", "5m", since=GENESIS_MS, limit=1000)
    assert [bar[0] for bar in bars] == [GENESIS_MS + k * FIVE_MS for k in range(1000)]
    assert bars[0][1] == 42283.58
    assert exchange.last_response_headers["X-Cryptoml-Source"] == "simulated"
    assert int(exchange.last_response_headers["X-Mbx-Used-Weight-1m"]) > 0


def test_the_newest_bar_is_still_forming(exchange):
    (closed, forming) = exchange.fetch_ohlcv("BTC/USDT", "5m", limit=2)
    assert closed[0] + FIVE_MS <= NOW_MS < forming[0] + FIVE_MS
    assert forming[5] < closed[5]


@pytest.mark.parametrize("interval", sorted(set(INTERVALS) & set(ccxt.binance().timeframes)))
def test_every_interval_of_the_client_is_served(exchange, interval):
    bars = exchange.fetch_ohlcv("ETH/USDT", interval, limit=3)
    assert len(bars) >= 1
    assert all(low <= min(o, c) <= max(o, c) <= high for _, o, high, low, c, _ in bars)
    assert bars[-1][0] <= NOW_MS


def test_only_seconds_are_missing_of_the_clients_intervals():
    assert set(ccxt.binance().timeframes) - set(INTERVALS) == {"1s"}


def test_trades_make_the_bar_of_their_minute(exchange):
    minute = NOW_MS // 60_000 * 60_000 - 60_000
    trades = exchange.fetch_trades("SOL/USDT", since=minute, params={"endTime": minute + 59_999})
    (bar,) = exchange.fetch_ohlcv("SOL/USDT", "1m", since=minute, limit=1)
    prices = [trade["price"] for trade in trades]
    assert bar[1:5] == [prices[0], max(prices), min(prices), prices[-1]]
    assert bar[5] == pytest.approx(sum(trade["amount"] for trade in trades), rel=1e-12)
    assert {trade["side"] for trade in trades} <= {"buy", "sell"}


def test_trades_page_on_by_id(exchange):
    newest = exchange.fetch_trades("BTC/USDT", limit=10)
    again = exchange.fetch_trades("BTC/USDT", limit=5, params={"fromId": newest[0]["id"]})
    assert [trade["id"] for trade in again] == [trade["id"] for trade in newest[:5]]
    assert all(trade["timestamp"] <= NOW_MS for trade in newest)


def test_the_ticker_sums_up_the_last_day(exchange):
    ticker = exchange.fetch_ticker("BTC/USDT")
    bars = exchange.fetch_ohlcv("BTC/USDT", "1m", limit=1000)
    assert ticker["last"] == bars[-1][4]
    assert ticker["high"] >= max(bar[2] for bar in bars)
    assert ticker["low"] <= min(bar[3] for bar in bars)
    assert ticker["bid"] < ticker["last"] < ticker["ask"]
    assert ticker["baseVolume"] > sum(bar[5] for bar in bars)
    assert ticker["change"] == pytest.approx(ticker["last"] - ticker["open"])
    assert set(exchange.fetch_tickers()) == set(exchange.markets)
    assert set(exchange.fetch_tickers(["BTC/USDT", "XRP/USDT"])) == {"BTC/USDT", "XRP/USDT"}


def test_the_order_book_surrounds_the_last_price(exchange):
    book = exchange.fetch_order_book("BTC/USDT", limit=20)
    last = exchange.fetch_ticker("BTC/USDT")["last"]
    bids, asks = ([level[0] for level in book[side]] for side in ("bids", "asks"))
    assert len(bids) == len(asks) == 20
    assert bids == sorted(bids, reverse=True)
    assert asks == sorted(asks)
    assert bids[0] < last < asks[0]


def test_an_unlisted_pair_is_the_clients_bad_symbol(exchange, world):
    with pytest.raises(ccxt.BadSymbol):
        exchange.fetch_ohlcv("FOO/USDT")
    with pytest.raises(ccxt.BadSymbol):
        exchange.public_get_klines({"symbol": "FOOUSDT", "interval": "5m"})
    answer = ask(world, "klines?symbol=FOOUSDT&interval=5m")
    assert answer.status_code == 400
    assert answer.json() == {"code": -1121, "msg": "Invalid symbol."}


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("klines?interval=5m", -1102),
        ("klines?symbol=BTCUSDT", -1102),
        ("klines?symbol=BTCUSDT&interval=7m", -1120),
        ("klines?symbol=BTCUSDT&interval=5m&limit=ten", -1100),
        ("klines?symbol=BTCUSDT&interval=5m&limit=0", -1130),
        ("klines?symbol=BTCUSDT&interval=5m&startTime=-5", -1100),
        ("aggTrades?symbol=NOPE", -1121),
        ("depth", -1102),
        ('ticker/24hr?symbols=["NOPE"]', -1121),
        ("exchangeInfo?symbol=NOPE", -1121),
    ],
)
def test_bad_requests_get_the_venues_codes(world, path, code):
    answer = ask(world, path)
    assert answer.status_code == 400
    assert answer.json()["code"] == code


def test_bounds_are_inclusive_and_a_limit_is_clipped(world):
    path = f"klines?symbol=BTCUSDT&interval=5m&startTime={GENESIS_MS}&endTime="
    assert len(ask(world, path + str(GENESIS_MS + FIVE_MS)).json()) == 2
    assert len(ask(world, path + str(GENESIS_MS + FIVE_MS - 1)).json()) == 1
    assert len(ask(world, f"{path}{NOW_MS}&limit=5000").json()) == 1000
    assert ask(world, f"klines?symbol=BTCUSDT&interval=5m&endTime={GENESIS_MS - 1}").json() == []
    assert ask(world, f"klines?symbol=BTCUSDT&interval=5m&startTime={NOW_MS + 1}").json() == []


def test_numbers_are_text_with_eight_decimals_as_the_venue_writes_them(world):
    (row,) = ask(world, "klines?symbol=XRPUSDT&interval=1h&limit=1").json()
    assert [type(cell) for cell in row] == [int, *[str] * 5, int, str, int, str, str, str]
    assert all(len(cell.partition(".")[2]) == 8 for cell in [*row[1:6], row[7], *row[9:11]])
    assert row[6] == row[0] + 3_600_000 - 1
    assert row[11] == "0"


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("rate_limited", ccxt.DDoSProtection),
        ("banned", ccxt.DDoSProtection),
        ("server_error", ccxt.OperationFailed),
        ("unavailable", ccxt.ExchangeNotAvailable),
    ],
)
def test_faults_are_the_clients_own_errors(fault, error):
    with sandbox(now=NOW, faults={fault: 1.0, "limit": 1}) as faulty:
        client = ccxt.binance(venue_client_options(faulty.url))
        with pytest.raises(error):
            client.fetch_time()
        assert client.fetch_time() == NOW_MS


@pytest.mark.parametrize("fault", ["cut", "truncated"])
def test_a_body_that_breaks_off_is_no_page(fault):
    with sandbox(now=NOW, faults={fault: 1.0, "limit": 1}) as faulty:
        client = ccxt.binance(venue_client_options(faulty.url))
        query = {"symbol": "BTCUSDT", "interval": "5m", "limit": 1000}
        with pytest.raises((ccxt.NetworkError, ccxt.ExchangeError)):
            client.fetch_ohlcv("BTC/USDT", "5m")
        assert len(client.public_get_klines(query)) == 1000


@pytest.mark.parametrize("fault", ["cut", "stall_mid_page"])
def test_half_a_page_is_the_asynchronous_clients_plain_error(fault):
    """Of the client's errors it is the broadest, with nothing of the venue's in its message."""

    async def fetch(world):
        client = ccxt.async_support.binance(venue_client_options(world.url))
        try:
            with pytest.raises(ccxt.ExchangeError) as caught:
                await client.public_get_time()
            return await client.fetch_time(), caught.value
        finally:
            await client.close()

    with sandbox(now=NOW, faults={fault: 1.0, "stall_seconds": 0.2, "limit": 1}) as faulty:
        time, error = asyncio.run(fetch(faulty))
    assert time == NOW_MS
    assert type(error) is ccxt.ExchangeError
    assert type(error.__cause__).__name__ == "ClientPayloadError"


def test_the_rate_limit_is_the_clients_error_and_says_when_to_ask_again():
    limit = {"rate_limit_weight": 3, "rate_limit_seconds": 3600, "rate_limit_patience": 1}
    with sandbox(now=NOW, **limit) as strict:
        client = ccxt.binance(venue_client_options(strict.url))
        for _ in range(3):
            client.fetch_time()
        for status in ("429", "418"):
            with pytest.raises(ccxt.DDoSProtection, match=f"{status} .*-1003"):
                client.fetch_time()
        assert int(client.last_response_headers["Retry-After"]) > 0


def test_a_symbol_that_no_longer_trades_is_inactive_and_keeps_its_past():
    listings = {"SOL/USDT": {"from": NOW - timedelta(days=9), "until": NOW - timedelta(days=2)}}
    with sandbox(now=NOW, listings=listings) as world:
        client = ccxt.binance(venue_client_options(world.url))
        active = {name: market["active"] for name, market in client.load_markets().items()}
        bars = client.fetch_ohlcv("SOL/USDT", "1h", since=GENESIS_MS, limit=1000)
    assert active == {name: name != "SOL/USDT" for name in active}
    assert len(bars) == 7 * 24 + 1
    assert bars[-1][0] < NOW_MS - 2 * 86_400_000


def test_a_symbol_delisted_meanwhile_is_the_clients_bad_symbol():
    with sandbox(now=NOW, faults={"delisted_after": {"ETH/USDT": 2}}) as world:
        client = ccxt.binance(venue_client_options(world.url))
        assert client.fetch_ohlcv("ETH/USDT", "1h", limit=3)
        with pytest.raises(ccxt.BadSymbol):
            client.fetch_ohlcv("ETH/USDT", "1h", limit=3)
        client.load_markets(reload=True)
        assert "ETH/USDT" not in client.markets


def test_a_stall_is_the_clients_timeout():
    with sandbox(now=NOW, faults={"stall": 1.0, "stall_seconds": 3, "limit": 1}) as faulty:
        client = ccxt.binance({**venue_client_options(faulty.url), "timeout": 200})
        with pytest.raises(ccxt.RequestTimeout):
            client.fetch_time()


def test_the_asynchronous_client_gets_the_same_bars(exchange, world):
    async def fetch():
        client = ccxt.async_support.binance(venue_client_options(world.url))
        try:
            return await asyncio.gather(
                *(
                    client.fetch_ohlcv(pair, "5m", since=GENESIS_MS, limit=50)
                    for pair in ("BTC/USDT", "ETH/USDT")
                )
            )
        finally:
            await client.close()

    assert asyncio.run(fetch()) == [
        exchange.fetch_ohlcv(pair, "5m", since=GENESIS_MS, limit=50)
        for pair in ("BTC/USDT", "ETH/USDT")
    ]


def test_a_moved_clock_shows_more_and_changes_nothing():
    with sandbox(now=NOW) as moving:
        client = ccxt.binance(venue_client_options(moving.url))
        before = client.fetch_ohlcv("BTC/USDT", "5m", since=GENESIS_MS, limit=20)
        early = client.fetch_ohlcv("BTC/USDT", "5m", limit=3)
        moving.move_to(NOW + timedelta(minutes=5))
        late = client.fetch_ohlcv("BTC/USDT", "5m", limit=4)
        assert client.fetch_ohlcv("BTC/USDT", "5m", since=GENESIS_MS, limit=20) == before
    assert late[:2] == early[:2]
    assert late[2][0] == early[2][0]
    assert late[2] != early[2]
    assert len(late) == 4
