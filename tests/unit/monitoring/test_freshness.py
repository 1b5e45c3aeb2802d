"""How old the newest rows are, whatever was written last, and what is done about it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import polars as pl
import pytest

from cryptoml_assets.monitoring import freshness, troubles
from cryptoml_assets.monitoring.freshness_sensors import watch_freshness
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import settings

NOW = datetime(2024, 3, 10, 12, tzinfo=UTC)
BAR, ALLOWED, DAY = timedelta(minutes=5), timedelta(minutes=30), timedelta(days=1)
BTC, ETH = "BTC/USDT", "ETH/USDT"
PRICES = freshness.Source("raw_prices", "close_time", timedelta(0), BAR, by_symbol=True)


def rows(column: str, *newest: tuple[str, datetime]) -> pl.DataFrame:
    """Five rows of each symbol up to its newest."""
    times = [(s, at - n * BAR) for s, at in newest for n in range(5)]
    return pl.DataFrame(
        {"symbol": [s for s, _ in times], column: [at for _, at in times]},
        schema={"symbol": pl.String, column: pl.Datetime("us", "UTC")},
    ).with_columns(date=(pl.col(column) - pl.duration(microseconds=1)).dt.date())


def age_at(newest: datetime, now: datetime = NOW) -> freshness.Age:
    found = rows("close_time", (BTC, newest), (ETH, now))
    return freshness.age(PRICES, found, (BTC, ETH), ALLOWED, now)


def test_a_table_is_stale_when_the_next_row_is_overdue_by_more_than_allowed() -> None:
    oldest = NOW - BAR - ALLOWED
    assert not age_at(oldest).is_stale(NOW)
    late = age_at(oldest - timedelta(seconds=1))
    assert late.is_stale(NOW)
    assert (late.newest, late.behind) == (oldest - timedelta(seconds=1), (BTC,))


def test_a_symbol_without_rows_is_behind_all_others() -> None:
    found = freshness.age(PRICES, rows("close_time", (BTC, NOW)), (BTC, ETH), ALLOWED, NOW)
    assert found.is_stale(NOW)
    assert (found.newest, found.due, found.behind) == (None, None, (ETH,))


def test_daily_rows_are_due_a_day_after_the_one_before() -> None:
    source = freshness.Source("network_metrics", "available_at", timedelta(0), DAY)
    newest = NOW - DAY - ALLOWED
    found = rows("available_at", ("", newest))
    assert not freshness.age(source, found, (), ALLOWED, NOW).is_stale(NOW)
    assert freshness.age(source, found, (), ALLOWED, NOW + BAR).is_stale(NOW + BAR)


def test_only_the_table_at_the_root_is_a_trouble_of_its_own() -> None:
    known = freshness.sources(settings())
    stale = {
        name: freshness.Age(name, None, None)
        for name in ("raw_prices", "price_features", "onchain_features")
    }
    assert [each.table for each in freshness.roots(stale, known)] == [
        "raw_prices",
        "onchain_features",
    ]


@pytest.mark.parametrize(
    ("newest", "first"),
    [(NOW, NOW.date()), (NOW - DAY, date(2024, 3, 9)), (NOW - 9 * DAY, date(2024, 3, 9))],
)
def test_only_days_that_are_open_are_asked_for(newest: datetime, first: date) -> None:
    found = freshness.Age("raw_prices", newest, newest)
    assert freshness.days_due(found, NOW) == (first, NOW.date())
    none = freshness.Age("raw_prices", None, None)
    assert freshness.days_due(none, NOW) == (date(2024, 3, 9), NOW.date())


def test_a_trouble_is_told_after_a_while_again_later_and_when_it_is_over() -> None:
    minutes, state, story = (lambda n: timedelta(minutes=n)), {}, []
    for minute in range(0, 200, 5):
        seen = ("a", "brief") if minute == 20 else ("a",) if 10 <= minute < 150 else ()
        change = troubles.look(
            troubles.from_text(troubles.to_text(state)),  # as kept in a cursor
            seen,
            now=NOW + minutes(minute),
            patience=minutes(10),
            again=minutes(60),
            pause=minutes(30),
        )
        state = dict(change.troubles)
        did = {"tell": change.tell, "act": change.act, "over": change.over}
        story += [(minute, what, *keys) for what, keys in did.items() if keys]
    assert story == [
        (20, "tell", "a"),
        *[(20, "act", "a"), (50, "act", "a")],
        (80, "tell", "a"),
        *[(80, "act", "a"), (110, "act", "a")],
        (140, "tell", "a"),
        (140, "act", "a"),
        (150, "over", "a"),
    ]
    assert troubles.from_text("[1]") == {}


def test_a_trouble_behind_another_one_is_over_only_when_it_is() -> None:
    spans = {name: timedelta(0) for name in ("patience", "again", "pause")}
    told = troubles.look({}, ("features",), now=NOW, **spans)
    behind = troubles.look(
        told.troubles, ("prices",), lasting=("features", "prices"), now=NOW, **spans
    )
    assert (behind.over, set(behind.troubles)) == ((), {"prices", "features"})
    assert troubles.look(behind.troubles, (), now=NOW, **spans).over == ("prices", "features")


def test_what_is_being_done_does_not_count_as_done() -> None:
    spans = {"patience": timedelta(0), "again": timedelta(0), "pause": timedelta(hours=9)}
    busy = troubles.look({}, ("a",), busy=("a",), now=NOW, **spans)
    assert busy.act == ()
    after = troubles.look(busy.troubles, ("a",), now=NOW, **spans)
    assert after.act == ("a",)
    assert troubles.look(after.troubles, ("a",), now=NOW, **spans).act == ()


class World:
    """A lake whose clock a test moves, and the sensor's memory of it."""

    def __init__(self, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
        self.instance = instance
        self.cursor: str | None = None
        self._monkeypatch = monkeypatch
        self.at(0)
        self.lake = Lake(settings().lake_uri)

    def at(self, minutes: float) -> None:
        now = NOW + timedelta(minutes=minutes)
        self._monkeypatch.setenv("CRYPTOML_NOW", now.isoformat())
        settings.cache_clear()

    def write(self, table: str, column: str, newest: datetime) -> None:
        made = rows(column, *[(symbol, newest) for symbol in settings().symbols])
        self.lake.replace_days(table, made, sorted(set(made["date"])))
        # Dagster calls the asset fresh for it.
        self.instance.report_runless_asset_event(dg.AssetMaterialization(table))

    def tick(self) -> list[dg.RunRequest]:
        with dg.build_sensor_context(instance=self.instance, cursor=self.cursor) as context:
            done = watch_freshness.evaluate_tick(context)
        self.cursor = done.cursor
        return list(done.run_requests or [])

    @staticmethod
    def told() -> list[dict[str, Any]]:
        path = settings().home_path / "notices.db"
        if not path.exists():
            return []
        database = sqlite3.connect(path)
        found = database.execute("SELECT content FROM notices ORDER BY id").fetchall()
        database.close()
        return [json.loads(content) for (content,) in found]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield World(instance, monkeypatch)


def test_a_backfill_of_an_old_day_makes_nothing_fresh(world: World) -> None:
    assert world.tick() == []  # a world before its first row has nothing to be stale
    world.write("raw_prices", "close_time", NOW)
    world.write("price_features", "event_timestamp", NOW)
    world.at(34)
    assert world.tick() == []
    for minute in (36, 41):
        world.at(minute)
        assert world.tick() == []
    assert world.told() == []
    world.write("raw_prices", "close_time", NOW - 3 * DAY)
    world.at(46)
    (request,) = world.tick()
    assert request.asset_selection == [dg.AssetKey("raw_prices")]
    assert request.tags["cryptoml/cause"] == "stale"
    assert request.tags["dagster/asset_partition_range_start"] == "2024-03-10"
    assert request.tags["dagster/asset_partition_range_end"] == "2024-03-10"
    (stale,) = world.told()
    assert (stale["title"], stale["resolved"]) == ("raw_prices is stale", False)
    world.at(50)
    assert world.tick() == []
    world.write("raw_prices", "close_time", NOW + timedelta(minutes=50))
    world.write("price_features", "event_timestamp", NOW + timedelta(minutes=50))
    assert world.tick() == []
    assert [each["resolved"] for each in world.told()] == [False, True]


def test_what_is_being_made_is_not_asked_for_again(world: World) -> None:
    world.write("raw_prices", "close_time", NOW)
    world.at(60)
    world.tick()
    running = world.instance.create_run_for_job(
        dg.job(name="ingest")(lambda: None), status=dg.DagsterRunStatus.STARTED
    )
    world.at(75)
    assert world.tick() == []
    world.instance.delete_run(running.run_id)
    world.at(105)
    (first,) = world.tick()
    world.cursor = None
    world.at(106)
    world.tick()
    world.at(117)
    (again,) = world.tick()
    assert again.run_key == first.run_key  # which Dagster launches once


def test_a_table_that_was_told_of_is_told_fresh_though_its_source_fell_behind_too(
    world: World,
) -> None:
    world.write("raw_prices", "close_time", NOW + timedelta(minutes=50))
    world.write("price_features", "event_timestamp", NOW)
    for minute in (40, 60):
        world.at(minute)
        world.tick()
    assert [each["title"] for each in world.told()] == ["price_features is stale"]
    world.at(120)  # now the prices are behind as well
    world.tick()
    assert not any(each["resolved"] for each in world.told())
    world.write("raw_prices", "close_time", NOW + timedelta(minutes=120))
    world.write("price_features", "event_timestamp", NOW + timedelta(minutes=120))
    world.tick()
    assert [each["title"] for each in world.told()] == [
        "price_features is stale",
        "price_features is fresh again",
    ]
