"""Everything that can keep the service from a fresh answer, as one tree.

::

    ServingError
    ├── RegistryUnavailableError   registry or artifact store does not answer
    │   └── ServedFromDiskError    it has not since the start; what is on disk is served
    ├── NoChampionError            the registry answers, and no model is deployed as champion
    │   └── OlderApprovalError     one was approved before deployments were signed
    ├── DeploymentRefusedError     what the registry says is deployed is not signed, or an old one
    │   └── DeploymentLostError    it says nothing valid since the start; what is on disk is served
    ├── ModelRefusedError          a deployed model is not what a valid approval says
    ├── FeatureStoreError          the online features cannot be read
    ├── LakeUnavailableError       a table of the lake cannot be read, or not now
    ├── TooManySubscribersError    no more may listen for snapshots
    └── ExplicitError              rows that a caller sent get no answer
        ├── NotServedError         of a version that is not loaded, or nothing is yet
        ├── DeadlineError          there was no time left to predict them
        └── OverloadedError        too many rows wait already
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


class ServedFromDiskError(RegistryUnavailableError):
    """The registry has not answered since the start, and what this disk has of it is served."""

    summary = (
        "the model registry does not answer; what it said last, kept on this machine, is served"
    )


class NoChampionError(ServingError):
    """No signed deployment of the model names a champion."""

    kind = "no_champion"
    summary = "no model has been approved yet"


class OlderApprovalError(NoChampionError):
    """The registry names a champion, and holds no deployment: an older version approved it."""

    summary = "the model was approved by an older version of this platform, and must be again"


class DeploymentRefusedError(ServingError):
    """The registry's deployment is not validly signed, or older than one seen before."""

    kind = "deployment_refused"
    summary = "the registry's deployment is refused: it is not a valid one, or an old one"


class DeploymentLostError(DeploymentRefusedError):
    """The registry lost its deployment or holds an invalid one; what this disk has is served."""

    summary = (
        "the registry holds no valid deployment any more; what it said last, kept on this machine, "
        "is served"
    )


class ModelRefusedError(ServingError):
    """A deployed model is not what a valid approval says it is."""

    kind = "model_refused"
    summary = "the deployed model is refused: it is not what a valid approval names"


class FeatureStoreError(ServingError):
    """The online features cannot be read."""

    kind = "feature_store"
    summary = "the online features cannot be read"


class LakeUnavailableError(ServingError):
    """A table of the lake cannot be read, or too many wait to read one."""

    kind = "lake"
    summary = "the lake cannot be read now"


class TooManySubscribersError(ServingError):
    """As many listen for snapshots as may."""

    kind = "too_many_subscribers"
    summary = "as many listen for snapshots as may"


class ExplicitError(ServingError):
    """Rows that a caller sent get no answer. Its message is made of what the caller knows."""


class NotServedError(ExplicitError):
    """No such version is loaded, or no model is yet."""

    kind = "not_served"
    summary = "this version is not served"


class DeadlineError(ExplicitError):
    """A request's time was over before its rows could be predicted."""

    kind = "deadline"
    summary = "there was no time left to predict"


class OverloadedError(ExplicitError):
    """More rows wait than the queue holds.

    Attributes:
        retry_after: seconds after which to ask again.
    """

    kind = "overloaded"
    summary = "too many rows wait to be predicted"
    retry_after = 1
