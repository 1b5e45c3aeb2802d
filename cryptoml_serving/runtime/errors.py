"""Everything that can keep the service from a fresh answer, as one tree.

::

    ServingError
    ├── RegistryUnavailableError   registry or artifact store does not answer
    ├── NoChampionError            the registry answers, and no version is the champion
    ├── ModelRefusedError          the champion is not what a valid approval says
    └── FeatureStoreError          the online features cannot be read
"""

from __future__ import annotations


class ServingError(Exception):
    """Base of every error this package raises on purpose.

    The message is for the operator's log. What a caller is told is ``summary``, which names no
    path or address.

    Attributes:
        kind: bounded name of the error, as metrics and logs spell it.
        summary: one sentence for callers.
    """

    kind = "internal"
    summary = "an unexpected error, described in the service's log"


class RegistryUnavailableError(ServingError):
    """The model registry or its artifact store does not answer."""

    kind = "registry_unavailable"
    summary = "the model registry does not answer"


class NoChampionError(ServingError):
    """No version of the model carries the champion alias."""

    kind = "no_champion"
    summary = "no model has been approved yet"


class ModelRefusedError(ServingError):
    """The champion is not what a valid approval says it is."""

    kind = "model_refused"
    summary = "the registry's champion is refused: it is not what a valid approval names"


class FeatureStoreError(ServingError):
    """The online features cannot be read."""

    kind = "feature_store"
    summary = "the online features cannot be read"
