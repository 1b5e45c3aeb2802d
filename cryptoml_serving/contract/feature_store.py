"""Where the feature store keeps its files, for those who write it and those who read it.

``feature_store.yaml`` names two variables instead of paths; whoever opens the store fills them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

REGISTRY_VARIABLE = "CRYPTOML_FEAST_REGISTRY"
ONLINE_STORE_VARIABLE = "CRYPTOML_FEAST_ONLINE_STORE"
#: Feature view with one row per symbol and closed bar; its event timestamp dates a prediction.
PRICE_VIEW = "price_features"
#: Join key of every feature view.
JOIN_KEY = "symbol"


def feature_store_environment(home: Path) -> dict[str, str]:
    """The variables ``feature_store.yaml`` reads, for the store under this home folder."""
    folder = home / "feast"
    return {
        REGISTRY_VARIABLE: str(folder / "registry.db"),
        ONLINE_STORE_VARIABLE: str(folder / "online.db"),
    }
