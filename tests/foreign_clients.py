"""Talks to a service with clients of the Open Inference Protocol that nobody here wrote.

    .venv-clients/bin/python tests/foreign_clients.py '{"url": "127.0.0.1:8000", "model": ..., ...}'

Runs in an environment of its own, `make .venv-clients/.installed`, and prints what the clients made
of the answers as JSON; tests/contract/test_open_inference_clients.py says what that has to be.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput
from tritonclient.utils import InferenceServerException

ASKED = json.loads(sys.argv[1])
URL, MODEL, OTHER = ASKED["url"], ASKED["model"], ASKED["other_version"]
FEATURES = ASKED["features"]
TABLE = np.array(ASKED["rows"], np.float32)
OUTPUTS = ("expected_return", "lower", "upper", "probability_up")


def triton_input(name: str, values: Any, datatype: str, *, binary: bool = True) -> Any:
    given = triton.InferInput(name, list(values.shape), datatype)
    return given.set_data_from_numpy(values, binary_data=binary)


def triton_outputs(result: Any) -> dict[str, Any]:
    arrays = {name: result.as_numpy(name) for name in OUTPUTS}
    return {name: array.tolist() for name, array in arrays.items() if array is not None}


def triton_error(ask: Callable[[], Any]) -> list[str]:
    try:
        ask()
    except InferenceServerException as error:
        return [str(error.status()), str(error.message())]
    return ["200", ""]


def with_triton() -> dict[str, Any]:
    client = triton.InferenceServerClient(URL, concurrency=8)
    table = triton_input("features", TABLE, "FP32")
    columns = [
        triton_input(name, TABLE[:, [place]].astype(dtype), datatype, binary=binary)
        for place, (name, dtype, datatype, binary) in enumerate(
            zip(
                FEATURES,
                (np.float64, np.int32, np.int64),
                ("FP64", "INT32", "INT64"),
                (True, False, True),
                strict=True,
            )
        )
    ]
    mixed = [
        triton.InferRequestedOutput("upper", binary_data=False),
        triton.InferRequestedOutput("lower", binary_data=True),
    ]
    plain = [triton.InferRequestedOutput(name, binary_data=False) for name in OUTPUTS]
    binary = client.infer(MODEL, [table], request_id="forty-two")
    named = client.infer(MODEL, [table], outputs=mixed)
    waiting = [client.async_infer(MODEL, [table], request_id=str(n)) for n in range(16)]
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready(MODEL),
        "version_ready": client.is_model_ready(MODEL, OTHER),
        "absent_ready": client.is_model_ready("absent"),
        "absent_version_ready": client.is_model_ready(MODEL, "999"),
        "server": client.get_server_metadata(),
        "model": client.get_model_metadata(MODEL),
        "version": client.get_model_metadata(MODEL, OTHER),
        "binary": triton_outputs(binary),
        "binary_answer": binary.get_response(),
        "json": triton_outputs(
            client.infer(
                MODEL,
                [triton_input("features", TABLE, "FP32", binary=False)],
                outputs=plain,
            )
        ),
        "columns": triton_outputs(client.infer(MODEL, columns)),
        "mixed": triton_outputs(named),
        "mixed_answer": named.get_response(),
        "other": client.infer(MODEL, [table], model_version=OTHER).get_response(),
        "together": [
            [each.get_response()["id"], triton_outputs(each) == triton_outputs(binary)]
            for each in (asked.get_result() for asked in waiting)
        ],
        "missing_value": triton_outputs(
            client.infer(
                MODEL, [triton_input("features", np.full((1, 3), np.nan, np.float32), "FP32")]
            )
        ),
        "errors": triton_errors(client, table),
    }


def triton_errors(client: Any, table: Any) -> dict[str, list[str]]:
    narrow = triton_input("features", TABLE[:, :2].copy(), "FP32")
    words = triton_input("features", np.array([[b"a", b"b", b"c"]], np.object_), "BYTES")
    unknown = triton.InferRequestedOutput("logits")
    tall = triton_input("features", np.zeros((ASKED["most_rows"] + 1, 3), np.float32), "FP32")
    return {
        "model": triton_error(lambda: client.infer("absent", [table])),
        "version": triton_error(lambda: client.infer(MODEL, [table], model_version="999")),
        "shape": triton_error(lambda: client.infer(MODEL, [narrow])),
        "datatype": triton_error(lambda: client.infer(MODEL, [words])),
        "output": triton_error(lambda: client.infer(MODEL, [table], outputs=[unknown])),
        "rows": triton_error(lambda: client.infer(MODEL, [tall])),
        "packed": triton_error(
            lambda: client.infer(MODEL, [table], request_compression_algorithm="gzip")
        ),
        "metadata": triton_error(lambda: client.get_model_metadata("absent")),
        "index": triton_error(client.get_model_repository_index),
        "load": triton_error(lambda: client.load_model(MODEL)),
    }


async def with_triton_aio() -> dict[str, Any]:
    async with triton_aio.InferenceServerClient(URL) as client:
        given = triton_aio.InferInput("features", list(TABLE.shape), "FP32")
        given.set_data_from_numpy(TABLE)
        return triton_outputs(await client.infer(MODEL, [given]))


def kserve_outputs(answer: Any) -> dict[str, Any]:
    return {each.name: each.as_numpy().tolist() for each in answer.outputs}


async def kserve_error(asked: Any) -> str:
    try:
        await asked
    except httpx.HTTPStatusError as error:
        return str(error)
    return ""


async def with_kserve() -> dict[str, Any]:
    base = f"http://{URL}"
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        packed = InferInput("features", list(TABLE.shape), "FP32")
        packed.set_data_from_numpy(TABLE, binary_data=True)
        listed = InferInput("features", list(TABLE.shape), "FP32")
        listed.set_data_from_numpy(TABLE, binary_data=False)
        binary = await client.infer(
            base,
            InferRequest(
                MODEL, [packed], request_id="seven", parameters={"binary_data_output": True}
            ),
            MODEL,
        )
        chosen = await client.infer(
            base,
            InferRequest(
                MODEL,
                [listed],
                request_outputs=[
                    RequestedOutput("probability_up", {"binary_data": True}),
                    RequestedOutput("lower"),
                ],
            ),
            MODEL,
        )
        spelled = {
            "inputs": [
                {
                    "name": "features",
                    "shape": list(TABLE.shape),
                    "datatype": "FP32",
                    "data": TABLE.tolist(),
                }
            ]
        }
        return {
            "live": await client.is_server_live(base),
            "ready": await client.is_server_ready(base),
            "model_ready": await client.is_model_ready(base, MODEL),
            "absent_ready": await client.is_model_ready(base, "absent"),
            "binary": kserve_outputs(binary),
            "binary_id": binary.id,
            "binary_source": binary.parameters,
            "chosen": kserve_outputs(chosen),
            "spelled": kserve_outputs(await client.infer(base, spelled, MODEL)),
            "other": kserve_outputs(await client.infer(base, spelled, f"{MODEL}/versions/{OTHER}")),
            "error": await kserve_error(client.infer(base, {"inputs": []}, MODEL)),
            "absent": await kserve_error(client.infer(base, spelled, "absent")),
        }


if __name__ == "__main__":
    print(  # noqa: T201 - its answer to the test
        json.dumps(
            {
                "triton": with_triton(),
                "triton_aio": asyncio.run(with_triton_aio()),
                "kserve": asyncio.run(with_kserve()),
            }
        )
    )
