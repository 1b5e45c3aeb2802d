"""Any venue of ccxt: its pace, patience, pages and clock; without asking any of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import ccxt.async_support as ccxt
import httpx
import numpy as np
import pytest

from cryptoml_assets.errors import UnusableAnswerError
from cryptoml_assets.prices.bars import answer_rows
from cryptoml_assets.prices.client import StrictClient
from cryptoml_assets.prices.exchange import Exchange, open_exchange
from cryptoml_assets.prices.fetch import BarReader, BarRequest, Fetched, fetch_bars
from tests.sandbox_server import SandboxServer, sandbox, serve

NOW = "2024-01-05T00:07:00Z"
START, END = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 6, tzinfo=UTC)
BAR = timedelta(minutes=5)
CLOSED = 4 * 288 + 1
Result = TypeVar("Result")
#: Venues of which each answers in a shape of its own.
VENUES = ("binance", "kraken", "coinbase", "bybit", "okx")


def connected(
    url: str | None, use: Callable[[Exchange], Awaitable[Result]], **options: Any
) -> Result:
    settings: dict[str, Any] = {
        "venue": "binance",
        "address": url,
        "longest_wait": timedelta(seconds=10),
        "delays": (0.01, 0.02, 0.04),
        "own_pace": False,
    }

    async def run() -> Result:
        async with open_exchange(**(settings | options)) as exchange:
            return await use(exchange)

    return asyncio.run(run())


def request(*symbols: str, **changes: Any) -> BarRequest:
    fields: dict[str, Any] = {
        "symbols": symbols or ("BTC/USDT",),
        "timeframe": "5m",
        "bar": BAR,
        "start": START,
        "end": END,
        "source": "simulated",
    }
    return BarRequest(**(fields | changes))


async def fetch(exchange: Exchange) -> Fetched:
    return await fetch_bars(exchange, request("BTC/USDT", "ETH/USDT"))


def requests(world: SandboxServer) -> int:
    return int(httpx.get(f"{world.url}/faults").json()["requests"])


@pytest.mark.parametrize(
    ("venue", "bars"), [("binance", 1000), ("kraken", 720), ("coinbase", 300), ("bybit", 1000)]
)
def test_pages_are_as_long_as_the_venue_answers(venue: str, bars: int) -> None:
    async def page(exchange: Exchange) -> int:
        return exchange.page_bars

    assert connected("http://127.0.0.1:1", page, venue=venue) == bars


def test_pages_of_a_venue_unknown_to_ccxt_have_a_usual_length() -> None:
    async def page(exchange: Exchange) -> int:
        exchange.client.features = {"spot": {"fetchOHLCV": {"limit": None}}}
        return exchange.page_bars

    assert connected("http://127.0.0.1:1", page) == 500


def page(venue: str, *figures: Any) -> list[Any]:
    """Three bars as ``venue`` writes them, the second with ``figures`` in place of usual ones."""
    usual = ("42283.58", "42298.62", "42261.02", "42298.61", "35.92724")
    return [
        row(venue, 1_704_067_200_000, usual),
        row(venue, 1_704_067_500_000, (*figures, *usual[len(figures) :])),
        row(venue, 1_704_067_800_000, usual),
    ]


def row(venue: str, ms: int, figures: tuple[Any, ...]) -> Any:
    opened, high, low, close, volume = figures
    named = {"open": opened, "high": high, "low": low, "close": close, "volume": volume}
    return {
        "binance": [ms, opened, high, low, close, volume, ms + 299_999, "1.5", 7, "2", "3", "0"],
        "kraken": [ms // 1000, opened, high, low, close, "42290.1", volume, 12],
        "coinbase": {"start": str(ms // 1000), **named},
        "bybit": [str(ms), opened, high, low, close, volume, "1.5"],
        "okx": [str(ms), opened, high, low, close, volume, "1.5", "1.5", "1"],
    }[venue]


@pytest.mark.parametrize("venue", VENUES)
@pytest.mark.parametrize(
    "figures", [(), ("1e-8", "0.1"), ("",), ("no number",), ("NaN",), ("1_0",), (None,), (7, 8.5)]
)
def test_pages_are_read_as_ccxt_reads_them(venue: str, figures: tuple[Any, ...]) -> None:
    plain = getattr(ccxt, venue)()
    ours = type(venue, (StrictClient, getattr(ccxt, venue)), {})()
    market = {"type": "spot", "spot": True}
    rows = page(venue, *figures)
    expected = answer_rows(plain.parse_ohlcvs(rows, market), venue)
    assert np.array_equal(
        answer_rows(ours.parse_ohlcvs(rows, market), venue), expected, equal_nan=True
    )
    assert len(ours.parse_ohlcvs([], market)) == 0


@pytest.mark.parametrize(("venue", "is_fast"), [(venue, venue != "coinbase") for venue in VENUES])
def test_pages_of_lists_are_read_at_once(venue: str, is_fast: bool) -> None:
    client = type(venue, (StrictClient, getattr(ccxt, venue)), {})()
    read = client.parse_ohlcvs(page(venue), {"type": "spot", "spot": True})
    assert isinstance(read, np.ndarray) == is_fast


def test_a_venue_that_reads_pages_in_its_own_way_is_left_to_it() -> None:
    answer = {"t": [1_704_067_200], "o": [1], "h": [2], "l": [0.5], "c": [1.5], "v": [3]}
    client = type("btcturk", (StrictClient, ccxt.btcturk), {})()
    assert client.parse_ohlcvs(answer, {}) == ccxt.btcturk().parse_ohlcvs(answer, {}) != []


@pytest.mark.parametrize("venue", VENUES)
def test_every_venue_is_moved_to_an_address_and_asked_there(venue: str) -> None:
    paths: list[str] = []

    async def deaf(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            paths.append(scope["path"])
            await send({"type": "http.response.start", "status": 503, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    async def markets(exchange: Exchange) -> None:
        await exchange.listings(["BTC/USDT"], "markets")

    with serve(deaf) as url, pytest.raises(Exception, match=f"{venue} at {url}: markets"):
        connected(url, markets, venue=venue)
    assert paths


def test_a_venue_without_bars_is_refused() -> None:
    async def check(exchange: Exchange) -> None:
        exchange.client.has["fetchOHLCV"] = False
        exchange.check_timeframe("5m")

    with pytest.raises(UnusableAnswerError, match="serves no bars of its own"):
        connected("http://127.0.0.1:1", check)


def test_a_venue_that_answers_with_less_than_asked_is_read_to_the_end() -> None:
    with sandbox(now=NOW) as world, serve(_ShortPages(world.app, 100)) as url:
        fetched = connected(url, fetch)
        whole = connected(world.url, fetch)
    assert fetched.bars.height == 2 * CLOSED
    assert fetched.bars.equals(whole.bars)


def test_a_range_that_stays_empty_is_asked_for_twice() -> None:
    quiet = {"BTC/USDT": [["2024-01-02T00:00:00Z", "2024-01-02T06:00:00Z"]]}

    async def read(exchange: Exchange) -> int:
        reader = BarReader(exchange, "bars")
        span = (START, START + 576 * BAR)
        return len(await reader.read("BTC/USDT", "5m", BAR, [span]))

    with sandbox(now=NOW, quiet=quiet) as world:
        assert connected(world.url, read) == 576 - 72
        assert requests(world) == 1 + 2, "the markets, the page, and the range it left out"


def test_a_storm_of_refusals_pauses_all_requests_at_once() -> None:
    faults = {"rate_limited": 1.0, "limit": 8, "retry_after_seconds": 1}

    async def read(exchange: Exchange) -> float:
        await exchange.listings(["BTC/USDT"], "markets")
        began = time.monotonic()
        reader = BarReader(exchange, "bars")
        spans = [(START + i * 36 * BAR, START + (i + 1) * 36 * BAR) for i in range(30)]
        rows = await reader.read("BTC/USDT", "5m", BAR, spans)
        assert len(rows) == 30 * 36
        return time.monotonic() - began

    with sandbox(now=NOW) as calm:
        connected(calm.url, read)
    with sandbox(now=NOW, faults=faults) as world:
        # The markets alone are refused three times; the storm goes on with the bars.
        took = connected(world.url, read, delays=(0.01,) * 8)
        struck = httpx.get(f"{world.url}/faults").json()
    assert struck["counts"]["rate_limited"] == 8
    assert struck["requests"] <= 1 + 30 + 8, "none asked on while the venue had told one to wait"
    assert took < 8


def test_no_request_starts_before_the_venues_patience_is_over() -> None:
    started: list[float] = []

    async def refuse_once(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        started.append(time.monotonic())
        status, headers = (429, [(b"retry-after", b"1")]) if len(started) == 1 else (200, [])
        headers = [*headers, (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"serverTime": 1704412800000}'})

    async def ask(exchange: Exchange) -> None:
        first = asyncio.create_task(exchange.clock("first"))
        await asyncio.sleep(0.3)
        await asyncio.gather(first, *(exchange.clock(str(i)) for i in range(5)))

    with serve(refuse_once) as url:
        connected(url, ask)
    assert len(started) == 1 + 6
    assert min(started[1:]) - started[0] >= 1.0


@pytest.mark.parametrize("told", ["2", "instant"])
def test_patience_is_told_in_seconds_or_as_an_instant(told: str) -> None:
    later = datetime.now(UTC) + timedelta(seconds=2)
    text = later.strftime("%a, %d %b %Y %H:%M:%S GMT") if told == "instant" else told
    client = type("binance", (StrictClient, ccxt.binance), {})()
    with pytest.raises(ccxt.RateLimitExceeded) as caught:
        client.handle_errors(
            429, "Busy", "http://v", "GET", {"Retry-After": text}, "", None, {}, ""
        )
    assert 0 < caught.value.retry_after <= 2


def test_a_rate_limit_is_kept_and_used() -> None:
    limit_ms, pages = 50.0, 40

    async def read(exchange: Exchange) -> float:
        await exchange.client.load_markets()
        cost = exchange.client.calculate_rate_limiter_cost
        weight = cost("public", "GET", "klines", {"limit": 5}, _kline_cost(exchange))
        began = time.perf_counter()
        reader = BarReader(exchange, "bars")
        spans = [(START + i * 5 * BAR, START + (i + 1) * 5 * BAR) for i in range(pages)]
        assert len(await reader.read("BTC/USDT", "5m", BAR, spans)) == pages * 5
        return (time.perf_counter() - began) / ((pages - 1) * limit_ms / 1000 * weight)

    with sandbox(now=NOW) as world:
        share = connected(world.url, read, own_pace=True, rate_limit=limit_ms)
    assert share >= 0.97, "the last request waits for those before it"
    assert share <= 2, "how close to 1 it comes is for the benchmark to say, on a quiet machine"


def test_a_venue_without_a_clock_of_its_own_is_read_by_the_date_of_its_answers() -> None:
    async def clock(exchange: Exchange) -> tuple[float, float]:
        exchange.client.has["fetchTime"] = False
        told = await exchange.clock("clock")
        return (datetime.now(UTC) - told.at).total_seconds(), told.skew.total_seconds()

    with sandbox() as world:
        behind, skew = connected(world.url, clock)
    assert 1.0 <= behind < 3.5
    assert -3.5 < skew <= -1.0


def test_a_venue_that_tells_no_time_at_all_is_refused() -> None:
    async def clock(exchange: Exchange) -> None:
        exchange.client.has["fetchTime"] = False
        await exchange.client.load_markets()
        exchange.client._last_answer = ({}, timedelta(0))
        await exchange.clock("clock")

    with (
        sandbox(now=NOW) as world,
        pytest.raises(UnusableAnswerError, match="no bar is known to have closed"),
    ):
        connected(world.url, clock)


def _kline_cost(exchange: Exchange) -> Any:
    return exchange.client.api["public"]["get"]["klines"]


class _ShortPages:
    """A venue that answers with at most ``most`` bars, whatever is asked."""

    def __init__(self, app: Any, most: int) -> None:
        self.app, self.most = app, most

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope.get("path", "").endswith("/klines"):
            parts = [
                f"limit={self.most}" if part.startswith("limit=") else part
                for part in scope["query_string"].decode().split("&")
            ]
            scope = scope | {"query_string": "&".join(parts).encode()}
        await self.app(scope, receive, send)
