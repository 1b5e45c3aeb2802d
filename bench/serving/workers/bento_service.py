"""The model as a BentoML service: the exported program, compiled for one row at the start.

Imports nothing of ours. ``PROGRAM`` is the file of the program.
"""

from __future__ import annotations

import os
from pathlib import Path

import bentoml
import jax
import numpy as np
from jax import export


@bentoml.service(workers=1)
class Exported:
    def __init__(self) -> None:
        exported = export.deserialize(bytearray(Path(os.environ["PROGRAM"]).read_bytes()))
        columns = exported.in_avals[0].shape[1]
        row = jax.ShapeDtypeStruct((1, columns), np.float32)
        self.program = jax.jit(exported.call).lower(row).compile()

    @bentoml.api
    def predict(self, features: list[list[float]]) -> dict[str, list[float]]:
        answer = self.program(np.asarray(features, np.float32))
        return {name: np.asarray(values).tolist() for name, values in answer.items()}
