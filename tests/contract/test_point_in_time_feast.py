"""The training set against Feast: the same rows, and a check that tells where they are not."""

import shutil
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from cryptoml_assets.features import audit, training_checks
from cryptoml_assets.features.catalog import TTL, model_features
from cryptoml_assets.features.compute import price_features
from cryptoml_assets.features.onchain import onchain_features
from cryptoml_assets.features.point_in_time import as_of
from cryptoml_assets.features.training_set import model_inputs, training_set
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import settings
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

SYMBOLS = ("BTC/USDT", "ETH/USDT")
DAYS = some_days(10)
NOW = midnight(FIRST) + 10 * DAY - timedelta(hours=7)
HORIZON = timedelta(hours=1)
TABLES = ("price_features", "onchain_features")
KEY = ("symbol", "event_timestamp")
CHECKS = (training_checks.inputs_known, training_checks.equals_feast)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of ten days: on-chain rows end with the second, ETH/USDT stops trading on the sixth.

    The training set made of it is there too.
    """
    folder = tmp_path_factory.mktemp("written") / "lake"
    lake = Lake(str(folder))
    bars = make_bars(10, SYMBOLS).filter(
        (pl.col("symbol") == "BTC/USDT") | (pl.col("date") < DAYS[5]), pl.col("close_time") <= NOW
    )
    onchain = onchain_features(
        make_metrics(2), make_blocks(2), SYMBOLS, DAYS, delay=timedelta(hours=4), now=NOW
    )
    lake.replace_days("raw_prices", bars, DAYS)
    lake.replace_days("price_features", price_features(bars, DAYS, BAR), DAYS)
    lake.replace_days("onchain_features", onchain, DAYS)
    lake.overwrite("training_set", trained(lake))
    return folder


@pytest.fixture
def lake(written: Path, tmp_path: Path) -> Lake:
    shutil.copytree(written, tmp_path / "lake")
    return Lake(str(tmp_path / "lake"))


@pytest.fixture
def context(monkeypatch: pytest.MonkeyPatch, lake: Lake) -> Iterator[Any]:
    """A check's context whose instance knows what the training set was made of."""
    monkeypatch.setenv("CRYPTOML_NOW", NOW.isoformat())
    settings.cache_clear()
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_asset_check_context(instance=instance)
        record(context, lake)
        yield context


def trained(lake: Lake) -> pl.DataFrame:
    tables = (lake.scan(table) for table in (*TABLES, "raw_prices"))
    return training_set(*tables, now=NOW, window=9 * DAY, horizon=HORIZON)


def record(context: Any, lake: Lake) -> None:
    metadata = {
        "table_version": lake.version("training_set"),
        "lake_versions": {table: lake.version(table) for table in TABLES},
    }
    context.instance.report_runless_asset_event(
        dg.AssetMaterialization("training_set", metadata=metadata)
    )


def results(context: Any, lake: Lake) -> list[dg.AssetCheckResult]:
    return [check(context, lake=LakeIOManager(uri=lake.uri)) for check in CHECKS]


def versions(lake: Lake) -> dict[str, int]:
    return {table: lake.version(table) for table in TABLES}


def inputs_of(lake: Lake) -> Any:
    return model_inputs(*(lake.scan(table) for table in TABLES))


def test_the_training_set_equals_feasts_historical_features(lake: Lake) -> None:
    ours = lake.scan("training_set").collect()
    sample = audit.drawn_rows(ours, 500, seed=4)
    assert sample.height == 500
    theirs = audit.through_feast(sample, inputs_of(lake), versions(lake), lake.uri)
    assert audit.apart(sample, theirs) == ()
    order = ["symbol", "event_timestamp"]
    columns = [*order, *model_features()]
    assert sample.select(columns).sort(order).equals(theirs.select(columns).sort(order))
    assert sample["nvt_ratio"].is_not_null().sum() > 100
    # On-chain rows end with the second day: the time to live must have made the last ones null.
    last_known = midnight(FIRST) + 2 * DAY + timedelta(hours=4)
    late = sample.filter(pl.col("event_timestamp") > last_known + TTL)
    assert late.height > 5
    assert late["nvt_ratio"].null_count() == late.height


def test_feast_and_we_agree_to_the_microsecond_where_a_row_begins_and_ends_to_count(
    lake: Lake,
) -> None:
    onchain = lake.scan("onchain_features").filter(pl.col("symbol") == "BTC/USDT").collect()
    tick = timedelta(microseconds=1)
    moments = [
        known + age + step
        for known in onchain["event_timestamp"]
        for age in (timedelta(0), TTL)
        for step in (-tick, timedelta(0), tick)
    ]
    # An instant asked for twice, symbols nobody knows, and instants before and after everything.
    moments += [moments[1], datetime(2020, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)]
    entities = pl.DataFrame(
        {
            "symbol": ["BTC/USDT"] * len(moments) + ["DOGE/USDT"],
            "event_timestamp": pl.Series([*moments, NOW], dtype=pl.Datetime("us", "UTC")),
        }
    )
    theirs = audit.through_feast(entities, inputs_of(lake), versions(lake), lake.uri)
    ours = as_of(entities, inputs_of(lake))
    assert ours.sort(KEY).equals(theirs.select(ours.columns).sort(KEY))
    # The last row: a microsecond before, at and after its beginning, and its end.
    assert ours["nvt_ratio"].to_list()[6:12] == [40.0, 41.0, 41.0, 41.0, 41.0, None]


def test_polars_own_join_says_the_same_and_how_old_rows_were(lake: Lake) -> None:
    ours = lake.scan("training_set").collect()
    again = audit.by_asof_join(ours, inputs_of(lake))
    assert audit.apart(ours, again) == ()
    assert again["age_price_features"].unique().to_list() == [timedelta(0)]
    assert timedelta(0) <= again["age_onchain_features"].min()
    assert TTL - HORIZON <= again["age_onchain_features"].max() <= TTL


def test_the_checks_pass_and_feast_is_asked_for_a_sample_of_bounded_size(
    context: Any, lake: Lake
) -> None:
    assert lake.row_count("training_set") > 500
    known, feast = results(context, lake)
    assert known.passed
    assert feast.passed
    assert feast.description == f"{500 * len(model_features())} values of 500 rows"
    assert known.metadata["oldest"].value["price_features"] == "0:00:00"


def test_a_wrong_training_row_is_caught_and_named(context: Any, lake: Lake) -> None:
    rows = lake.scan("training_set").collect()
    # The newest row of a symbol is in every sample.
    at = pl.int_range(pl.len()) == rows.height - 1
    skewed = rows.with_columns(rsi=pl.when(at).then(pl.col("rsi") + 1e-13).otherwise("rsi"))
    lake.overwrite("training_set", skewed)
    record(context, lake)
    where = f"rsi of BTC/USDT at {rows['event_timestamp'][-1]:%Y-%m-%d %H:%M}"
    values = f"{skewed['rsi'][-1]} stored, {rows['rsi'][-1]} by"
    known, feast = results(context, lake)
    assert not known.passed
    assert known.description == f"{where}: {values} an as-of join"
    assert not feast.passed
    assert feast.description == f"{where}: {values} Feast"
    assert feast.metadata["different_inputs"].value == 1


def test_a_value_filled_in_for_a_missing_one_is_caught(context: Any, lake: Lake) -> None:
    rows = lake.scan("training_set").collect()
    lake.overwrite("training_set", rows.with_columns(pl.col("nvt_ratio").fill_null(0.0)))
    record(context, lake)
    for result in results(context, lake):
        assert not result.passed
        assert result.description.startswith("nvt_ratio of ")
        assert ": 0.0 stored, None by " in result.description


def test_a_zero_of_the_other_sign_is_another_value(lake: Lake) -> None:
    rows = lake.scan("training_set").collect().with_columns(rsi=pl.lit(0.0))
    (difference,) = audit.apart(rows.with_columns(rsi=pl.lit(-0.0)), rows)
    assert audit.told([difference], "Feast").endswith(": -0.0 stored, 0.0 by Feast")


@pytest.mark.parametrize("ahead", ["forward", "nearest"])
def test_a_join_that_looks_ahead_is_caught(context: Any, lake: Lake, ahead: Any) -> None:
    rows = lake.scan("training_set").collect()
    columns = inputs_of(lake)[1].columns
    onchain = lake.scan("onchain_features").select(*KEY, *columns).collect()
    leaking = (
        rows.drop(columns)
        .join_asof(
            onchain.sort("event_timestamp"),
            on="event_timestamp",
            by="symbol",
            strategy=ahead,
            check_sortedness=False,
        )
        .select(rows.columns)
    )
    lake.overwrite("training_set", leaking)
    record(context, lake)
    for result in results(context, lake):
        assert not result.passed
        assert "eth_base_fee_gwei of" in result.description


def test_rows_are_held_against_the_versions_they_were_made_of(context: Any, lake: Lake) -> None:
    revised = lake.scan("price_features").collect().with_columns(rsi=pl.col("rsi") + 1)
    lake.replace_days("price_features", revised, DAYS)
    assert [result.passed for result in results(context, lake)] == [True, True]
    # Against the newest tables the same rows are wrong: it was the older version that was read.
    record(context, lake)
    assert [result.passed for result in results(context, lake)] == [False, False]


def test_a_training_set_of_unrecorded_tables_does_not_pass(context: Any, lake: Lake) -> None:
    lake.overwrite("training_set", lake.scan("training_set").collect()[1:])
    for result in results(context, lake):
        assert not result.passed
        assert "which table versions version 1 of training_set was made of" in result.description


def test_a_sample_changes_with_its_seed_and_holds_the_newest_rows(lake: Lake) -> None:
    rows = lake.scan("training_set").collect()
    first, again, other = (audit.drawn_rows(rows, 50, seed) for seed in (1, 1, 2))
    assert first.equals(again)
    assert not first.sort(KEY).equals(other.sort(KEY))
    for sample in (first, other):
        assert sample.height == sample.unique(KEY).height == 50
        newest = rows.group_by("symbol").agg(pl.col("event_timestamp").max())
        assert sample.join(newest, on=KEY, how="semi").height == len(SYMBOLS)
    assert audit.drawn_rows(rows[:3], 50, seed=1).sort(KEY).equals(rows[:3].sort(KEY))


@pytest.mark.realdata
def test_a_training_set_of_recorded_bars_equals_feast(realdata: Path, tmp_path: Path) -> None:
    """Days around the crash of 2024-08-05."""
    first = date(2024, 8, 1)
    days = some_days(8, first)
    opens = pl.col("date").cast(pl.Datetime("us", "UTC"))
    bars = pl.concat(
        pl.read_ipc(realdata / "ohlcv" / f"{symbol.replace('/', '_')}-5m.feather").select(
            pl.lit("binance").alias("venue"),
            pl.lit(symbol).alias("symbol"),
            pl.lit("5m").alias("timeframe"),
            opens.alias("open_time"),
            (opens + BAR).alias("close_time"),
            "open",
            "high",
            "low",
            "close",
            "volume",
            pl.lit("replay").alias("source"),
            opens.dt.date().alias("date"),
        )
        for symbol in SYMBOLS
    ).filter(pl.col("date").is_between(days[0] - 2 * DAY, days[-1]))
    now = midnight(first) + 8 * DAY
    onchain = onchain_features(
        make_metrics(6, first), make_blocks(6, first), SYMBOLS, days, delay=HORIZON, now=now
    )
    lake = Lake(str(tmp_path / "lake"))
    lake.replace_days("price_features", price_features(bars, days, BAR), days)
    lake.replace_days("onchain_features", onchain, days)
    rows = training_set(
        lake.scan("price_features"),
        lake.scan("onchain_features"),
        bars.lazy(),
        now=now,
        window=7 * DAY,
        horizon=HORIZON,
    )
    assert rows.height == len(SYMBOLS) * (7 * 288 - 12)
    assert audit.apart(rows, audit.by_asof_join(rows, inputs_of(lake))) == ()
    sample = audit.drawn_rows(rows, 500, seed=5)
    theirs = audit.through_feast(sample, inputs_of(lake), versions(lake), lake.uri)
    assert audit.apart(sample, theirs) == ()
