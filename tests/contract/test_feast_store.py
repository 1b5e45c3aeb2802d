"""Feast's own reading of the past against the training read, through the registered service."""

from datetime import timedelta
from pathlib import Path

import polars as pl

from cryptoml_assets.features.catalog import TTL, model_features, window_inputs
from cryptoml_assets.features.compute import price_features
from cryptoml_assets.features.onchain import onchain_features
from cryptoml_assets.features.service import return_service_name
from cryptoml_assets.features.training_set import training_set
from cryptoml_serving.contract.stores import Stores
from tests.feature_data import BAR, DAY, FIRST, make_bars, make_blocks, make_metrics, midnight
from tests.online_world import DAYS, DELAY, NOW, SYMBOLS, OnlineWorld

HORIZON = timedelta(hours=1)


def test_the_training_set_equals_feasts_historical_features(tmp_path: Path) -> None:
    world = OnlineWorld(tmp_path, Stores(tmp_path))
    bars = make_bars(10, SYMBOLS).filter(pl.col("close_time") <= NOW)
    onchain = onchain_features(make_metrics(2), make_blocks(2), SYMBOLS, DAYS, delay=DELAY, now=NOW)
    lake = world.lake
    lake.replace_days("raw_prices", bars, DAYS)
    lake.replace_days("price_features", price_features(bars, DAYS, BAR), DAYS)
    lake.replace_days("onchain_features", onchain, DAYS)
    world.register()
    ours = training_set(
        lake.scan("price_features"),
        lake.scan("onchain_features"),
        lake.scan("raw_prices"),
        now=NOW,
        window=9 * DAY,
        horizon=HORIZON,
    ).sample(500, seed=4)
    entities = ours.select("symbol", "event_timestamp").to_pandas()
    service = world.store.get_feature_service(return_service_name(window_inputs()))
    theirs = pl.from_pandas(
        world.store.get_historical_features(entity_df=entities, features=service).to_df()
    )
    order = ["symbol", "event_timestamp"]
    columns = [*order, *model_features()]
    assert ours.select(columns).sort(order).equals(theirs.select(columns).sort(order))
    assert ours["nvt_ratio"].is_not_null().sum() > 100
    # On-chain rows end with the second day: the time to live must have made the last ones null.
    last_known = midnight(FIRST) + 2 * DAY + DELAY
    late = ours.filter(pl.col("event_timestamp") > last_known + TTL)
    assert late.height > 5
    assert late["nvt_ratio"].null_count() == late.height
