"""Every on-chain feature against its textbook formula."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from cryptoml_assets.features.catalog import features_of
from cryptoml_assets.features.onchain import onchain_features
from tests.feature_data import FIRST, make_blocks, make_metrics, some_days
from tests.feature_textbook import onchain_textbook

COUNT = 12
DAYS = some_days(COUNT)
RNG = np.random.default_rng(5)
SYMBOLS = {"BTC/USDT": "btc", "ETH/USDT": "eth"}
METRICS = make_metrics(COUNT, assets=tuple(SYMBOLS.values())).with_columns(
    pl.Series(name, RNG.lognormal(3, 1, len(SYMBOLS) * COUNT))
    for name in ("active_addresses", "transaction_count", "hash_rate", "nvt_ratio", "mvrv_ratio")
)
BLOCKS = make_blocks(COUNT).with_columns(
    pl.Series(name, RNG.integers(1, most, 4 * COUNT))
    for name, most in (
        ("gas_used", 30_000_000),
        ("gas_limit", 60_000_000),
        ("base_fee_per_gas", 10**11),
        ("transaction_count", 400),
        ("active_addresses", 900),
    )
)


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    later = datetime(2030, 1, 1, tzinfo=UTC)
    return onchain_features(
        METRICS, BLOCKS, list(SYMBOLS), DAYS, delay=timedelta(hours=4), now=later
    )


@pytest.mark.parametrize("symbol", SYMBOLS)
@pytest.mark.parametrize("at", [7, 9, COUNT - 1])
def test_every_feature_equals_its_textbook_formula(
    rows: pl.DataFrame, symbol: str, at: int
) -> None:
    row = rows.filter(pl.col("symbol") == symbol).row(at, named=True)
    metrics = METRICS.filter(pl.col("asset") == SYMBOLS[symbol]).sort("day").to_dicts()
    blocks = [BLOCKS.filter(pl.col("date") == day).to_dicts() for day in DAYS]
    expected = onchain_textbook(metrics[: at + 1], blocks[: at + 1])
    assert set(expected) == {feature.name for feature in features_of("onchain_features")}
    assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("name", ["gas_used", "base_fee_per_gas", "transaction_count"])
def test_a_day_of_nothing_is_null_and_never_infinite(name: str) -> None:
    empty = BLOCKS.with_columns(
        pl.when(pl.col("date") == FIRST + timedelta(days=9)).then(0).otherwise(name).alias(name)
    )
    later = datetime(2030, 1, 1, tzinfo=UTC)
    found = onchain_features(
        METRICS, empty, list(SYMBOLS), DAYS, delay=timedelta(hours=4), now=later
    )
    numbers = found.select(feature.name for feature in features_of("onchain_features"))
    assert not any(numbers.select((pl.all().is_nan() | pl.all().is_infinite()).any()).row(0))
    if name == "base_fee_per_gas":
        assert found.row(9, named=True)["eth_base_fee_change_1"] is None
