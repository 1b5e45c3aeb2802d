"""Answers that break off, and storms of refusals, seen by a plain HTTP client."""

from __future__ import annotations

import asyncio
import logging
import time

import httpx
import pytest

from cryptoml_sandbox.app import create_app
from cryptoml_sandbox.settings import SandboxSettings
from tests.sandbox_server import sandbox

NOW = "2024-01-03T00:02:00Z"
KLINES = "/api/v3/klines?symbol=BTCUSDT&interval=1m&limit=200"


def ask(client, path=KLINES):
    """Status, declared length and as much of the body as came; whether it broke off."""
    body = b""
    with client.stream("GET", path) as answer:
        try:
            for part in answer.iter_bytes():
                body += part
        except httpx.RemoteProtocolError:
            return answer, body, True
    return answer, body, False


@pytest.mark.parametrize("seconds", [0.0, 0.4])
def test_a_connection_breaks_off_in_the_middle_of_a_body(seconds, caplog):
    kind = "stall_mid_page" if seconds else "cut"
    faults = {kind: 1.0, "limit": 1, "stall_seconds": seconds or 30.0}
    with sandbox(now=NOW, faults=faults) as world, httpx.Client(base_url=world.url) as client:
        began = time.monotonic()
        broken, half, broke_off = ask(client)
        took = time.monotonic() - began
        _, whole, again = ask(client)
        counted = client.get("/faults").json()["counts"]
    assert broken.status_code == 200
    assert (broke_off, again) == (True, False)
    assert int(broken.headers["Content-Length"]) == len(whole)
    assert half == whole[: len(whole) // 2]
    assert seconds <= took < seconds + 5
    assert counted == {kind: 1}
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_client_that_waits_less_gets_half_a_page_and_its_own_timeout():
    faults = {"stall_mid_page": 1.0, "stall_seconds": 1.0}
    with sandbox(now=NOW, faults=faults) as world, pytest.raises(httpx.ReadTimeout):
        httpx.get(world.url + KLINES, timeout=0.2)


def test_node_and_metrics_break_off_too():
    with sandbox(now=NOW, faults={"cut": 1.0}) as world:
        call = {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId"}
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.post(world.rpc_url, json=call)
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"{world.url}/v4/timeseries/asset-metrics?assets=btc&metrics=TxCnt")


def statuses(count, path="/api/v3/ping", **faults):
    """Answers of a world asked in its own process, where thousands of requests take no time."""
    app = create_app(SandboxSettings(now=NOW, faults=faults))

    async def run():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://world") as client:
            answers = [await client.get(path) for _ in range(count)]
            return answers, (await client.get("/faults")).json()["counts"]

    return asyncio.run(run())


def test_a_storm_refuses_so_many_requests_in_a_row():
    answers, counted = statuses(600, storm=0.02, storm_requests=7, retry_after_seconds=4)
    refused = [answer.status_code == 429 for answer in answers]
    assert {(a.status_code, a.headers.get("Retry-After")) for a in answers} == {
        (200, None),
        (429, "4"),
    }
    runs = "".join("x" if one else " " for one in refused).strip().split()
    assert len(runs) > 3
    assert all(len(run) % 7 == 0 for run in runs[:-1])
    assert counted == {"storm": sum(refused)}


def test_a_storm_is_seeded_and_ends_at_the_limit():
    one, other = (
        [answer.status_code for answer in statuses(40, storm=1.0, storm_requests=9, limit=12)[0]]
        for _ in range(2)
    )
    assert one == other == [429] * 12 + [200] * 28


def test_at_most_one_thing_is_wrong_with_a_body():
    _, counted = statuses(50, truncated=1.0, cut=1.0, stall_mid_page=1.0)
    assert counted == {"truncated": 50}
    _, counted = statuses(50, storm=1.0, banned=1.0, cut=1.0)
    assert counted == {"storm": 50}


def test_other_faults_leave_the_schedule_of_one_as_it_is():
    alone, _ = statuses(80, server_error=0.2)
    together, _ = statuses(80, server_error=0.2, late_bars=0.5, truncated=0.3)
    assert [a.status_code for a in alone] == [a.status_code for a in together]
