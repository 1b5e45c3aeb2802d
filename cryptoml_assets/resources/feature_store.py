"""The Feast store as a Dagster resource."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from cryptoml_assets.settings import settings
from cryptoml_serving.contract.feature_store import import_feast
from cryptoml_serving.contract.stores import Stores

if TYPE_CHECKING:
    from feast import FeatureStore


class FeatureStoreResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Where the feature store is configured and keeps its files.

    The addresses of Redis and of the registry's database come from the settings when it is opened:
    the UI shows a resource's configuration, and they may hold a password.

    Attributes:
        repository: Folder holding ``feature_store.yaml``.
        home: Folder under which the embedded registry and online store lie.
    """

    repository: str
    home: str

    def open(self) -> FeatureStore:
        """Open the store. Feast takes seconds to import, so only the runs that need it pay."""
        import_feast()
        from cryptoml_assets.features.store import open_store  # noqa: PLC0415

        return open_store(Path(self.repository), self._stores)

    @contextlib.contextmanager
    def session(self) -> Iterator[FeatureStore]:
        """Open the store; what its servers refuse or fail to answer is an error naming them.

        Raises:
            FeatureStoreError: the registry or the online store does not answer.
        """
        store = self.open()
        from cryptoml_assets.features.store import answering  # noqa: PLC0415

        with answering(self._stores):
            yield store

    @property
    def _stores(self) -> Stores:
        configured = settings()
        return Stores(Path(self.home), configured.online_store, configured.feature_registry)
