"""Write a model for ``mlflow models serve``: save_mlflow.py PROGRAM FOLDER."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import mlflow

program, folder = sys.argv[1:]
mlflow.pyfunc.save_model(
    folder,
    python_model=str(Path(__file__).with_name("mlflow_model.py")),
    artifacts={"program": program},
    pip_requirements=["jax", "numpy"],
)
print(json.dumps({"mlflow": mlflow.__version__}))
