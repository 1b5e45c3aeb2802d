"""The bundle as an MLflow model: MLflow runs this file, which it keeps beside the bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd

from cryptoml_serving.contract.bundle import load_bundle


class BundleModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Predicts with the bundle, once its digest is the one it was logged with."""

    def load_context(self, context: mlflow.pyfunc.PythonModelContext) -> None:
        """Load the bundle of the model's artifacts."""
        self._bundle = load_bundle(
            Path(context.artifacts["bundle"]), expected_digest=context.model_config["digest"]
        )

    def predict(
        self,
        context: mlflow.pyfunc.PythonModelContext,  # noqa: ARG002 - MLflow's signature
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,  # noqa: ARG002 - MLflow's signature
    ) -> pd.DataFrame:
        """One row of outputs for each row of features, which are found by column name."""
        names = [feature.name for feature in self._bundle.manifest.features]
        answers = self._bundle.predict(model_input[names].to_numpy(np.float64))
        return pd.DataFrame(answers, index=model_input.index)


mlflow.models.set_model(BundleModel())
