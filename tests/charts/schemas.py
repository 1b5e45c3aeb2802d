"""Kubernetes' own schemas, each read once: the package reads 1.5 MB anew for every object."""

from __future__ import annotations

import functools
from typing import Any

import kubernetes_validate
from kubernetes_validate import utils

#: Oldest that the chart takes, the one before the newest of most clouds, and the newest there is.
VERSIONS = ("1.29", "1.34", kubernetes_validate.latest_version())

utils.schema_contents = functools.cache(utils.schema_contents)


def refusal(found: dict[str, Any], version: str) -> str | None:
    """Why Kubernetes would refuse an object, an unknown property too; none where it takes it.

    Args:
        found: the object.
        version: of Kubernetes.

    Raises:
        kubernetes_validate.SchemaNotFoundError: it is an operator's object, not Kubernetes' own.
    """
    try:
        kubernetes_validate.validate(found, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return str(error.message)
    return None
