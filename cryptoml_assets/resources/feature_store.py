"""The Feast store as a Dagster resource."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from cryptoml_serving.contract.feature_store import import_feast

if TYPE_CHECKING:
    from feast import FeatureStore


class FeatureStoreResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Where the feature store is configured and keeps its files.

    Attributes:
        repository: Folder holding ``feature_store.yaml``.
        home: Folder under which the registry and the online store lie.
    """

    repository: str
    home: str

    def open(self) -> FeatureStore:
        """Open the store. Feast takes seconds to import, so only the runs that need it pay."""
        import_feast()
        from cryptoml_assets.features.online import open_store  # noqa: PLC0415

        return open_store(Path(self.repository), Path(self.home))
