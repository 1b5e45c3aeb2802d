"""The online store brought up to the lake, and read back to prove that both say the same."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import string
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import yaml
from feast import FeatureStore, RepoConfig

from cryptoml_assets.features import views
from cryptoml_assets.features.catalog import features_of
from cryptoml_assets.features.feature import Table
from cryptoml_serving.contract.feature_store import JOIN_KEY, feature_store_environment

_CONFIGURATION = "feature_store.yaml"
_TABLES: tuple[Table, ...] = ("price_features", "onchain_features")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Difference:
    """One online value that is not the lake's."""

    table: Table
    symbol: str
    column: str
    online: object
    lake: object

    def __str__(self) -> str:
        """The value's place and both readings, as a check's message shows them."""
        where = f"{self.table}.{self.column} of {self.symbol}"
        return f"{where}: {self.online} online, {self.lake} in the lake"


def open_store(repository: Path, home: Path) -> FeatureStore:
    """Open the store that ``feature_store.yaml`` in ``repository`` describes.

    Its files lie under ``home`` unless the environment says otherwise.
    """
    text = (repository / _CONFIGURATION).read_text()
    variables = {**feature_store_environment(home), **os.environ}
    raw = yaml.safe_load(string.Template(text).safe_substitute(variables))
    return FeatureStore(config=RepoConfig(**raw, repo_path=repository.resolve()))


def bring_up_to_date(store: FeatureStore, lake_uri: str, now: datetime, ttl: timedelta) -> None:
    """Register the catalog and write each symbol's newest row known at ``now``.

    The window is always the whole TTL. Feast's own incremental mode starts where the last run
    ended, by the machine's clock: it would skip a symbol whose row arrived late, and everything in
    a world whose clock stands in the past.
    """
    price, onchain = (views.view(table, lake_uri) for table in _TABLES)
    objects = [views.crypto_symbol(), price, onchain, views.return_service(price, onchain)]
    # Feast prints its progress to standard output, which belongs to the command that runs us.
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        store.apply(objects)
        store.materialize(now - ttl, now)
    _log.debug("%s", printed.getvalue())


def online_rows(store: FeatureStore, table: Table, symbols: Sequence[str]) -> pl.DataFrame:
    """What the online store holds: one row per symbol with its event timestamp, null if absent.

    Returns:
        Columns ``symbol``, ``event_timestamp`` and each feature of the view.
    """
    names = [feature.name for feature in features_of(table)]
    answer: dict[str, list[Any]] = store.get_online_features(
        features=[f"{table}:{name}" for name in names],
        entity_rows=[{JOIN_KEY: symbol} for symbol in symbols],
    ).to_dict(include_event_timestamps=True)
    # A row Feast does not hold is dated at the epoch.
    instants = [
        datetime.fromtimestamp(seconds, UTC) if seconds else None
        for seconds in answer[f"{names[0]}__ts"]
    ]
    return pl.DataFrame(
        [
            pl.Series("symbol", symbols, pl.String),
            pl.Series("event_timestamp", instants, pl.Datetime("us", "UTC")),
            *(pl.Series(name, answer[name], pl.Float64) for name in names),
        ]
    )


def newest_rows(
    rows: pl.LazyFrame, table: Table, symbols: Sequence[str], now: datetime, ttl: timedelta
) -> pl.DataFrame:
    """What the lake says the online store must hold at ``now``; shaped as :func:`online_rows`."""
    names = [feature.name for feature in features_of(table)]
    known = rows.filter(pl.col("event_timestamp").is_between(now - ttl, now)).select(
        "symbol", "event_timestamp", *names
    )
    newest = known.sort("event_timestamp").group_by("symbol").last()
    wanted = pl.LazyFrame({"symbol": list(symbols)}, schema={"symbol": pl.String})
    return wanted.join(newest, on="symbol", how="left", maintain_order="left").collect()


def differences(table: Table, online: pl.DataFrame, lake: pl.DataFrame) -> tuple[Difference, ...]:
    """Every cell in which two readings differ by a single bit; both one row per symbol, same order.

    A symbol that the lake no longer vouches for (no row within the TTL) is not compared: readers
    drop what is older than the TTL.
    """
    found = []
    for seen, wanted in zip(online.to_dicts(), lake.to_dicts(), strict=True):
        if wanted["event_timestamp"] is None:
            continue
        found += [
            Difference(table, wanted["symbol"], column, seen[column], value)
            for column, value in wanted.items()
            if _bits(seen[column]) != _bits(value)
        ]
    return tuple(found)


def _bits(value: object) -> object:
    return struct.pack("<d", value) if isinstance(value, float) else value
