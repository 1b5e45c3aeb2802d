"""The names of the feature services that models' bundles read."""

from __future__ import annotations

from collections.abc import Sequence

from cryptoml_assets.features.catalog import row_inputs
from cryptoml_assets.features.feature import Feature
from cryptoml_serving.contract.registry import feature_service_name


def return_service_name(inputs: Sequence[Feature] | None = None) -> str:
    """Name of the service over ``inputs``, in this order and as their formulas stand.

    Args:
        inputs: What a model reads; :func:`~cryptoml_assets.features.catalog.row_inputs` when not
            given.
    """
    read = row_inputs() if inputs is None else inputs
    return feature_service_name((each.table, each.name, each.term.digest) for each in read)
