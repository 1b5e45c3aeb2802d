"""How an answer of the Open Inference Protocol is put together."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cryptoml_serving.api.open_inference.answers import answer
from cryptoml_serving.api.open_inference.errors import covers, render
from cryptoml_serving.api.open_inference.requests import InferenceRequest
from cryptoml_serving.api.problems import ProblemError
from cryptoml_serving.runtime.batcher import Batch

GOOD = {"expected_return": 0.1, "lower": -1.0, "upper": 1e-30, "probability_up": 0.3}


def batch(**changes: float) -> Batch:
    """Three rows, the second of them changed."""
    manifest = SimpleNamespace(model_name="model", source="simulated")
    model: Any = SimpleNamespace(
        bundle=SimpleNamespace(manifest=manifest),
        placement=SimpleNamespace(model_version="7", role="canary"),
    )
    changed = {**GOOD, **changes}
    columns = {name: [value, changed[name], value] for name, value in GOOD.items()}
    return Batch(model, {name: np.array(each, np.float32) for name, each in columns.items()})


def wanted(**outputs: bool) -> InferenceRequest:
    return InferenceRequest(None, {}, outputs)


def test_json_holds_the_very_numbers() -> None:
    document = json.loads(bytes(answer(wanted(upper=False, expected_return=False), batch()).body))
    assert (document["model_version"], document["parameters"]["role"]) == ("7", "canary")
    upper, expected = document["outputs"]
    assert [np.float32(value) for value in upper["data"]] == [np.float32(1e-30)] * 3
    assert [np.float32(value) for value in expected["data"]] == [np.float32(0.1)] * 3


def test_values_of_a_slice_are_sent_without_gaps() -> None:
    made = batch()
    table = np.arange(12, dtype=np.float32).reshape(3, 4) / np.float32(16)
    columns = {name: table[:, place] for place, name in enumerate(GOOD)}
    response = answer(wanted(lower=True, probability_up=True), Batch(made.model, columns))
    length = int(response.headers["Inference-Header-Content-Length"])
    sent = np.frombuffer(response.body[length:], "<f4")
    assert sent.tolist() == [*table[:, 1], *table[:, 3]]


@pytest.mark.parametrize(
    "changed",
    [
        {"expected_return": np.nan},
        {"lower": -np.inf},
        {"upper": np.inf},
        {"probability_up": np.nan},
        {"probability_up": 1.01},
        {"probability_up": -0.01},
    ],
)
def test_what_is_no_prediction_is_not_answered(changed: dict[str, float]) -> None:
    with pytest.raises(ProblemError, match="answer to row 1 is no prediction"):
        answer(wanted(expected_return=True), batch(**changed))


def test_which_paths_are_the_protocols() -> None:
    assert [covers(path) for path in ("/v2", "/v2/", "/v2/x", "/v20", "/", "/V2")] == [
        *(True, True, True),
        *(False, False, False),
    ]


def test_an_error_of_text_that_utf8_has_no_bytes_for() -> None:
    response = render(404, "\udcff", {"Retry-After": "2"})
    assert (response.status_code, response.headers["retry-after"]) == (404, "2")
    assert json.loads(bytes(response.body)) == {"error": "\udcff"}
    assert render(422, "", {}).status_code == 400
