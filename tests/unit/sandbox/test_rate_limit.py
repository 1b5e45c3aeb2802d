from __future__ import annotations

import httpx
import pytest

from cryptoml_sandbox.rate_limit import RateLimit
from tests.sandbox_server import sandbox

NOW = "2024-01-03T00:02:00Z"
KLINES = "/api/v3/klines?symbol=BTCUSDT&interval=1m&limit=5"


class Hand:
    """A clock moved by hand."""

    def __init__(self, at=1_000_000.0):
        self.at = at

    def __call__(self):
        return self.at


@pytest.fixture
def clock():
    return Hand(1_000_020.0)  # a window of 60 s begins


def test_weight_is_counted_even_where_none_is_refused(clock):
    limit = RateLimit(clock=clock)
    assert [limit.ask(2000).used for _ in range(4)] == [2000, 4000, 6000, 8000]
    clock.at += 60
    assert limit.ask(5) == (200, 0, 5)
    assert limit.describe() == {
        "weight": 0,
        "seconds": 60,
        "used_weight": 8005,
        "peak_weight": 8000,
        "refused": 0,
        "banned": 0,
    }


def test_what_would_pass_the_limit_is_refused_until_the_window_ends(clock):
    limit = RateLimit(10, 60, clock=clock)
    clock.at += 17.5
    assert [limit.ask(4).status for _ in range(3)] == [200, 200, 429]
    assert limit.ask(4) == (429, 43, 8)
    assert limit.ask(2) == (200, 0, 10), "a lighter one still fits"
    clock.at += 42.4
    assert limit.ask(1).retry_after == 1
    clock.at += 0.1
    assert limit.ask(4) == (200, 0, 4)
    assert limit.describe()["peak_weight"] == 10
    assert limit.describe()["refused"] == 3


def test_who_asks_on_is_banned_for_a_while(clock):
    limit = RateLimit(1, 60, patience=3, ban_seconds=90, clock=clock)
    assert [limit.ask(1).status for _ in range(5)] == [200, 429, 429, 429, 418]
    clock.at += 60
    assert limit.ask(1) == (418, 30, 0), "the ban outlasts the window"
    clock.at += 30
    assert limit.ask(1).status == 200
    assert limit.describe()["refused"] == 4
    assert limit.describe()["banned"] == 2


def test_refused_requests_are_forgotten_with_their_window(clock):
    limit = RateLimit(1, 60, patience=3, clock=clock)
    for _ in range(3):
        assert [limit.ask(1).status for _ in range(4)] == [200, 429, 429, 429]
        clock.at += 60


@pytest.mark.parametrize(
    ("weight", "seconds", "interval", "count", "stated"),
    [
        (0, 5, "MINUTE", 1, 6000),
        (100, 60, "MINUTE", 1, 100),
        (100, 300, "MINUTE", 5, 100),
        (100, 10, "SECOND", 10, 100),
    ],
)
def test_the_limit_is_stated_as_the_venue_does(weight, seconds, interval, count, stated):
    assert RateLimit(weight, seconds).stated() == {
        "rateLimitType": "REQUEST_WEIGHT",
        "interval": interval,
        "intervalNum": count,
        "limit": stated,
    }


def test_the_venue_enforces_it_and_nobody_else():
    settings = {"rate_limit_weight": 24, "rate_limit_seconds": 3600, "rate_limit_patience": 1}
    with sandbox(now=NOW, **settings) as world, httpx.Client(base_url=world.url) as client:
        info = client.get("/api/v3/exchangeInfo")
        assert info.json()["rateLimits"][0]["limit"] == 24
        bars = [client.get(KLINES) for _ in range(4)]
        metrics = client.get("/v4/timeseries/asset-metrics?assets=btc&metrics=TxCnt")
        told = client.get("/faults").json()
    assert [answer.status_code for answer in bars] == [200, 200, 429, 418]
    assert [answer.headers["X-MBX-USED-WEIGHT-1M"] for answer in bars] == ["22", "24", "24", "24"]
    assert 0 < int(bars[2].headers["Retry-After"]) <= 3600
    assert bars[3].headers["Retry-After"] == "3"
    assert [answer.json()["code"] for answer in bars[2:]] == [-1003, -1003]
    assert "24 request weight per 3600 SECONDS" in bars[2].json()["msg"]
    assert metrics.status_code == 200
    assert told["counts"] == {}
    assert told["rate_limit"] == {
        "weight": 24,
        "seconds": 3600,
        "used_weight": 24,
        "peak_weight": 24,
        "refused": 2,
        "banned": 1,
    }
