"""Feast's DuckDB offline store, able to read the lake's Delta tables without a download.

DuckDB reads Delta through its ``delta`` extension and would fetch it from the network on first
use. Feast opens the offline store from many places (the asset graph, ``feast`` by hand, a
notebook), so the extension that the lock file installs is put in place here, where all of them
pass. Tables of an object store are opened by delta-rs, as the lake itself does, with the same
credentials from the same environment, and DuckDB reads their files through it: only the columns and
row groups that a question needs.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import duckdb_extensions
import ibis
from feast.data_source import DataSource
from feast.infra.offline_stores.duckdb import (
    DuckDBOfflineStore,
    DuckDBOfflineStoreConfig,
    _write_data_source,
)
from feast.infra.offline_stores.ibis import (
    get_historical_features_ibis,
    pull_all_from_table_or_query_ibis,
    pull_latest_from_table_or_query_ibis,
)
from feast.infra.offline_stores.offline_store import RetrievalJob
from feast.repo_config import RepoConfig


class LakeOfflineStoreConfig(DuckDBOfflineStoreConfig):  # type: ignore[misc]
    """The ``offline_store`` section of ``feature_store.yaml``."""

    type: Literal["feature_repo.lake_offline_store.LakeOfflineStore"] = (
        "feature_repo.lake_offline_store.LakeOfflineStore"
    )


class LakeOfflineStore(DuckDBOfflineStore):  # type: ignore[misc]
    """Reads feature tables from Delta; everything else is Feast's DuckDB store."""

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig, *args: Any, **more: Any
    ) -> RetrievalJob:
        """Newest row of each entity in a window: what materialising reads."""
        return _asked(pull_latest_from_table_or_query_ibis)(config, *args, **more)

    @staticmethod
    def pull_all_from_table_or_query(config: RepoConfig, *args: Any, **more: Any) -> RetrievalJob:
        """Every row of a window."""
        return _asked(pull_all_from_table_or_query_ibis)(config, *args, **more)

    @staticmethod
    def get_historical_features(config: RepoConfig, *args: Any, **more: Any) -> RetrievalJob:
        """Feature values as of each entity row's instant."""
        return _asked(get_historical_features_ibis)(config, *args, **more)


def read_table(address: str, version: int | None = None) -> Any:
    """A Delta table as an ibis table of the connection that Feast's store uses.

    Args:
        address: folder, or address of an object store.
        version: of the table; the newest when not given.
    """
    if "://" in address:
        from deltalake import DeltaTable  # noqa: PLC0415 - for object stores alone

        return ibis.memtable(DeltaTable(address, version=version).to_pyarrow_dataset())
    duckdb_extensions.import_extension("delta", con=ibis.get_backend().con)
    return ibis.read_delta(address, **({} if version is None else {"version": version}))


def _asked(question: Any) -> Any:
    return partial(question, data_source_reader=_read, data_source_writer=_write_data_source)


def _read(source: DataSource, _repository: str) -> Any:
    return read_table(source.path)
