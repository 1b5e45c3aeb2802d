"""Feast's reading of the past from the lake's tables as they were at given versions.

Tables move on: late bars and reorganised blocks are computed again. What a training set was made of
stays readable by the Delta versions it recorded, through Feast too::

    offline_store:
      type: feature_repo.pinned_offline_store.PinnedOfflineStore
      versions: {price_features: 12, onchain_features: 3}
"""

from __future__ import annotations

import io
from functools import partial
from pathlib import PurePosixPath
from typing import Any, Literal

from feast.data_source import DataSource
from feast.infra.offline_stores.duckdb import DuckDBOfflineStoreConfig
from feast.infra.offline_stores.ibis import get_historical_features_ibis
from feast.infra.offline_stores.offline_store import RetrievalJob
from feast.repo_config import RepoConfig

from feature_repo.lake_offline_store import LakeOfflineStore, read_table


class PinnedOfflineStoreConfig(DuckDBOfflineStoreConfig):  # type: ignore[misc]
    """The ``offline_store`` section of ``feature_store.yaml``.

    Attributes:
        versions: Delta version of each table, by its name; every table read needs one.
    """

    type: Literal["feature_repo.pinned_offline_store.PinnedOfflineStore"] = (
        "feature_repo.pinned_offline_store.PinnedOfflineStore"
    )
    versions: dict[str, int]


class PinnedOfflineStore(LakeOfflineStore):
    """Historical features of pinned table versions; everything else is the lake's newest."""

    @staticmethod
    def get_historical_features(config: RepoConfig, *args: Any, **kwargs: Any) -> RetrievalJob:
        """Feature values as of each entity row's instant, as the pinned versions have them."""
        return get_historical_features_ibis(
            config,
            *args,
            **kwargs,
            data_source_reader=partial(_read, config.offline_store.versions),
            data_source_writer=_write,
        )


def _read(versions: dict[str, int], source: DataSource, _repository: str) -> Any:
    table = PurePosixPath(source.path).name
    return read_table(source.path, versions[table])


def _write(*_args: Any, **_kwargs: Any) -> None:
    message = "pinned table versions are read only; persist the answer through another store"
    raise io.UnsupportedOperation(message)
