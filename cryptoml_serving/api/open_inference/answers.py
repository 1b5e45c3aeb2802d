"""Inference answers: JSON, and the bytes of the outputs that were asked for so behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from starlette.responses import Response

from cryptoml_serving.api import explicit
from cryptoml_serving.api.open_inference.requests import DATATYPES, HEADER_LENGTH, invalid

if TYPE_CHECKING:
    from cryptoml_serving.api.open_inference.requests import InferenceRequest
    from cryptoml_serving.runtime.batcher import Batch

#: What every output is, in the protocol's words.
DATATYPE = "FP32"


def answer(request: InferenceRequest, batch: Batch) -> Response:
    """The answer to a request: who predicted, and the outputs it asked for.

    Raises:
        ProblemError: what the model made of a row is no prediction.
    """
    # Every output has its say, whatever was asked for.
    row = explicit.no_prediction(explicit.figures(batch))
    if row is not None:
        raise invalid(f"the model's answer to row {row} is no prediction")
    outputs: list[dict[str, Any]] = []
    tail = bytearray()
    for name, binary in request.outputs.items():
        values = np.ascontiguousarray(batch.outputs[name], DATATYPES[DATATYPE])
        output: dict[str, Any] = {"name": name, "shape": [len(values)], "datatype": DATATYPE}
        if binary:
            output["parameters"] = {"binary_data_size": values.nbytes}
            tail += values.tobytes()
        else:
            output["data"] = values
        outputs.append(output)
    model = batch.model
    document: dict[str, Any] = {
        "model_name": model.bundle.manifest.model_name,
        "model_version": model.placement.model_version,
        "parameters": {"source": model.bundle.manifest.source, "role": model.placement.role},
        "outputs": outputs,
    }
    if request.id is not None:
        document["id"] = request.id
    head = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    if not tail:
        return Response(head, media_type="application/json")
    headers = {HEADER_LENGTH: str(len(head))}
    return Response(head + tail, headers=headers, media_type="application/octet-stream")
