"""Where a bundle and its approval lie in MLflow: names both sides agree on, and nothing else.

The bundle is a folder among the artifacts of the training run. The registered model version points
at that run and carries the bundle's digest as a tag. Approving a version adds
``approval/<version>.json`` to the same run; then the alias moves, and last of all the signed
deployment, a tag of the registered model, names it. Serving follows the deployment.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

#: How the names of the Feast feature services that bundles read begin.
FEATURE_SERVICE_PREFIX = "cryptoml_return_"
#: Artifact folder of the training run that holds the bundle.
BUNDLE_FOLDER = "bundle"
#: Artifact folder of the training run that holds the signed approvals.
APPROVAL_FOLDER = "approval"
#: Artifact of the training run: the trainer's own answers to the out-of-sample rows.
PREDICTIONS_FILE = "evaluation/predictions.parquet"
#: Tag of the registered model: the signed deployment, which serving follows.
DEPLOYMENT_TAG = "cryptoml.deployment"
#: Alias of the registered model that follows the deployment, for people and other tools.
CHAMPION_ALIAS = "champion"
#: Tag of a model version: the digest of its bundle.
DIGEST_TAG = "cryptoml.bundle_digest"
#: Tag of a run and of a model version: the digest of all that decided its numbers.
INPUT_TAG = "cryptoml.input_digest"
#: Tag of a run and of a model version: the world its rows came from.
SOURCE_TAG = "cryptoml.source"
#: Tag of a run and of a model version: the model family.
FAMILY_TAG = "cryptoml.family"
#: Tag of a run: the world's instant at which its training set was read.
AS_OF_TAG = "cryptoml.as_of"
#: Tag of a run: who or what asked for it.
TRIGGER_TAG = "cryptoml.triggered_by"

#: Process environment under which MLflow is used, set before it is first imported: it sends
#: nothing home, revives no serialised objects, and keeps its small talk out of our logs.
MLFLOW_ENVIRONMENT = {
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
}


def feature_service_name(inputs: Iterable[tuple[str, str, str]]) -> str:
    """Name of the feature service over ``inputs``; another one where any of them differs.

    Args:
        inputs: view, feature and digest of its formula, in the order a bundle holds them.
    """
    text = "\n".join(":".join(each) for each in inputs)
    return f"{FEATURE_SERVICE_PREFIX}{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def approval_file(model_version: str) -> str:
    """Artifact path of the signed approval of one version, below its run."""
    return f"{APPROVAL_FOLDER}/{model_version}.json"


def champion_uri(model_name: str) -> str:
    """MLflow address of the approved model."""
    return f"models:/{model_name}@{CHAMPION_ALIAS}"
