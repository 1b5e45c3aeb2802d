"""The newest features of the served symbols, read from Feast's online store in one call."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryptoml_serving.contract.feature_store import (
    FORMULA_TAG,
    JOIN_KEY,
    PRICE_VIEW,
    import_feast,
    instant_in_use,
)
from cryptoml_serving.contract.registry import FEATURE_SERVICE_PREFIX, feature_service_name
from cryptoml_serving.runtime.errors import FeatureStoreError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from cryptoml_serving.contract.manifest import FeatureSpec, Manifest
    from cryptoml_serving.contract.stores import Stores

NO_OFFLINE_STORE = "feature_repo.no_offline_store.NoOfflineStore"
#: What Feast appends to a feature's name to name its event timestamps.
_TIMESTAMP = "__ts"


@dataclass(frozen=True)
class FeatureRows:
    """Features of several symbols at one reading.

    Attributes:
        symbols: one per row.
        values: shape (symbols, features), float64; NaN where missing or past its view's TTL.
        timestamps: event timestamp of each symbol's price features; none without usable ones.
    """

    symbols: tuple[str, ...]
    values: NDArray[np.float64]
    timestamps: tuple[datetime | None, ...]


class OnlineFeatures:
    """Feast's online store, opened at the first read."""

    def __init__(self, repository: Path, stores: Stores) -> None:
        """Touch nothing yet.

        Args:
            repository: folder holding ``feature_store.yaml``.
            stores: the registry and the online store.
        """
        self._repository = repository
        self._stores = stores
        self._store: Any = None
        self._opened: tuple[int, ...] = ()

    def prepare(self) -> None:
        """Import Feast, which takes seconds."""
        import_feast()

    def read(self, symbols: Sequence[str], manifest: Manifest, now: datetime) -> FeatureRows:
        """Read every input of a model, for every symbol, in one call.

        Args:
            symbols: the rows.
            manifest: names the columns, and the service that says by which formulas.
            now: the instant against which each view's time to live is measured.

        Raises:
            FeatureStoreError: the store cannot be read, or does not hold what the model learnt
                from.
        """
        features = manifest.features
        try:
            store = self._open()
            views = {
                view: store.get_feature_view(view) for view in {each.view for each in features}
            }
            _check_formulas(store, views, manifest)
            answer = store.get_online_features(
                features=[feature.reference for feature in features],
                entity_rows=[{JOIN_KEY: symbol} for symbol in symbols],
            ).to_dict(include_event_timestamps=True)
        except FeatureStoreError:
            raise
        except Exception as error:  # noqa: BLE001 - told as ours, with the store's name
            # Feast's stores are pluggable and raise what they like; the next read opens anew.
            self._store = None
            message = f"online features cannot be read: {self._stores.failure(error)}"
            # Not chained: the libraries' own messages may hold an address with its password.
            raise FeatureStoreError(message) from None
        lives = {name: view.ttl for name, view in views.items()}
        return _rows(tuple(symbols), features, answer, lives, now)

    def _open(self) -> Any:
        """The store; opened anew when a file of it was replaced, or the registry written, since."""
        from feast import FeatureStore, RepoConfig  # noqa: PLC0415 - takes seconds

        stats = [file.stat() for file in self._stores.files]
        files = tuple(stat.st_ino for stat in stats)
        if not self._stores.registry:
            # Values by new formulas follow a new registry at once; Feast's cache is seconds late.
            files = (*files, stats[0].st_mtime_ns)
        if self._store is None or files != self._opened:
            content = self._stores.configuration(self._repository)
            # The offline store belongs to those who train; its libraries need not be here.
            content["offline_store"] = {"type": NO_OFFLINE_STORE}
            self._store = FeatureStore(config=RepoConfig(**content, repo_path=self._repository))
            self._opened = files
        return self._store


def _check_formulas(store: Any, views: Mapping[str, Any], manifest: Manifest) -> None:
    """Refuse a model whose inputs the store computes by other formulas, or not at all.

    The name of the service a model reads is made of its inputs and their formulas, so the views'
    own formulas give it again.
    """
    formulas = {
        (name, field.name): field.tags.get(FORMULA_TAG, "")
        for name, view in views.items()
        for field in view.features
    }
    inputs = [(each.view, each.name) for each in manifest.features]
    held = feature_service_name((*each, formulas.get(each, "")) for each in inputs)
    if held == manifest.feature_service:
        return
    lacking = ", ".join(":".join(each) for each in inputs if each not in formulas)
    known = [each.name for each in store.list_feature_services()]
    services = ", ".join(each for each in known if each.startswith(FEATURE_SERVICE_PREFIX))
    message = (
        f"model {manifest.model_name} reads {manifest.feature_service}, the store holds "
        f"{services or 'no service of its kind'}"
        f"{f' and lacks {lacking}' if lacking else ''}: retrain, or run the code that made it"
    )
    raise FeatureStoreError(message)


def _rows(
    symbols: tuple[str, ...],
    features: Sequence[FeatureSpec],
    answer: Mapping[str, Sequence[Any]],
    lives: Mapping[str, timedelta | None],
    now: datetime,
) -> FeatureRows:
    """Feast's columns as a table, with what is missing or expired made NaN."""
    values = np.full((len(symbols), len(features)), np.nan)
    timestamps: list[datetime | None] = [None] * len(symbols)
    for column, feature in enumerate(features):
        life = lives[feature.view] or timedelta.max
        instants = answer[feature.name + _TIMESTAMP]
        for row, (value, seconds) in enumerate(zip(answer[feature.name], instants, strict=True)):
            instant = instant_in_use(seconds, now, life)
            if instant is None:
                continue
            if value is not None:
                values[row, column] = value
            if feature.view == PRICE_VIEW:
                timestamps[row] = instant
    return FeatureRows(symbols, values, tuple(timestamps))
