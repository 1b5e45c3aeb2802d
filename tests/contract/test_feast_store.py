"""Feast against the lake: the training read, the online store, and ``feast`` by hand."""

import shutil
import sqlite3
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner
from feast.cli.cli import cli as feast_command

from cryptoml_assets.features import online
from cryptoml_assets.features.catalog import TTL, features_of, model_features
from cryptoml_assets.features.compute import price_features
from cryptoml_assets.features.feature import Table
from cryptoml_assets.features.onchain import onchain_features
from cryptoml_assets.features.training_set import training_set
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import settings
from cryptoml_serving.contract.feature_store import feature_store_environment
from cryptoml_serving.contract.registry import FEATURE_SERVICE
from tests.feature_data import (
    BAR,
    DAY,
    FIRST,
    make_bars,
    make_blocks,
    make_metrics,
    midnight,
    some_days,
)

REPOSITORY = Path(__file__).parents[2] / "feature_repo"
SYMBOLS = ("BTC/USDT", "ETH/USDT")
DAYS = some_days(10)
NOW = midnight(FIRST) + 10 * DAY - timedelta(hours=7)
HORIZON = timedelta(hours=1)
TABLES: tuple[Table, ...] = ("price_features", "onchain_features")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder whose lake holds ten days; ETH/USDT stopped trading on the sixth."""
    home = tmp_path_factory.mktemp("home")
    lake = Lake(str(home / "lake"))
    bars = make_bars(10, SYMBOLS).filter(
        (pl.col("symbol") == "BTC/USDT") | (pl.col("date") < DAYS[5]), pl.col("close_time") <= NOW
    )
    onchain = onchain_features(
        make_metrics(2), make_blocks(2), SYMBOLS, DAYS, delay=timedelta(hours=4), now=NOW
    )
    lake.replace_days("raw_prices", bars, DAYS)
    lake.replace_days("price_features", price_features(bars, DAYS, BAR), DAYS)
    lake.replace_days("onchain_features", onchain, DAYS)
    return home


@pytest.fixture
def home(written: Path, tmp_path: Path) -> Path:
    """The same lake under a home whose feature store is still to be made."""
    (tmp_path / "lake").symlink_to(written / "lake")
    return tmp_path


@pytest.fixture
def lake(home: Path) -> Lake:
    return Lake(str(home / "lake"))


@pytest.fixture
def store(home: Path, lake: Lake) -> Any:
    opened = online.open_store(REPOSITORY, home)
    online.bring_up_to_date(opened, lake.uri, NOW, TTL)
    return opened


def found_differences(store: Any, lake: Lake, now: datetime = NOW) -> tuple[online.Difference, ...]:
    return tuple(
        difference
        for table in TABLES
        for difference in online.differences(
            table,
            online.online_rows(store, table, SYMBOLS),
            online.newest_rows(lake.scan(table), table, SYMBOLS, now, TTL),
        )
    )


def test_the_training_set_equals_feasts_historical_features(store: Any, lake: Lake) -> None:
    ours = training_set(
        lake.scan("price_features"),
        lake.scan("onchain_features"),
        lake.scan("raw_prices"),
        now=NOW,
        window=9 * DAY,
        horizon=HORIZON,
    ).sample(500, seed=4)
    entities = ours.select("symbol", "event_timestamp").to_pandas()
    theirs = pl.from_pandas(
        store.get_historical_features(
            entity_df=entities, features=store.get_feature_service(FEATURE_SERVICE)
        ).to_df()
    )
    order = ["symbol", "event_timestamp"]
    columns = [*order, *model_features()]
    assert ours.select(columns).sort(order).equals(theirs.select(columns).sort(order))
    assert ours["nvt_ratio"].is_not_null().sum() > 100
    # On-chain rows end with the second day: the time to live must have made the last ones null.
    last_known = midnight(FIRST) + 2 * DAY + timedelta(hours=4)
    late = ours.filter(pl.col("event_timestamp") > last_known + TTL)
    assert late.height > 5
    assert late["nvt_ratio"].null_count() == late.height


def test_online_values_equal_the_lakes_newest_to_the_bit(store: Any, lake: Lake) -> None:
    rows = online.online_rows(store, "price_features", SYMBOLS)
    assert rows["event_timestamp"].to_list() == [NOW, midnight(FIRST) + 5 * DAY]
    assert found_differences(store, lake) == ()


def test_a_skewed_online_value_is_caught_and_named(store: Any, lake: Lake, home: Path) -> None:
    from feast.protos.feast.types.Value_pb2 import Value  # noqa: PLC0415

    skewed = Value(double_val=-1.0).SerializeToString()
    with sqlite3.connect(home / "feast" / "online.db") as connection:
        changed = connection.execute(
            "UPDATE cryptoml_price_features SET value = ? WHERE feature_name = 'rsi' "
            "AND entity_key = (SELECT min(entity_key) FROM cryptoml_price_features)",
            (skewed,),
        )
        assert changed.rowcount == 1
    connection.close()
    (difference,) = found_differences(store, lake)
    assert str(difference).startswith("price_features.rsi of BTC/USDT: -1.0 online, ")


def test_bringing_up_to_date_again_moves_on_and_back_with_the_clock(store: Any, lake: Lake) -> None:
    earlier = NOW - timedelta(hours=30)
    for now in (earlier, NOW):
        online.bring_up_to_date(store, lake.uri, now, TTL)
        rows = online.online_rows(store, "price_features", SYMBOLS)
        assert rows["event_timestamp"][0] == now
        assert found_differences(store, lake, now) == ()


def test_a_symbol_that_arrives_late_is_brought_in(home: Path, written: Path) -> None:
    lake = Lake(str(home / "late_lake"))
    shutil.copytree(written / "lake", home / "late_lake")
    rows = lake.scan("price_features", DAYS).collect()
    late = pl.col("symbol") == "ETH/USDT"
    lake.replace_days("price_features", rows.filter(~late), DAYS)
    store = online.open_store(REPOSITORY, home)
    online.bring_up_to_date(store, lake.uri, NOW, TTL)
    assert online.online_rows(store, "price_features", SYMBOLS)["event_timestamp"][1] is None
    lake.replace_days("price_features", rows, DAYS)
    online.bring_up_to_date(store, lake.uri, NOW, TTL)
    assert found_differences(store, lake) == ()


def test_reading_needs_neither_the_lake_nor_the_definitions(
    store: Any, home: Path, written: Path
) -> None:
    del store
    (home / "lake").unlink()
    rows = online.online_rows(online.open_store(REPOSITORY, home), "price_features", SYMBOLS)
    assert rows["price"].null_count() == 0


def test_an_unknown_symbol_has_no_row(store: Any) -> None:
    rows = online.online_rows(store, "price_features", ["DOGE/USDT"])
    assert rows.row(0) == ("DOGE/USDT", *[None] * (1 + len(features_of("price_features"))))


def test_registering_again_keeps_the_view_and_its_history(store: Any, lake: Lake) -> None:
    before = store.get_feature_view("price_features")
    online.bring_up_to_date(store, lake.uri, NOW, TTL)
    after = store.get_feature_view("price_features")
    assert before.features == after.features
    assert before.created_timestamp == after.created_timestamp
    assert after.materialization_intervals == [*before.materialization_intervals, (NOW - TTL, NOW)]


def test_feast_by_hand_works_from_the_repository(
    home: Path, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in feature_store_environment(home).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CRYPTOML_LAKE", lake.uri)
    settings.cache_clear()
    online.bring_up_to_date(
        online.open_store(REPOSITORY, home), lake.uri, NOW - timedelta(hours=30), TTL
    )
    monkeypatch.chdir(REPOSITORY)
    # Feast imports the definitions by the name they have in its working directory.
    monkeypatch.delitem(sys.modules, "feature_definitions", raising=False)
    for command in (["apply"], ["materialize-incremental", NOW.isoformat()]):
        done = CliRunner().invoke(feast_command, command, catch_exceptions=False)
        assert done.exit_code == 0, done.output
    assert found_differences(online.open_store(REPOSITORY, home), lake) == ()
