"""Training rows read again in other ways: through Feast, and by polars' own as-of join."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import polars as pl

from cryptoml_assets.features.catalog import model_features
from cryptoml_assets.features.feature import Table
from cryptoml_assets.features.point_in_time import FeatureRows
from cryptoml_assets.features.proofs import Difference, differences
from cryptoml_serving.contract.feature_store import import_feast

_KEY = ("symbol", "event_timestamp")
_SHOWN = 20
_log = logging.getLogger(__name__)


def drawn_rows(rows: pl.DataFrame, count: int, seed: int) -> pl.DataFrame:
    """Up to ``count`` of ``rows``, the newest of each symbol among them, drawn by ``seed``."""
    newest = rows.sort("event_timestamp").unique("symbol", keep="last", maintain_order=True)
    others = rows.join(newest, on=_KEY, how="anti", maintain_order="left")
    wanted = max(0, min(count - newest.height, others.height))
    return pl.concat([newest, others.sample(wanted, seed=seed)])


def through_feast(
    entities: pl.DataFrame, tables: Sequence[FeatureRows], versions: Mapping[str, int], lake: str
) -> pl.DataFrame:
    """What Feast's ``get_historical_features`` says of ``entities``.

    Feast reads the Delta tables itself, as they were at ``versions``, by views made of the catalog
    and a registry of this call alone: what is registered elsewhere is not looked at.

    Args:
        entities: Columns ``symbol`` and ``event_timestamp``.
        tables: The features asked for; their ``rows`` are not read.
        versions: Delta version of each table, by its name.
        lake: Address of the lake.

    Returns:
        ``symbol``, ``event_timestamp`` and the features, in no order.
    """
    import_feast()
    from feast import FeatureStore, RepoConfig  # noqa: PLC0415

    from cryptoml_assets.features import views  # noqa: PLC0415

    registered = [views.view(cast("Table", each.table), lake) for each in tables]
    references = [f"{each.table}:{name}" for each in tables for name in each.columns]
    with tempfile.TemporaryDirectory() as folder:
        store = FeatureStore(
            config=RepoConfig(
                project="audit",
                provider="local",
                registry=str(Path(folder) / "registry.db"),
                online_store=None,
                offline_store={
                    "type": "feature_repo.pinned_offline_store.PinnedOfflineStore",
                    "versions": {each.table: versions[each.table] for each in tables},
                },
                entity_key_serialization_version=3,
                repo_path=Path(folder),
            )
        )
        # Feast prints its progress to standard output, which belongs to the command that runs us.
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            store.apply([views.crypto_symbol(), *registered])
            answer = store.get_historical_features(
                entity_df=entities.select(_KEY).to_pandas(), features=references
            ).to_arrow()
        _log.debug("%s", printed.getvalue())
    return pl.DataFrame(answer).with_columns(
        pl.col("event_timestamp").cast(entities.schema["event_timestamp"])
    )


def by_asof_join(entities: pl.DataFrame, tables: Sequence[FeatureRows]) -> pl.DataFrame:
    """The inputs of ``entities`` by polars' own as-of join, and how old each table's row was.

    Returns:
        ``symbol``, ``event_timestamp``, the features and ``age_TABLE`` of each table, null where it
        knows no row; sorted by the first two.
    """
    rows = entities.lazy().select(_KEY).sort("event_timestamp", "symbol")
    instant = pl.col("event_timestamp")
    oldest, newest = entities.select(instant.min().alias("oldest"), instant.max()).row(0)
    for each in tables:
        known = each.rows.filter(instant.is_between(oldest - each.ttl, newest)).select(
            *_KEY, *each.columns, known_at="event_timestamp"
        )
        rows = (
            rows.join_asof(
                known.sort("event_timestamp"),
                on="event_timestamp",
                by="symbol",
                strategy="backward",
                tolerance=each.ttl,
                check_sortedness=False,
            )
            .with_columns((instant - pl.col("known_at")).alias(age_of(each)))
            .drop("known_at")
        )
    return rows.collect()


def age_of(each: FeatureRows) -> str:
    """Column of the ages of a table's rows."""
    return f"age_{each.table}"


def apart(stored: pl.DataFrame, again: pl.DataFrame) -> tuple[Difference, ...]:
    """The oldest value of each model input that is not stored as it was read again, to the bit."""
    order = ["event_timestamp", "symbol"]
    return differences(again.sort(order), stored.sort(order), model_features())


def told(found: Sequence[Difference], reader: str) -> str:
    """The first of some differences as a check's message: place, both values and who said which."""
    return "; ".join(
        f"{each.feature} of {each.symbol} at {each.event_timestamp:%Y-%m-%d %H:%M}: "
        f"{each.found} stored, {each.expected} by {reader}"
        for each in found[:_SHOWN]
    )
