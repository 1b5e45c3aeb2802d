from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from cryptoml_assets.features.catalog import features_of
from cryptoml_assets.features.compute import feature_schema
from cryptoml_assets.features.onchain import onchain_features
from tests.feature_data import DAY, FIRST, make_blocks, make_metrics, midnight, some_days

DELAY = timedelta(hours=4)
SYMBOLS = ("BTC/USDT", "ETH/USDT")
LATER = datetime(2030, 1, 1, tzinfo=UTC)


def compute(metrics: pl.DataFrame, blocks: pl.DataFrame, now: datetime = LATER) -> pl.DataFrame:
    return onchain_features(metrics, blocks, SYMBOLS, some_days(3), delay=DELAY, now=now)


def test_a_row_holds_its_assets_metrics_and_the_days_blocks() -> None:
    features = compute(make_metrics(3), make_blocks(3))
    assert features.schema == feature_schema(features_of("onchain_features"))
    assert features.height == 6
    bitcoin = features.filter(pl.col("symbol") == "BTC/USDT").row(1, named=True)
    assert bitcoin == {
        "symbol": "BTC/USDT",
        "event_timestamp": midnight(FIRST) + 2 * DAY + DELAY,
        "active_addresses": 1001.0,
        "transaction_count": 2001.0,
        "network_hash_rate": 3001.0,
        "nvt_ratio": 41.0,
        "mvrv_ratio": 2.5,
        "eth_gas_used_ratio": 0.5,
        "eth_base_fee_gwei": 25.0,
        "source": "simulated",
        "date": FIRST + DAY,
    }


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
