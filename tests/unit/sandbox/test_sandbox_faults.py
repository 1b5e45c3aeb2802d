from __future__ import annotations

import time
from datetime import UTC, datetime

import httpx
import pytest

from cryptoml_sandbox.bars import MINUTE_MS
from cryptoml_sandbox.clock import to_ms
from cryptoml_sandbox.faults import FaultSchedule
from cryptoml_sandbox.settings import Faults
from tests.sandbox_server import sandbox

NOW = "2024-01-03T00:02:00Z"
NOW_MS = to_ms(datetime(2024, 1, 3, 0, 2, tzinfo=UTC))
KLINES = "/api/v3/klines?symbol=BTCUSDT&interval=1m&limit=200"


def ask(path=KLINES, times=1, **faults):
    with sandbox(now=NOW, faults=faults) as world, httpx.Client(base_url=world.url) as client:
        answers = [client.get(path) for _ in range(times)]
        return answers, client.get("/faults").json()


@pytest.fixture(scope="module")
def sound():
    (answer,), counted = ask()
    assert counted["requests"] == 1
    assert counted["counts"] == {}
    return answer.json()


@pytest.mark.parametrize(
    ("kind", "status", "code", "retry_after"),
    [
        ("rate_limited", 429, -1003, "3"),
        ("banned", 418, -1003, "3"),
        ("server_error", 500, -1000, None),
        ("unavailable", 503, None, None),
    ],
)
def test_a_refusal_is_the_venues_own(kind, status, code, retry_after):
    (answer,), counted = ask(**{kind: 1.0, "retry_after_seconds": 3})
    assert answer.status_code == status
    assert ("json" in answer.headers["Content-Type"]) == (code is not None)
    assert code is None or answer.json()["code"] == code
    assert answer.headers.get("Retry-After") == retry_after
    assert counted["counts"] == {kind: 1}


def test_a_truncated_answer_is_half_of_the_whole(sound):
    (answer,), _ = ask(truncated=1.0)
    assert answer.status_code == 200
    with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
        answer.json()
    assert answer.text.startswith("[[")


def test_a_stall_makes_the_client_wait():
    began = time.monotonic()
    (answer,), _ = ask(stall=1.0, stall_seconds=0.3)
    assert time.monotonic() - began > 0.3
    assert answer.status_code == 200


def test_faults_end_at_their_limit(sound):
    answers, counted = ask(times=4, unavailable=1.0, limit=2)
    assert [answer.status_code for answer in answers] == [503, 503, 200, 200]
    assert answers[-1].json() == sound
    assert counted["requests"] == 4
    assert counted["counts"] == {"unavailable": 2}


def test_the_schedule_is_seeded():
    one, other = (
        [answer.status_code for answer in ask("/api/v3/ping", 30, server_error=0.3)[0]]
        for _ in range(2)
    )
    assert one == other
    assert set(one) == {200, 500}


def test_faults_strike_at_the_rate_asked_for():
    schedule = FaultSchedule(Faults(stall=0.1), seed=7)
    for _ in range(5000):
        schedule.requests += 1
        schedule.strikes("stall")
    assert schedule.counts["stall"] == pytest.approx(500, abs=100)  # five deviations


def test_missing_bars_leave_gaps(sound):
    (answer,), _ = ask(missing_bars=1.0)
    rows = answer.json()
    assert 0 < len(rows) < len(sound)
    assert all(row in sound for row in rows)


def test_duplicate_bars_repeat(sound):
    (answer,), _ = ask(duplicate_bars=1.0)
    rows = answer.json()
    assert len(rows) > len(sound)
    assert [row for k, row in enumerate(rows) if row not in rows[:k]] == sound


def test_a_late_venue_holds_back_its_newest_closed_bar(sound):
    (answer,), _ = ask(late_bars=1.0)
    closed = [row for row in sound if row[0] + MINUTE_MS <= NOW_MS]
    assert answer.json() == closed[:-1]


def test_a_revised_bar_is_sound_but_other_than_the_final_one(sound):
    (answer,), _ = ask(revised_bars=1.0)
    changed = [(a, b) for a, b in zip(answer.json(), sound, strict=True) if a != b]
    ((early, final),) = changed
    assert early[:4] == final[:4]
    assert early[4] != final[4]
    assert float(final[3]) <= float(early[4]) <= float(final[2])
    assert float(early[5]) < float(final[5])


def test_only_a_bar_that_still_settles_is_late_or_revised(sound):
    old = f"{KLINES}&endTime={sound[139][0]}"
    (answer,), counted = ask(old, late_bars=1.0, revised_bars=1.0)
    assert counted["counts"] == {}
    assert answer.json()[60:] == sound[:140]
    answers, counted = ask(times=40, revised_bars=1.0, settling_minutes=2.5)
    changed = {
        NOW_MS - (row[0] + MINUTE_MS)
        for answer in answers
        for row, final in zip(answer.json(), sound, strict=True)
        if row != final
    }
    assert counted["counts"] == {"revised_bars": 40}
    assert changed == {0, MINUTE_MS, 2 * MINUTE_MS}


def test_a_longer_bar_settles_after_its_own_close():
    hours = "/api/v3/klines?symbol=BTCUSDT&interval=1h&limit=5"
    (late,), _ = ask(hours, late_bars=1.0)
    (settled,), counted = ask(hours, late_bars=1.0, revised_bars=1.0, settling_minutes=2)
    opens = [NOW_MS - 2 * MINUTE_MS - k * 60 * MINUTE_MS for k in range(4, -1, -1)]
    assert [row[0] for row in late.json()] == opens[:3]
    assert [row[0] for row in settled.json()] == opens, "closed two minutes ago: settled"
    assert counted["counts"] == {}


def test_bars_can_come_newest_first(sound):
    (answer,), _ = ask(descending_bars=1.0)
    assert answer.json() == sound[::-1]


def test_the_worlds_own_pages_never_fail():
    for path in ("/world", "/healthz"):
        (answer,), counted = ask(path, unavailable=1.0, truncated=1.0)
        assert answer.status_code == 200
        assert counted["requests"] == 0


def test_node_and_metrics_fail_too():
    (answer,), _ = ask("/v4/timeseries/asset-metrics?assets=btc&metrics=TxCnt", unavailable=1.0)
    assert answer.status_code == 503
    with sandbox(now=NOW, faults={"rate_limited": 1.0}) as world:
        assert httpx.post(world.rpc_url, json={}).status_code == 429
