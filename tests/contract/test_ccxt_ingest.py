"""Bars through the real ccxt from a real server: whatever it does, only true closed bars enter."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from cryptoml_assets.errors import (
    UnknownSymbolError,
    UnusableAnswerError,
    WorldUnreachableError,
)
from cryptoml_assets.prices.exchange import open_exchange
from cryptoml_assets.prices.fetch import BarRequest, Fetched, fetch_bars
from cryptoml_serving.contract.settings import SettingsError
from tests.sandbox_server import SandboxServer, sandbox, serve

NOW = "2024-01-05T00:07:00Z"
START, END = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 6, tzinfo=UTC)
#: Bars of four full days, and the one that closed at 00:05 of the fifth.
CLOSED = 4 * 288 + 1
WHAT = "raw_prices 2024-01-01 .. 2024-01-05"


def request(*symbols: str, **changes: Any) -> BarRequest:
    fields: dict[str, Any] = {
        "symbols": symbols or ("BTC/USDT", "ETH/USDT"),
        "timeframe": "5m",
        "bar": timedelta(minutes=5),
        "start": START,
        "end": END,
        "source": "simulated",
    }
    return BarRequest(**(fields | changes))


def fetch(url: str, wanted: BarRequest, **options: Any) -> Fetched:
    async def run() -> Fetched:
        settings: dict[str, Any] = {
            "address": url,
            "longest_wait": timedelta(seconds=10),
            "delays": (0.01, 0.02, 0.04),
            "own_pace": False,
        }
        async with open_exchange(**({"venue": "binance"} | settings | options)) as exchange:
            return await fetch_bars(exchange, wanted)

    return asyncio.run(run())


def fault_counts(world: SandboxServer) -> dict[str, Any]:
    answer: dict[str, Any] = httpx.get(f"{world.url}/faults").json()
    return answer


@pytest.fixture(scope="module")
def sound() -> Iterator[SandboxServer]:
    """A venue without faults, its clock at ``NOW``."""
    with sandbox(now=NOW) as world:
        yield world


@pytest.fixture(scope="module")
def truth(sound: SandboxServer) -> pl.DataFrame:
    """What a venue without faults answers."""
    return fetch(sound.url, request()).bars


def test_every_closed_bar_of_every_symbol_is_there_once(truth: pl.DataFrame) -> None:
    opens = pl.datetime_range(START, datetime(2024, 1, 5, tzinfo=UTC), "5m", eager=True)
    for symbol in ("BTC/USDT", "ETH/USDT"):
        assert truth.filter(symbol=symbol)["open_time"].to_list() == opens.to_list()
    assert truth.height == 2 * CLOSED


def test_the_forming_bar_the_venue_gives_does_not_enter(
    sound: SandboxServer, truth: pl.DataFrame
) -> None:
    async def newest(url: str) -> datetime:
        async with open_exchange(
            "binance", address=url, longest_wait=timedelta(seconds=9), delays=(), own_pace=False
        ) as exchange:
            span = (datetime(2024, 1, 5, tzinfo=UTC), END)
            rows = await exchange.bars("BTC/USDT", "5m", span, 1000, "newest")
            return datetime.fromtimestamp((rows[-1][0] or 0) / 1000, UTC)

    assert asyncio.run(newest(sound.url)) == datetime(2024, 1, 5, 0, 5, tzinfo=UTC)
    assert truth["open_time"].max() == datetime(2024, 1, 5, tzinfo=UTC)


def test_a_bar_enters_once_the_venues_clock_is_past_its_close() -> None:
    with sandbox(now="2024-01-01T00:09:59.900Z") as world:
        assert fetch(world.url, request()).bars.height == 2
        world.move_to(datetime(2024, 1, 1, 0, 10, 1, tzinfo=UTC))
        fetched = fetch(world.url, request())
    assert fetched.bars.height == 4
    assert datetime(2024, 1, 1, 0, 10, tzinfo=UTC) < fetched.venue_time
    assert fetched.venue_time < datetime(2024, 1, 1, 0, 10, 1, tzinfo=UTC), "less the round trip"


def test_days_the_venue_has_not_reached_have_no_bars(sound: SandboxServer) -> None:
    later = request(start=END, end=END + timedelta(days=1))
    assert fetch(sound.url, later).bars.is_empty()


@pytest.mark.parametrize(
    "faults",
    [
        {"rate_limited": 1.0, "limit": 3, "retry_after_seconds": 0},
        {"banned": 1.0, "limit": 2, "retry_after_seconds": 0},
        {"server_error": 1.0, "limit": 3},
        {"unavailable": 1.0, "limit": 3},
        {"truncated": 0.5, "limit": 6},
        {"missing_bars": 1.0, "limit": 2},
        {"duplicate_bars": 0.7, "limit": 3},
        {"descending_bars": 1.0},
        {"late_bars": 1.0, "limit": 2},
        {"server_error": 0.2, "truncated": 0.2, "missing_bars": 0.2, "limit": 8},
    ],
    ids="-".join,
)
def test_a_burst_of_faults_changes_no_bar(faults: dict[str, float], truth: pl.DataFrame) -> None:
    with sandbox(now=NOW, faults=faults) as world:
        assert_frame_equal(fetch(world.url, request()).bars, truth)
        assert fault_counts(world)["counts"], "no fault happened"


def test_a_stalled_answer_is_given_up_and_asked_for_again(truth: pl.DataFrame) -> None:
    faults = {"stall": 1.0, "stall_seconds": 1.0, "limit": 1}
    with sandbox(now=NOW, faults=faults) as world:
        fetched = fetch(world.url, request(), longest_wait=timedelta(seconds=0.3))
    assert_frame_equal(fetched.bars, truth)


def test_the_wait_the_venue_asks_for_is_kept() -> None:
    with sandbox(now=NOW, faults={"rate_limited": 1.0, "limit": 1}) as world:
        began = time.monotonic()
        fetch(world.url, request("BTC/USDT"))
        assert time.monotonic() - began >= 1.0


def test_a_venue_that_stays_down_fails_with_address_and_work() -> None:
    with sandbox(now=NOW, faults={"unavailable": 1.0}) as world:
        with pytest.raises(WorldUnreachableError, match="after 4 attempts") as caught:
            fetch(world.url, request())
        assert fault_counts(world)["requests"] == 4
        assert f"binance at {world.url}: markets for {WHAT}" in str(caught.value)


def test_a_venue_that_goes_down_half_way_names_the_partition_and_symbol(
    sound: SandboxServer,
) -> None:
    with serve(Altered(sound.app, fail=True)) as url:
        with pytest.raises(WorldUnreachableError, match="after 4 attempts") as caught:
            fetch(url, request("ETH/USDT"))
        assert f"binance at {url}: {WHAT} ETH/USDT 5m" in str(caught.value)


def test_nobody_listening_fails_with_the_address() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(WorldUnreachableError, match=f"binance at {url}"):
            fetch(url, request())


def test_answers_that_are_never_json_are_unusable() -> None:
    with (
        sandbox(now=NOW, faults={"truncated": 1.0}) as world,
        pytest.raises(UnusableAnswerError, match=r"after 4 attempts.*not JSON"),
    ):
        fetch(world.url, request())


def test_a_connection_cut_inside_an_answer_is_a_transient_fault() -> None:
    with cut_connections() as url, pytest.raises(WorldUnreachableError, match="after 4 attempts"):
        fetch(url, request())


@pytest.mark.parametrize("price", [b'"NaN"', b'"-1.0"', b'"0"', b'"no number"', b"null"])
def test_an_unusable_price_is_refused_and_the_bar_named(price: bytes, sound: SandboxServer) -> None:
    with (
        serve(Altered(sound.app, price=price)) as url,
        pytest.raises(UnusableAnswerError, match="BTC/USDT 5m: unusable bar at 2024-01-01 00:00"),
    ):
        fetch(url, request("BTC/USDT"))


def test_an_unknown_symbol_names_the_venue_and_close_matches(sound: SandboxServer) -> None:
    with pytest.raises(UnknownSymbolError) as caught:
        fetch(sound.url, request("ETH/USDT", "BTC/USTD", "QQQQQQ"))
    assert re.fullmatch(
        rf"binance at {sound.url} does not list BTC/USTD \(close: .*BTC/USDT.*\); QQQQQQ",
        str(caught.value),
    )


def test_an_unknown_venue_names_close_matches() -> None:
    with pytest.raises(SettingsError, match=r"CRYPTOML_VENUE='binanc': .*binance"):
        fetch("http://127.0.0.1:1", request(), venue="binanc")


def test_a_timeframe_the_venue_lacks_is_refused(sound: SandboxServer) -> None:
    with pytest.raises(UnusableAnswerError, match="serves no 7m bars"):
        fetch(sound.url, request(timeframe="7m", bar=timedelta(minutes=7)))


@pytest.mark.realdata
def test_replayed_bars_are_the_recorded_ones(realdata: Path) -> None:
    start, end = datetime(2024, 8, 4, tzinfo=UTC), datetime(2024, 8, 7, tzinfo=UTC)
    with sandbox(world="replay", replay=realdata, now="2024-08-08T00:00:00Z") as world:
        fetched = fetch(world.url, request(start=start, end=end, source="replay"))
    for symbol in ("BTC/USDT", "ETH/USDT"):
        file = realdata / "ohlcv" / f"{symbol.replace('/', '_')}-5m.feather"
        recorded = (
            pl.read_ipc(file)
            .filter(pl.col("date").is_between(start, end, closed="left"))
            .select(
                pl.col("date").cast(pl.Datetime("us", "UTC")).alias("open_time"),
                *(pl.col(name).cast(pl.Float64) for name in ("open", "high", "low", "close")),
                pl.col("volume").cast(pl.Float64),
            )
        )
        assert recorded.height == 3 * 288
        ours = fetched.bars.filter(symbol=symbol).select(recorded.columns)
        assert_frame_equal(ours, recorded, check_exact=True)


class Altered:
    """A venue whose klines carry ``price`` as each first price, or are refused."""

    def __init__(self, app: Any, price: bytes = b"", *, fail: bool = False) -> None:
        self.app, self.price, self.fail = app, price, fail

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if not scope.get("path", "").endswith("/klines"):
            await self.app(scope, receive, send)
            return
        if self.fail:
            await send({"type": "http.response.start", "status": 503, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        body = b'[[1704067200000,%s,"2.0","0.5","1.5","3.0",1704067499999,"4.0",1,"1","1","0"]]'
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body % self.price})


@contextlib.contextmanager
def cut_connections() -> Iterator[str]:
    """A server that promises more bytes than it sends, then closes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = threading.Event()
        listener.settimeout(0.05)

        def answer() -> None:
            while not done.is_set():
                with contextlib.suppress(TimeoutError):
                    connection, _ = listener.accept()
                    with connection:
                        connection.settimeout(5)
                        connection.recv(65536)
                        connection.sendall(
                            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                            b'Content-Length: 1000\r\n\r\n{"symbols": ['
                        )

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            done.set()
            thread.join()
