"""The model for ``mlflow models serve``: the exported program, compiled for one row at the start.

MLflow runs this file as it is, so nothing is pickled. Imports nothing of ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import mlflow
import numpy as np
from jax import export


class Exported(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    def load_context(self, context: Any) -> None:
        data = Path(context.artifacts["program"]).read_bytes()
        exported = export.deserialize(bytearray(data))
        columns = exported.in_avals[0].shape[1]
        row = jax.ShapeDtypeStruct((1, columns), np.float32)
        self.program = jax.jit(exported.call).lower(row).compile()

    def predict(self, context: Any, model_input: Any, params: Any = None) -> dict[str, list[float]]:  # noqa: ARG002
        answer = self.program(np.asarray(model_input, np.float32))
        return {name: np.asarray(values).tolist() for name, values in answer.items()}


mlflow.models.set_model(Exported())
