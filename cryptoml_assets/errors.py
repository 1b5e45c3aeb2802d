"""Everything that can go wrong in the asset graph, as one tree.

::

    CryptomlError
    ├── UnknownSymbolError        a symbol the venue does not list; names close matches
    ├── WorldUnreachableError     venue, node or metrics API down after bounded retries
    ├── UnusableAnswerError       the outside world answered with something that cannot be trusted
    │   ├── WrongChainError       the node is on another chain than the settings say
    │   └── ChainMovedError       the chain was reorganised while it was read
    ├── RecordingError            a file of bars that cannot be imported, or not without an answer
    │   └── OtherTimeframeError   its bars are of another length than the settings say
    ├── LakeError                 a table cannot be read or written as asked
    ├── FeatureStoreError         the feature store's registry or online store does not answer
    ├── TrainingDataError         rows that cannot be learnt from: too few, constant, empty
    ├── TrainingResourcesError    a training that needs more memory than it may use
    ├── TrainingRecordError       a run that cannot be trained again from what it left behind
    ├── UnsafeFolderError         a folder of programs that somebody else can write to
    ├── ApprovalError             no trustworthy verdict on a model, or a key that cannot sign
    ├── IdentityError             nobody can be named as who decides
    ├── ServiceMetricsError       the inference service tells no metrics
    ├── ManifestError             a file of Kubernetes manifests that cannot be read as such
    ├── GrafanaError              Grafana does not answer, or refuses token or dashboard
    └── NoticeNotSentError        a notice did not arrive; see `notices.errors`
"""

from __future__ import annotations


class CryptomlError(Exception):
    """Base of every error this package raises on purpose."""


class UnknownSymbolError(CryptomlError):
    """A symbol the venue does not list; the message names the venue and close matches."""


class WorldUnreachableError(CryptomlError):
    """The venue, node or metrics API stayed down through every retry."""


class UnusableAnswerError(CryptomlError):
    """The outside world answered with something that cannot be trusted."""


class WrongChainError(UnusableAnswerError):
    """The node is on another chain than ``CRYPTOML_CHAIN_ID``."""


class ChainMovedError(UnusableAnswerError):
    """The chain was reorganised while it was read; reading it again can succeed."""


class RecordingError(CryptomlError):
    """A file of bars is not one that can be imported, or cannot be without an answer."""


class OtherTimeframeError(RecordingError):
    """A file holds bars of another length than ``CRYPTOML_TIMEFRAME``."""


class LakeError(CryptomlError):
    """A table cannot be read or written as asked."""


class FeatureStoreError(CryptomlError):
    """The feature store's registry or online store does not answer, or not as it should."""


class TrainingDataError(CryptomlError):
    """Rows that cannot be learnt from: too few, constant or empty."""


class TrainingResourcesError(CryptomlError):
    """A training needs more memory than it may use; nothing was started."""


class TrainingRecordError(CryptomlError):
    """A run cannot be trained again: unknown, without a record, or its rows are gone."""


class UnsafeFolderError(CryptomlError):
    """Others than this user can write to a folder whose contents are run as code."""


class ApprovalError(CryptomlError):
    """No trustworthy verdict on a model, or a key that cannot sign."""


class IdentityError(CryptomlError):
    """Nobody can be named as who decides: a token is needed, or not to be trusted."""


class ServiceMetricsError(CryptomlError):
    """The inference service does not tell its metrics; the message names the address and why."""


class ManifestError(CryptomlError):
    """A file of Kubernetes manifests cannot be read as such; the message never holds a value."""


class GrafanaError(CryptomlError):
    """Grafana does not take the dashboard; the message names the address and its answer."""


class NoticeNotSentError(CryptomlError):
    """A notice did not arrive."""
