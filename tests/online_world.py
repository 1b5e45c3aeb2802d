"""A lake of feature rows and a feature store over it, made for real.

world = OnlineWorld(tmp_path, Stores(tmp_path))
world.write("price_features", world.rows(...))   # replaces the days of the rows
world.top_up(now)                                 # what changed since the last time
world.differences(now)                            # () where online equals the lake
"""
# ruff: noqa: PLC0415 - collecting tests must not import feast

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from cryptoml_assets.features.catalog import features_of
from cryptoml_assets.features.compute import feature_schema, price_features
from cryptoml_assets.features.feature import Table
from cryptoml_assets.features.onchain import onchain_features
from cryptoml_assets.resources.lake import Lake
from cryptoml_serving.contract.stores import Stores
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

REPOSITORY = Path(__file__).parents[1] / "feature_repo"
SYMBOLS = ("BTC/USDT", "ETH/USDT")
TABLES: tuple[Table, ...] = ("price_features", "onchain_features")
DELAY = timedelta(hours=4)
DAYS = some_days(10)
NOW = midnight(FIRST) + 10 * DAY - timedelta(hours=7)


@dataclass
class OnlineWorld:
    """One lake and one feature store, and what was brought from the one to the other."""

    home: Path
    stores: Stores
    since: dict[Table, Any] = field(default_factory=dict)

    @property
    def lake(self) -> Lake:
        return Lake(str(self.home / "lake"))

    @cached_property
    def store(self) -> Any:
        return self.opened()

    def opened(self) -> Any:
        """The store, opened anew; ``close`` closes only :attr:`store`."""
        from cryptoml_assets.features.store import open_store

        return open_store(REPOSITORY, self.stores)

    def close(self) -> None:
        """Close the servers' connections: unclosed ones are warned about."""
        store = self.__dict__.pop("store", None)
        if store is None:
            return
        if self.stores.registry:
            store.registry.write_engine.dispose()
        if self.stores.online:
            store.provider.online_store._get_client(store.config.online_store).close()

    def register(self, now: datetime = NOW) -> bool:
        from cryptoml_assets.features.store import register

        return register(self.store, self.lake.uri, now)

    def top_up(self, now: datetime = NOW, tables: Sequence[Table] = TABLES) -> dict[Table, Any]:
        from cryptoml_assets.features.online import Brought, bring_up_to_date

        self.register(now)
        for table in tables:
            brought = bring_up_to_date(
                self.store,
                self.lake,
                table,
                SYMBOLS,
                now=now,
                delay=DELAY,
                since=self.since.get(table),
            )
            assert Brought.of_record(brought.record()).record() == brought.record()
            self.since[table] = brought
        return self.since

    def online(self, table: Table, now: datetime = NOW, symbols: Sequence[str] = SYMBOLS) -> Any:
        from cryptoml_assets.features.online import online_rows

        return online_rows(self.store, table, symbols, now)

    def differences(self, now: datetime = NOW, tables: Sequence[Table] = TABLES) -> list[str]:
        """What readers get that is not the lake's newest, in words."""
        from cryptoml_assets.features.parity import not_of_the_lake

        return [
            str(each)
            for table in tables
            for each in not_of_the_lake(
                self.online(table, now), self.lake, table, now=now, delay=DELAY
            )
        ]

    def against_the_raw_tables(self, now: datetime = NOW, **how: Any) -> list[str]:
        """What readers get that the raw tables do not give, in words."""
        from cryptoml_assets.features.parity import not_of_the_raw_tables

        found = []
        for table in TABLES:
            different, looked_at = not_of_the_raw_tables(
                self.online(table, now), self.lake, table, now=now, delay=DELAY, bar=BAR, **how
            )
            assert looked_at, "nothing was compared"
            found += [str(each) for each in different]
        return found

    def day(self, table: str, day: date) -> pl.DataFrame:
        return self.lake.scan(table, [day]).collect()


def fill(lake: Lake) -> None:
    """Ten days of raw rows and features; ETH/USDT stopped trading on the sixth."""
    bars = make_bars(10, SYMBOLS).filter(
        (pl.col("symbol") == "BTC/USDT") | (pl.col("date") < DAYS[5]), pl.col("close_time") <= NOW
    )
    metrics, blocks = make_metrics(10, assets=("btc", "eth")), make_blocks(10)
    onchain = onchain_features(metrics, blocks, SYMBOLS, DAYS, delay=DELAY, now=NOW)
    for table, rows in {
        "raw_prices": bars,
        "network_metrics": metrics,
        "onchain_blocks": blocks,
        "price_features": price_features(bars, DAYS, BAR),
        "onchain_features": onchain,
    }.items():
        lake.replace_days(table, rows, DAYS)


def random_rows(day: date, minutes: Sequence[int], symbol: str, seed: int) -> pl.DataFrame:
    """Rows of ``price_features`` at these minutes of a day, of random values, some of them null."""
    rng = np.random.default_rng(seed)
    features = features_of("price_features")
    values = rng.normal(size=(len(features), len(minutes)))
    columns = {
        feature.name: [None if abs(value) < 0.1 else value for value in row]
        for feature, row in zip(features, values, strict=True)
    }
    schema = feature_schema(features)
    known: dict[str, Any] = {
        "symbol": [symbol] * len(minutes),
        "event_timestamp": [midnight(day) + timedelta(minutes=each) for each in minutes],
        **columns,
        "source": ["simulated"] * len(minutes),
        "date": [day] * len(minutes),
    }
    nulls = {name: [None] * len(minutes) for name in schema if name not in known}
    return pl.DataFrame({name: (known | nulls)[name] for name in schema}, schema=schema)
