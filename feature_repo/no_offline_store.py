"""The offline store of those who read online features alone: none.

Feast opens an offline store for every reader. Its default brings libraries for tables larger than
memory, which take longer to import than all else that reading one row takes.
"""

from __future__ import annotations

from typing import Literal

from feast.infra.offline_stores.offline_store import OfflineStore
from feast.repo_config import FeastConfigBaseModel


class NoOfflineStoreConfig(FeastConfigBaseModel):  # type: ignore[misc]
    """The ``offline_store`` section of a reader's configuration."""

    type: Literal["feature_repo.no_offline_store.NoOfflineStore"] = (
        "feature_repo.no_offline_store.NoOfflineStore"
    )


class NoOfflineStore(OfflineStore):  # type: ignore[misc]
    """Reads nothing."""
