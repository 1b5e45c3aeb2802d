"""The tracker, for commands that only read what is there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cryptoml_assets.errors import TrainingRecordError
from cryptoml_assets.settings import Settings
from cryptoml_serving.contract.registry import MLFLOW_ENVIRONMENT

_SQLITE = "sqlite:///"


def tracking_client(configured: Settings) -> Any:
    """An ``MlflowClient`` that makes no new database where there is none.

    Raises:
        TrainingRecordError: there is none.
    """
    address = configured.tracking_address
    if address.startswith(_SQLITE) and not Path(address.removeprefix(_SQLITE)).is_file():
        raise TrainingRecordError(f"no training run has been tracked yet: {address} does not exist")
    os.environ.update(MLFLOW_ENVIRONMENT)
    from mlflow import MlflowClient  # noqa: PLC0415 - seconds to import, once its environment is set

    return MlflowClient(address, registry_uri=address)
