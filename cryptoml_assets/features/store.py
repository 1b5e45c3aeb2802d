"""The feature store opened, and its registry made to say what the catalog says."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from feast import FeatureService, FeatureStore, FeatureView, RepoConfig

from cryptoml_assets.errors import FeatureStoreError
from cryptoml_assets.features import views
from cryptoml_assets.features.catalog import TTL, features_of
from cryptoml_assets.features.feature import TABLES
from cryptoml_serving.contract.feature_store import FORMULA_TAG
from cryptoml_serving.contract.registry import FEATURE_SERVICE_PREFIX
from cryptoml_serving.contract.stores import Stores

#: What fails with an error of theirs when a store does not answer.
_LIBRARIES = frozenset({"feast", "redis", "sqlalchemy", "pg8000", "sqlite3"})
_log = logging.getLogger(__name__)


def open_store(repository: Path, stores: Stores) -> FeatureStore:
    """Open the store that ``feature_store.yaml`` in ``repository`` describes, over ``stores``.

    Nothing is reached for before the first use; the folder of embedded ones is made.
    """
    for file in stores.files:
        file.parent.mkdir(parents=True, exist_ok=True)
    content = stores.configuration(repository)
    return FeatureStore(config=RepoConfig(**content, repo_path=repository.resolve()))


@contextlib.contextmanager
def answering(stores: Stores) -> Iterator[None]:
    """Have what the stores' libraries raise say which store it was, without its password.

    Raises:
        FeatureStoreError: the registry or the online store does not answer, or not as it should.
    """
    try:
        yield
    except Exception as error:  # the stores' libraries have no class of errors in common
        library = type(error).__module__.partition(".")[0]
        # What a file of the lake raises is an OSError as well, and is not theirs.
        if library not in _LIBRARIES and not isinstance(error, ConnectionError | TimeoutError):
            raise
        # Not chained: the libraries' own messages may hold the address with its password.
        raise FeatureStoreError(stores.failure(error)) from None


def register(store: FeatureStore, lake_uri: str, now: datetime) -> bool:
    """Make the registry hold the catalog's views and services; whether it had to be changed.

    Feature services of models whose formulas the views no longer hold are removed, so that no
    reader takes the values of one formula for those of another. A changed view carries one
    materialisation interval, from which ``feast materialize-incremental`` by hand goes on; Feast
    would add one at every top-up for ever.
    """
    price = views.view("price_features", lake_uri)
    onchain = views.view("onchain_features", lake_uri)
    wanted = views.return_services(price, onchain)
    services = {each.name: each for each in store.list_feature_services()}
    changed = False
    if any(services.get(each.name) != each for each in wanted) or not all(
        _registered(store, each) for each in (price, onchain)
    ):
        for each in (price, onchain):
            each.materialization_intervals = [(now - TTL, now)]
        # Feast prints its progress to standard output, which belongs to the command that runs us.
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            store.apply([views.crypto_symbol(), price, onchain, *wanted])
        _log.debug("%s", printed.getvalue())
        changed = True
    for each in services.values():
        if each.name.startswith(FEATURE_SERVICE_PREFIX) and not _held(each):
            store.delete_feature_service(each.name)
            changed = True
    return changed


def _registered(store: FeatureStore, wanted: FeatureView) -> bool:
    held = {each.name: each for each in store.list_feature_views()}.get(wanted.name)
    if held is None:
        return False
    wanted.materialization_intervals = held.materialization_intervals
    return bool(held == wanted)


def _held(service: FeatureService) -> bool:
    """Whether the catalog computes every feature of ``service`` by the formula it was made of."""
    formulas = {
        (table, each.name): each.term.digest for table in TABLES for each in features_of(table)
    }
    return all(
        formulas.get((projection.name, each.name)) == each.tags.get(FORMULA_TAG)
        for projection in service.feature_view_projections
        for each in projection.features
    )
