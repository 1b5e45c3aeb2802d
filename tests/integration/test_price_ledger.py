"""Bars and ledger from a real venue into a real lake: only what lacks is asked for, with causes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from cryptoml_assets.errors import LakeError, UnknownSymbolError, WorldUnreachableError
from cryptoml_assets.prices import ingest
from cryptoml_assets.prices.exchange import open_exchange
from cryptoml_assets.prices.fetch import BarRequest
from cryptoml_assets.prices.ingest import ingest_prices
from cryptoml_assets.prices.ledger import LEDGER_TABLE, gap_ranges
from cryptoml_assets.prices.tally import IngestReport, Progress
from cryptoml_assets.resources.lake import Lake
from tests.sandbox_server import sandbox, serve

NOW = "2024-01-05T00:07:00Z"
START, END = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 6, tzinfo=UTC)
BAR = timedelta(minutes=5)
BOTH = ("BTC/USDT", "ETH/USDT")
#: Requests of a run that finds nothing to fetch: the markets and the time.
IDLE = 2
#: Slots of four full days, and the one that closed at 00:05 of the fifth.
CLOSED = 4 * 288 + 1


def request(*symbols: str, **changes: Any) -> BarRequest:
    fields: dict[str, Any] = {
        "symbols": symbols or BOTH,
        "timeframe": "5m",
        "bar": BAR,
        "start": START,
        "end": END,
        "source": "simulated",
        "revision_window": timedelta(hours=1),
    }
    return BarRequest(**(fields | changes))


def run(url: str, lake: Lake, wanted: BarRequest, **options: Any) -> IngestReport:
    progress: Callable[[Progress], None] | None = options.pop("progress", None)
    connection: dict[str, Any] = {
        "address": url,
        "longest_wait": timedelta(seconds=10),
        "delays": (0.01, 0.02, 0.04),
        "own_pace": False,
    }

    async def ask() -> IngestReport:
        async with open_exchange("binance", **(connection | options)) as exchange:
            return await ingest_prices(exchange, lake, wanted, progress=progress)

    return asyncio.run(ask())


def bars(lake: Lake) -> pl.DataFrame:
    return lake.scan("raw_prices").collect().sort("symbol", "open_time")


def ledger(lake: Lake) -> pl.DataFrame:
    return lake.scan(LEDGER_TABLE).collect().sort("symbol", "start")


def causes(lake: Lake, symbol: str) -> list[tuple[datetime, datetime, str]]:
    gaps = gap_ranges(ledger(lake).filter(symbol=symbol))
    return gaps.select("start", "end", "cause").rows()


def at(day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(2024, 1, day, hour, minute, tzinfo=UTC)


def span(*instants: datetime) -> list[str]:
    return [instant.isoformat() for instant in instants]


def assert_same_content(one: Lake, other: Lake) -> None:
    assert_frame_equal(bars(one), bars(other))
    assert_frame_equal(ledger(one), ledger(other))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


@pytest.fixture
def other(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "other"))


def test_what_is_settled_is_never_asked_for_again(lake: Lake) -> None:
    with sandbox(now=NOW) as world:
        first = run(world.url, lake, request())
        again = run(world.url, lake, request())
    assert (first.new, first.received) == (2 * CLOSED, 2 * CLOSED)
    assert first.requests == IDLE + 2 * 2
    assert again.requests == IDLE + 2, "one page a symbol: the bars of the last hour"
    assert (again.new, again.changed, again.received) == (0, 0, 2 * 12)
    assert_frame_equal(again.summary, first.summary)
    assert_frame_equal(again.closes, first.closes)
    unsettled = ledger(lake).filter(~pl.col("settled"))
    assert set(unsettled.select("start", "end").rows()) == {
        (at(4, 23, 5), at(5)),
        (at(5), at(5, 0, 5)),
    }


def test_a_settled_history_makes_no_request_for_bars(lake: Lake) -> None:
    days = request(end=at(4))
    with sandbox(now=NOW) as world:
        run(world.url, lake, days)
        versions = lake.version("raw_prices"), lake.version(LEDGER_TABLE)
        assert run(world.url, lake, days).requests == IDLE
    assert (lake.version("raw_prices"), lake.version(LEDGER_TABLE)) == versions


def test_only_the_days_that_lack_are_fetched(lake: Lake) -> None:
    with sandbox(now=NOW) as world:
        run(world.url, lake, request(end=at(2)))
        run(world.url, lake, request(start=at(3), end=at(4)))
        report = run(world.url, lake, request(end=at(4)))
    assert report.received == 2 * 288
    assert report.requests == IDLE + 2
    assert report.stored.days_changed == (date(2024, 1, 2),)


def test_a_symbol_added_later_costs_its_own_history_only(lake: Lake, other: Lake) -> None:
    with sandbox(now=NOW) as world:
        run(world.url, lake, request("ETH/USDT", end=at(4)))
        report = run(world.url, lake, request(*BOTH, end=at(4)))
        run(world.url, other, request(*BOTH, end=at(4)))
    assert report.received == 3 * 288
    assert report.requests == IDLE + 1
    assert_same_content(lake, other)


def test_rows_of_symbols_no_longer_configured_stay(lake: Lake) -> None:
    with sandbox(now=NOW) as world:
        run(world.url, lake, request(*BOTH, end=at(4)))
        before = bars(lake)
        run(world.url, lake, request("BTC/USDT", end=at(4), refetch=True))
    assert_frame_equal(bars(lake), before)


def test_days_one_by_one_backwards_leave_what_one_run_leaves(lake: Lake, other: Lake) -> None:
    life = {
        "listings": {"SOL/USDT": {"from": span(at(2, 7))[0], "until": span(at(4, 3))[0]}},
        "outages": [span(at(2, 23), at(3, 1)), span(at(4, 12), at(4, 13))],
        "quiet": {"ETH/USDT": [span(at(3, 22), at(4, 2))]},
    }
    symbols = (*BOTH, "SOL/USDT")
    with sandbox(now=NOW, **life) as world:
        run(world.url, lake, request(*symbols))
        for day in (5, 4, 3, 2, 1):
            run(
                world.url,
                other,
                request(*symbols, start=at(day), end=at(day + 1) if day < 5 else END),
            )
    assert_same_content(lake, other)


def test_every_gap_has_its_cause(lake: Lake) -> None:
    life = {
        "listings": {"SOL/USDT": {"from": span(at(2, 7))[0], "until": span(at(4, 3))[0]}},
        "outages": [span(at(2, 23), at(3, 1))],
        "quiet": {"ETH/USDT": [span(at(3, 22), at(4, 2))]},
    }
    with sandbox(now=NOW, **life) as world:
        report = run(world.url, lake, request(*BOTH, "SOL/USDT"))
    outage = (at(2, 23), at(3, 1), "venue_outage")
    assert causes(lake, "BTC/USDT") == [outage]
    assert causes(lake, "ETH/USDT") == [outage, (at(3, 22), at(4, 2), "nothing_traded")]
    assert causes(lake, "SOL/USDT") == [
        (START, at(2, 7), "listed_later"),
        outage,
        (at(4, 3), at(5, 0, 5), "delisted"),
    ]
    assert report.gaps_total == report.gaps.height == 6
    counted = report.summary.filter(date=date(2024, 1, 2), symbol="SOL/USDT").row(0, named=True)
    assert counted["received"] == 16 * 12
    assert (counted["listed_later"], counted["venue_outage"]) == (7 * 12, 12)
    assert counted["share"] == 1.0


def test_gaps_are_asked_for_once_only(lake: Lake) -> None:
    life = {"outages": [span(at(2), at(3))], "quiet": {"ETH/USDT": [span(at(3, 1), at(3, 2))]}}
    with sandbox(now=NOW, **life) as world:
        run(world.url, lake, request(end=at(4)))
        assert run(world.url, lake, request(end=at(4))).requests == IDLE


@pytest.mark.parametrize(
    ("life", "cause"),
    [
        ({"outages": [span(at(2, 3), at(2, 5))]}, "venue_outage"),
        ({"quiet": {"SOL/USDT": [span(at(2, 3), at(2, 5))]}}, "nothing_traded"),
    ],
)
def test_one_symbol_alone_is_judged_by_a_witness(
    lake: Lake, life: dict[str, Any], cause: str
) -> None:
    with sandbox(now=NOW, **life) as world:
        run(world.url, lake, request("SOL/USDT"))
    assert causes(lake, "SOL/USDT") == [(at(2, 3), at(2, 5), cause)]
    assert bars(lake)["symbol"].unique().to_list() == ["SOL/USDT"]


def test_without_a_witness_nothing_is_called_an_outage(lake: Lake) -> None:
    life = {"symbols": "SOL/USDT", "outages": [span(at(2, 3), at(2, 5))]}
    with sandbox(now=NOW, **life) as world:
        run(world.url, lake, request("SOL/USDT"))
    assert causes(lake, "SOL/USDT") == [(at(2, 3), at(2, 5), "nothing_traded")]


def test_an_outage_of_which_a_symbol_added_later_traded_was_none(lake: Lake) -> None:
    silence = [span(at(2, 3), at(2, 5))]
    with sandbox(now=NOW, quiet=dict.fromkeys(BOTH, silence)) as world:
        run(world.url, lake, request(*BOTH))
        assert causes(lake, "BTC/USDT") == [(at(2, 3), at(2, 5), "venue_outage")]
        run(world.url, lake, request(*BOTH, "SOL/USDT"))
    assert causes(lake, "BTC/USDT") == [(at(2, 3), at(2, 5), "nothing_traded")]
    assert causes(lake, "SOL/USDT") == []


def test_a_symbol_delisted_in_the_middle_of_a_backfill_stops_no_other(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "_CHUNK_BARS", 600)
    monkeypatch.setattr(ingest, "_CHUNKS_AHEAD", 1)
    with sandbox(now=NOW, faults={"delisted_after": {"ETH/USDT": 5}}) as world:
        report = run(world.url, lake, request())
    assert report.gone == ("ETH/USDT",)
    assert bars(lake).filter(symbol="BTC/USDT").height == CLOSED
    held = bars(lake).filter(symbol="ETH/USDT")
    assert 0 < held.height < CLOSED
    gaps = causes(lake, "ETH/USDT")
    assert [gap[2] for gap in gaps] == ["delisted"]
    assert gaps[0][0] == held["close_time"].max()
    assert not ledger(lake).filter(cause="delisted")["settled"].any(), "none of it was read"
    with sandbox(now=NOW) as relisted:
        run(relisted.url, lake, request())
    assert bars(lake).filter(symbol="ETH/USDT").height == CLOSED
    assert causes(lake, "ETH/USDT") == []


def test_a_symbol_that_is_gone_is_known_by_what_the_lake_holds(lake: Lake, other: Lake) -> None:
    with sandbox(now=NOW) as world:
        run(world.url, lake, request(end=at(3)))
    with sandbox(now=NOW, symbols="BTC/USDT,SOL/USDT") as world:
        report = run(world.url, lake, request(end=at(4)))
        assert report.gone == ("ETH/USDT",)
        assert causes(lake, "ETH/USDT") == [(at(3), at(4), "delisted")]
        with pytest.raises(UnknownSymbolError, match="does not list ETH/USDT"):
            run(world.url, other, request(end=at(4)))
    assert not other.exists("raw_prices")


def test_a_process_killed_between_bars_and_ledger_loses_nothing(lake: Lake, other: Lake) -> None:
    with sandbox(now=NOW) as world:
        run(world.url, lake, request())
        run(world.url, other, request())
        cut = ledger(other).filter(pl.col("date") < date(2024, 1, 3))
        other.replace_days(LEDGER_TABLE, cut, [date(2024, 1, day) for day in range(1, 6)])
        run(world.url, other, request())
    assert_same_content(lake, other)


def test_a_failure_leaves_the_chunks_before_it(
    lake: Lake, other: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "_CHUNK_BARS", 600)
    steps: list[Progress] = []
    with sandbox(now=NOW) as world:
        with (
            serve(_FailsFrom(world.app, at(4))) as url,
            pytest.raises(WorldUnreachableError, match="after 4 attempts"),
        ):
            run(url, lake, request(), progress=steps.append)
        assert bars(lake)["date"].unique().to_list() == [date(2024, 1, day) for day in (1, 2, 3)]
        assert ledger(lake)["date"].unique().to_list() == bars(lake)["date"].unique().to_list()
        assert [step.days_done for step in steps] == [1, 2, 3]
        report = run(world.url, lake, request())
        assert report.received == 2 * (288 + 1)
        run(world.url, other, request())
    assert_same_content(lake, other)


def test_refetch_reads_settled_days_again_and_heals_them(lake: Lake) -> None:
    days = [date(2024, 1, day) for day in (1, 2)]
    with sandbox(now=NOW) as world:
        run(world.url, lake, request(end=at(3)))
        truth = bars(lake)
        spoilt = truth.with_columns(close=pl.col("close") * 1.001)
        lake.replace_days("raw_prices", spoilt, days)
        assert run(world.url, lake, request(end=at(3))).received == 0
        report = run(world.url, lake, request(end=at(3), refetch=True))
    assert (report.received, report.new, report.changed) == (2 * 576, 0, 2 * 576)
    assert_frame_equal(bars(lake), truth)


def test_a_lake_from_before_the_ledger_is_fetched_again_and_merged(lake: Lake, other: Lake) -> None:
    with sandbox(now=NOW) as world:
        run(world.url, other, request(end=at(3)))
        lake.replace_days("raw_prices", bars(other), [date(2024, 1, 1), date(2024, 1, 2)])
        version = lake.version("raw_prices")
        run(world.url, lake, request(end=at(3)))
    assert lake.version("raw_prices") == version, "the bars are the same"
    assert_same_content(lake, other)


def test_late_and_revised_bars_are_replaced_until_they_settle(lake: Lake, other: Lake) -> None:
    faults = {"late_bars": 1.0, "revised_bars": 1.0}
    with sandbox(now=NOW, faults=faults) as unsettled:
        run(unsettled.url, lake, request())
    with sandbox(now=NOW) as world:
        run(world.url, other, request())
        assert not bars(lake).equals(bars(other))
        report = run(world.url, lake, request())
        assert report.new + report.changed > 0
    assert_same_content(lake, other)


def test_a_stored_bar_that_the_venue_no_longer_tells_of_stays_and_settles(lake: Lake) -> None:
    with sandbox(now="2024-01-01T01:00:30Z") as world:
        run(world.url, lake, request())
    before = bars(lake)
    with sandbox(now=NOW, quiet={"ETH/USDT": [span(START, at(1, 1))]}) as world:
        run(world.url, lake, request(end=at(2)))
        assert run(world.url, lake, request(end=at(2))).requests == IDLE
    after = bars(lake)
    assert_frame_equal(after.join(before, on=["symbol", "open_time"], how="semi"), before)
    assert causes(lake, "ETH/USDT") == []


def test_two_runs_at_once_lose_nothing(lake: Lake, other: Lake) -> None:
    with sandbox(now=NOW) as world:
        runs = [
            threading.Thread(target=run, args=(world.url, lake, request(symbol, end=end)))
            for symbol, end in (("BTC/USDT", END), ("ETH/USDT", END), ("BTC/USDT", at(3)))
        ]
        for thread in runs:
            thread.start()
        for thread in runs:
            thread.join()
        run(world.url, other, request())
    assert_same_content(lake, other)


@pytest.mark.parametrize("seconds", [-90, 90])
def test_a_skewed_local_clock_is_reported_and_lets_no_bar_in(lake: Lake, seconds: int) -> None:
    now = datetime.fromisoformat(NOW) + timedelta(minutes=2, seconds=50)

    def local() -> datetime:
        return now - timedelta(seconds=seconds)

    with sandbox(now=now.isoformat()) as world:
        report = run(world.url, lake, request(), local_clock=local)
    assert report.clock.skew.total_seconds() == pytest.approx(seconds, abs=1)
    assert bars(lake)["close_time"].max() == at(5, 0, 5), "00:10 is ten seconds away"


def test_a_ledger_of_another_world_is_refused(lake: Lake) -> None:
    with sandbox(now=NOW) as world:
        run(world.url, lake, request(end=at(2)))
        with pytest.raises(LakeError, match="raw_prices holds simulated bars"):
            run(world.url, lake, request(end=at(2), source="replay"))


def test_a_run_keeps_a_bounded_sample_of_closes(lake: Lake) -> None:
    with sandbox(now="2024-01-21T00:00:00Z") as world:
        report = run(world.url, lake, request(end=at(21)))
    sizes = report.closes.group_by("symbol").len()["len"]
    assert sizes.max() <= 1500
    assert sizes.min() >= 700
    assert report.closes.columns == ["symbol", "open_time", "close_time", "close"]


class _FailsFrom:
    """A venue that refuses pages of bars that begin at ``instant`` or later."""

    def __init__(self, app: Any, instant: datetime) -> None:
        self.app, self.since = app, int(instant.timestamp() * 1000)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        query = scope.get("query_string", b"").decode()
        asked = dict(part.split("=", 1) for part in query.split("&") if "=" in part)
        if int(asked.get("startTime", 0)) >= self.since:
            await send({"type": "http.response.start", "status": 503, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        await self.app(scope, receive, send)
