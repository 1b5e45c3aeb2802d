"""The newest features of the served symbols, read from Feast's online store in one call."""

from __future__ import annotations

import os
import string
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from cryptoml_serving.contract.feature_store import (
    JOIN_KEY,
    PRICE_VIEW,
    feature_store_environment,
    import_feast,
)
from cryptoml_serving.runtime.errors import FeatureStoreError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from cryptoml_serving.contract.bundle import FeatureSpec

_CONFIGURATION = "feature_store.yaml"
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

    def __init__(self, repository: Path, home: Path) -> None:
        """Touch nothing yet.

        Args:
            repository: folder holding ``feature_store.yaml``.
            home: folder the store's files lie under.
        """
        self._repository = repository
        self._environment = {**feature_store_environment(home), **os.environ}
        self._store: Any = None
        self._opened: tuple[int, ...] = ()

    def prepare(self) -> None:
        """Import Feast, which takes seconds."""
        import_feast()

    def read(
        self, symbols: Sequence[str], features: Sequence[FeatureSpec], now: datetime
    ) -> FeatureRows:
        """Read every feature of every symbol in one call.

        Args:
            symbols: the rows.
            features: the columns.
            now: the instant against which each view's time to live is measured.

        Raises:
            FeatureStoreError: the store cannot be read, or lacks a view or a feature.
        """
        try:
            store = self._open()
            answer = store.get_online_features(
                features=[feature.reference for feature in features],
                entity_rows=[{JOIN_KEY: symbol} for symbol in symbols],
            ).to_dict(include_event_timestamps=True)
            lives = {
                view: store.get_feature_view(view).ttl
                for view in {feature.view for feature in features}
            }
        except Exception as error:
            # Feast's stores are pluggable and raise what they like; the next read opens anew.
            self._store = None
            message = f"online features cannot be read: {type(error).__name__}: {error}"
            raise FeatureStoreError(message) from error
        return _rows(tuple(symbols), features, answer, lives, now)

    def _open(self) -> Any:
        """The store; opened anew when one of its files was replaced since."""
        from feast import FeatureStore, RepoConfig  # noqa: PLC0415 - takes seconds

        path = self._repository / _CONFIGURATION
        text = string.Template(path.read_text()).safe_substitute(self._environment)
        raw: dict[str, Any] = yaml.safe_load(text)
        # The offline store belongs to those who train; its libraries need not be here.
        raw.pop("offline_store", None)
        files = tuple(file.stat().st_ino for file in self._files(raw))
        if self._store is None or files != self._opened:
            self._store = FeatureStore(config=RepoConfig(**raw, repo_path=self._repository))
            self._opened = files
        return self._store

    def _files(self, raw: Mapping[str, Any]) -> list[Path]:
        """Files the store consists of: reading must not create one that is missing."""
        registry, online = raw["registry"], raw["online_store"]
        paths = []
        if registry.get("registry_type", "file") == "file" and "://" not in registry["path"]:
            paths.append(self._repository / registry["path"])
        if online["type"] == "sqlite":
            paths.append(self._repository / online["path"])
        return paths


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
            # A row Feast does not hold is dated at the epoch.
            instant = datetime.fromtimestamp(seconds, UTC) if seconds else None
            if instant is None or now - instant > life:
                continue
            if value is not None:
                values[row, column] = value
            if feature.view == PRICE_VIEW:
                timestamps[row] = instant
    return FeatureRows(symbols, values, tuple(timestamps))
