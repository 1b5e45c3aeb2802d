"""What every process that touches the model registry sets before it does."""

from __future__ import annotations

import os


def forbid_unsafe_deserialization() -> None:
    """Tell MLflow never to load a model by running code found in it.

    MLflow reads the variable whenever it is about to load something, so call this before use.
    """
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
