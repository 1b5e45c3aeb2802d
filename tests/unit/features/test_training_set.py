import math
from datetime import timedelta

import polars as pl
import pytest

from cryptoml_assets.features.catalog import TTL, model_features
from cryptoml_assets.features.compute import price_features
from cryptoml_assets.features.onchain import onchain_features
from cryptoml_assets.features.point_in_time import as_of
from cryptoml_assets.features.training_set import model_inputs, training_set
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

DAYS = some_days(4)
HOUR = timedelta(hours=1)
DELAY = timedelta(hours=4)
NOW = midnight(FIRST) + 4 * DAY
SYMBOLS = ("BTC/USDT", "ETH/USDT")


@pytest.fixture(scope="module")
def bars() -> pl.DataFrame:
    return make_bars(4, SYMBOLS)


def rows_of(bars: pl.DataFrame, **changes: object) -> pl.DataFrame:
    known = {"now": NOW, "window": 3 * DAY, "horizon": HOUR} | changes
    onchain = onchain_features(
        make_metrics(4), make_blocks(4), SYMBOLS, DAYS, delay=DELAY, now=known["now"]
    )
    price = price_features(bars, DAYS, BAR)
    return training_set(price.lazy(), onchain.lazy(), bars.lazy(), **known)


def test_columns_are_the_keys_the_label_and_the_model_inputs_in_order(bars: pl.DataFrame) -> None:
    names = ["symbol", "event_timestamp", "label_timestamp", "label", *model_features(), "source"]
    rows = rows_of(bars)
    assert rows.columns == names
    assert rows.equals(rows.sort("event_timestamp", "symbol"))


def test_a_label_is_the_log_return_over_exactly_the_horizon(bars: pl.DataFrame) -> None:
    closes = {(row["symbol"], row["close_time"]): row["close"] for row in bars.to_dicts()}
    for row in rows_of(bars).sample(200, seed=1).to_dicts():
        then = closes[row["symbol"], row["event_timestamp"] + HOUR]
        now = closes[row["symbol"], row["event_timestamp"]]
        assert row["label"] == pytest.approx(math.log(then / now), rel=1e-12)
        assert row["label_timestamp"] == row["event_timestamp"] + HOUR


def test_rows_fill_the_window_up_to_the_last_label_known(bars: pl.DataFrame) -> None:
    events = rows_of(bars)["event_timestamp"]
    assert events.min() == NOW - 3 * DAY + BAR
    assert events.max() == NOW - HOUR
    assert len(events) == 2 * (3 * 288 - 12)


def test_bars_after_now_give_no_label(bars: pl.DataFrame) -> None:
    earlier = NOW - timedelta(hours=5)
    rows = rows_of(bars, now=earlier)
    assert rows["label_timestamp"].max() == earlier
    kept = rows["event_timestamp"]
    assert rows.equals(rows_of(bars.filter(pl.col("close_time") <= earlier), now=earlier)), (
        "bars that closed after now changed something"
    )
    assert kept.max() == earlier - HOUR


def test_no_label_ends_on_a_missing_bar(bars: pl.DataFrame) -> None:
    missing = midnight(FIRST) + 2 * DAY
    rows = rows_of(bars.filter(pl.col("close_time") != missing))
    assert missing not in rows["event_timestamp"].to_list()
    assert missing not in rows["label_timestamp"].to_list()
    assert rows.height == 2 * (3 * 288 - 12 - 2)


def test_onchain_values_are_those_known_at_the_event(bars: pl.DataFrame) -> None:
    rows = rows_of(bars).filter(pl.col("symbol") == "BTC/USDT")
    second_known = midnight(FIRST) + 2 * DAY + DELAY
    before = rows.filter(pl.col("event_timestamp") < second_known)["nvt_ratio"]
    assert before[-1] == 40.0
    assert rows.filter(pl.col("event_timestamp") == second_known)["nvt_ratio"].item() == 41.0


def test_onchain_values_older_than_the_time_to_live_are_null(bars: pl.DataFrame) -> None:
    price = price_features(bars, DAYS[-1:], BAR)
    onchain = onchain_features(
        make_metrics(1), make_blocks(1).clear(), SYMBOLS, DAYS, delay=DELAY, now=NOW
    )
    known = onchain["event_timestamp"].item()

    def nulls(ttl: timedelta) -> pl.Series:
        entities = price.select("symbol", "event_timestamp")
        rows = as_of(entities, model_inputs(price.lazy(), onchain.lazy(), ttl=ttl))
        bitcoin = rows.filter(pl.col("symbol") == "BTC/USDT")
        return bitcoin.filter(pl.col("nvt_ratio").is_null())["event_timestamp"]

    assert nulls(TTL).is_empty()
    assert nulls(2 * DAY).min() == known + 2 * DAY + BAR
