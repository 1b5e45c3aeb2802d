import math
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoml_assets.features.catalog import features_of, warmup_of
from cryptoml_assets.features.compute import feature_schema
from cryptoml_assets.features.feature import Feature
from cryptoml_assets.features.lacks import needs
from cryptoml_assets.features.onchain import onchain_features
from tests.feature_data import DAY, FIRST, make_blocks, make_metrics, midnight, some_days

DELAY = timedelta(hours=4)
SYMBOLS = ("BTC/USDT", "ETH/USDT")
LATER = datetime(2030, 1, 1, tzinfo=UTC)
ASSETS = ("btc", "eth")


def compute(
    metrics: pl.DataFrame,
    blocks: pl.DataFrame,
    now: datetime = LATER,
    days: Sequence[date] = some_days(3),
) -> pl.DataFrame:
    return onchain_features(metrics, blocks, SYMBOLS, days, delay=DELAY, now=now)


def test_a_row_holds_its_assets_metrics_and_the_days_blocks() -> None:
    features = compute(make_metrics(3), make_blocks(3))
    assert features.schema == feature_schema(features_of("onchain_features"))
    assert features.height == 6
    bitcoin = features.filter(pl.col("symbol") == "BTC/USDT").row(1, named=True)
    expected = {
        "symbol": "BTC/USDT",
        "event_timestamp": midnight(FIRST) + 2 * DAY + DELAY,
        "active_addresses": 1001.0,
        "transaction_count": 2001.0,
        "network_hash_rate": 3001.0,
        "nvt_ratio": 41.0,
        "mvrv_ratio": 2.5,
        "eth_gas_used_ratio": 0.5,
        "eth_base_fee_gwei": 25.0,
        "eth_base_fee_change_1": 0.0,
        "eth_fee_pressure": 0.0,
        "null_reason": "no_final_blocks+not_published",
        "source": "simulated",
        "date": FIRST + DAY,
    }
    assert {name: bitcoin[name] for name in expected} == expected
    assert bitcoin["nvt_change_7"] is None


def test_a_symbol_without_metrics_has_nulls_and_the_blocks() -> None:
    features = compute(make_metrics(3), make_blocks(3))
    ether = features.filter(pl.col("symbol") == "ETH/USDT")
    assert ether["nvt_ratio"].null_count() == 3
    assert ether["eth_gas_used_ratio"].to_list() == [0.5] * 3


def test_a_null_metric_stays_null() -> None:
    assert compute(make_metrics(3), make_blocks(3))["mvrv_ratio"][0] is None


def test_a_row_exists_only_once_it_can_be_known() -> None:
    metrics, blocks = make_metrics(3), make_blocks(3)
    known = midnight(FIRST) + DAY + DELAY
    assert compute(metrics, blocks, known - timedelta(microseconds=1)).is_empty()
    assert compute(metrics, blocks, known)["date"].unique().to_list() == [FIRST]


@pytest.mark.parametrize("finality", ["safe", "latest"])
def test_blocks_that_are_not_final_do_not_count(finality: str) -> None:
    features = compute(make_metrics(3), make_blocks(3, finality=finality))
    assert features["eth_gas_used_ratio"].null_count() == features.height == 3
    assert compute(make_metrics(1).clear(), make_blocks(3, finality=finality)).is_empty()


def test_a_row_names_every_source_that_went_in() -> None:
    metrics = make_metrics(3).with_columns(source=pl.lit("replay"))
    features = compute(metrics, make_blocks(2))
    by_row = dict(zip(features.select("symbol", "date").rows(), features["source"], strict=True))
    assert by_row["BTC/USDT", FIRST] == "replay+simulated"
    assert by_row["ETH/USDT", FIRST] == "simulated"
    assert by_row["BTC/USDT", FIRST + 2 * DAY] == "replay"
    assert ("ETH/USDT", FIRST + 2 * DAY) not in by_row


def varied_blocks(days: int) -> pl.DataFrame:
    """Blocks whose gas, fee, transactions and addresses grow from block to block."""
    grown = 1.0 + pl.col("number") / 100
    return make_blocks(days).with_columns(
        (pl.col(name) * grown).round().cast(pl.Int64)
        for name in ("gas_used", "base_fee_per_gas", "transaction_count", "active_addresses")
    )


def test_changes_and_growth_equal_their_textbook_formulas() -> None:
    metrics, blocks = make_metrics(12, assets=ASSETS), varied_blocks(12)
    for symbol, asset in zip(SYMBOLS, ASSETS, strict=True):
        rows = compute(metrics, blocks, days=some_days(12)).filter(pl.col("symbol") == symbol)
        of_asset = metrics.filter(pl.col("asset") == asset).to_dicts()
        for day in (8, 11):
            row, now, then = rows.row(day, named=True), of_asset[day], of_asset[day - 7]
            for feature, column in (
                ("active_address_growth_7", "active_addresses"),
                ("transaction_growth_7", "transaction_count"),
                ("hash_rate_change_7", "hash_rate"),
                ("nvt_change_7", "nvt_ratio"),
                ("mvrv_change_7", "mvrv_ratio"),
            ):
                assert row[feature] == pytest.approx(math.log(now[column] / then[column]))
            mean = {
                back: blocks.filter(pl.col("date") == FIRST + (day - back) * DAY)
                .select(pl.col("base_fee_per_gas", "transaction_count", "active_addresses").mean())
                .row(0, named=True)
                for back in (0, 1, 7)
            }
            for feature, column, back in (
                ("eth_base_fee_change_1", "base_fee_per_gas", 1),
                ("eth_base_fee_change_7", "base_fee_per_gas", 7),
                ("eth_transaction_growth_7", "transaction_count", 7),
                ("eth_active_address_growth_7", "active_addresses", 7),
            ):
                wanted = math.log(mean[0][column] / mean[back][column])
                assert row[feature] == pytest.approx(wanted, rel=1e-9)
            gas = blocks.filter(pl.col("date") == FIRST + day * DAY)["gas_used"]
            assert row["eth_fee_pressure"] == (gas > 15_000_000).mean()


@pytest.mark.parametrize("feature", features_of("onchain_features"), ids=lambda each: each.name)
def test_a_value_exists_exactly_where_the_days_of_its_warm_up_do(feature: Feature) -> None:
    lost = pl.col("date") != FIRST + 10 * DAY
    metrics = make_metrics(20, assets=("eth",)).with_columns(pl.col("mvrv_ratio").fill_null(1.0))
    blocks = varied_blocks(20)
    rows = compute(metrics.filter(lost), blocks.filter(lost), days=some_days(20))
    null = rows.filter(pl.col("symbol") == "ETH/USDT", pl.col(feature.name).is_null())
    lags = [
        lag
        for steps in needs(feature.term).values()
        for lag in range(steps.bit_length())
        if steps >> lag & 1
    ]
    # The lost day has no row at all.
    expected = [
        FIRST + day * DAY
        for day in range(20)
        if day != 10 and any(day - lag < 0 or day - lag == 10 for lag in lags)
    ]
    assert null["date"].to_list() == expected


DAYS = some_days(20)
METRICS, BLOCKS = make_metrics(20, assets=ASSETS), varied_blocks(20)
WHOLE = compute(METRICS, BLOCKS, days=DAYS)


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(DAYS))
def test_days_alone_in_any_order_equal_the_range(order: list[date]) -> None:
    alone = pl.concat(compute(METRICS, BLOCKS, days=[day]) for day in order)
    assert alone.sort("symbol", "event_timestamp").equals(WHOLE)


@settings(max_examples=10, deadline=None)
@given(day=st.integers(min_value=7, max_value=19))
def test_days_before_the_declared_warm_up_change_nothing(day: int) -> None:
    needed = pl.col("date") >= DAYS[day] - warmup_of("onchain_features") * DAY
    rows = compute(METRICS.filter(needed), BLOCKS.filter(needed), days=[DAYS[day]])
    assert rows.equals(WHOLE.filter(pl.col("date") == DAYS[day]))
