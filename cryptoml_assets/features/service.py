"""The name of the feature service that a model's bundle reads."""

from __future__ import annotations

from collections.abc import Sequence

from cryptoml_assets.features.catalog import FEATURES
from cryptoml_assets.features.feature import Feature
from cryptoml_serving.contract.registry import feature_service_name


def return_service_name(features: Sequence[Feature] = FEATURES) -> str:
    """Name of the service over the model inputs among ``features``, as their formulas stand.

    A feature that is no model input has no part in it.
    """
    inputs = [each for each in features if each.model_input]
    return feature_service_name((each.table, each.name, each.term.digest) for each in inputs)
