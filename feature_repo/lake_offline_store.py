"""Feast's DuckDB offline store, able to read the lake's Delta tables without a download.

DuckDB reads Delta through its ``delta`` extension and would fetch it from the network on first
use. Feast opens the offline store from many places (the asset graph, ``feast`` by hand, a
notebook), so the extension that the lock file installs is put in place here, where all of them
pass.
"""

from __future__ import annotations

from typing import Any, Literal

import duckdb_extensions
import ibis
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig
from feast.infra.offline_stores.offline_store import RetrievalJob


class LakeOfflineStoreConfig(DuckDBOfflineStoreConfig):  # type: ignore[misc]
    """The ``offline_store`` section of ``feature_store.yaml``."""

    type: Literal["feature_repo.lake_offline_store.LakeOfflineStore"] = (
        "feature_repo.lake_offline_store.LakeOfflineStore"
    )


class LakeOfflineStore(DuckDBOfflineStore):  # type: ignore[misc]
    """Reads feature tables from Delta; everything else is Feast's DuckDB store."""

    @staticmethod
    def pull_latest_from_table_or_query(*args: Any, **kwargs: Any) -> RetrievalJob:
        """Newest row of each entity in a window: what materialising reads."""
        install_delta_extension()
        return DuckDBOfflineStore.pull_latest_from_table_or_query(*args, **kwargs)

    @staticmethod
    def pull_all_from_table_or_query(*args: Any, **kwargs: Any) -> RetrievalJob:
        """Every row of a window."""
        install_delta_extension()
        return DuckDBOfflineStore.pull_all_from_table_or_query(*args, **kwargs)

    @staticmethod
    def get_historical_features(*args: Any, **kwargs: Any) -> RetrievalJob:
        """Feature values as of each entity row's instant."""
        install_delta_extension()
        return DuckDBOfflineStore.get_historical_features(*args, **kwargs)


def install_delta_extension() -> None:
    """Install the packaged extension for ibis's own connection, which Feast's store uses."""
    duckdb_extensions.import_extension("delta", con=ibis.get_backend().con)
