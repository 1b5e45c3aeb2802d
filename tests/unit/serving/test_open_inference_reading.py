"""What a body of the Open Inference Protocol says, and which rows its tensors hold."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cryptoml_serving.api.open_inference.requests import InferenceRequest, read
from cryptoml_serving.api.open_inference.rows import rows
from cryptoml_serving.api.problems import ProblemError, ProblemType

FEATURES = ("first", "second", "third")
OUTPUTS = ("mean", "low")
MOST = 100
DTYPES = {"FP32": "<f4", "FP64": "<f8", "INT32": "<i4", "INT64": "<i8"}


def asked(body: bytes, header_length: str | None = None) -> InferenceRequest:
    return read(body, header_length, produced=OUTPUTS, most_inputs=len(FEATURES))


def table(request: InferenceRequest, most: int = MOST) -> Any:
    return rows(request.inputs, FEATURES, most)


def tensor(name: str, data: Any, shape: list[int], datatype: str = "FP32") -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data}


def spelled(*inputs: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"inputs": list(inputs), **more}).encode()


def packed(*inputs: tuple[str, Any, str], **more: Any) -> tuple[bytes, str]:
    """A body with binary tensors, and the length of its JSON."""
    arrays = [np.asarray(values, DTYPES[datatype]) for _, values, datatype in inputs]
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": name,
                    "shape": list(array.shape),
                    "datatype": datatype,
                    "parameters": {"binary_data_size": array.nbytes},
                }
                for (name, _, datatype), array in zip(inputs, arrays, strict=True)
            ],
            **more,
        }
    ).encode()
    return head + b"".join(array.tobytes() for array in arrays), str(len(head))


def refused(body: bytes, header_length: str | None = None, most: int = MOST) -> ProblemError:
    with pytest.raises(ProblemError) as caught:
        table(asked(body, header_length), most)
    return caught.value


def test_one_table_flat_or_nested() -> None:
    wanted = [[1, 2, 3], [4, 5, 6]]
    flat = asked(spelled(tensor("features", [1, 2, 3, 4, 5.0, 6], [2, 3])))
    nested = asked(spelled(tensor("features", wanted, [2, 3])))
    assert table(flat).tolist() == table(nested).tolist() == wanted
    assert table(flat).dtype == np.float32


@pytest.mark.parametrize("datatype", DTYPES)
def test_one_table_in_binary(datatype: str) -> None:
    values = [[1, -2, 3], [4, 5, 6]]
    request = asked(*packed(("features", values, datatype)))
    assert table(request).tolist() == values


def test_a_feature_each_in_any_order_and_datatype() -> None:
    body = spelled(
        tensor("third", [3, 6], [2], "INT64"),
        tensor("first", [[1], [4]], [2, 1], "FP64"),
        tensor("second", [2, 5], [2, 1], "INT32"),
    )
    assert table(asked(body)).tolist() == [[1, 2, 3], [4, 5, 6]]


def test_binary_tensors_lie_behind_each_other_and_json_between_them() -> None:
    arrays = [("third", [3.0, 6.0], "FP64"), ("first", [1, 4], "INT32")]
    body, length = packed(*arrays)
    head = json.loads(body[: int(length)])
    head["inputs"].insert(1, tensor("second", [2, 5], [2]))
    mixed = json.dumps(head).encode()
    request = asked(mixed + body[int(length) :], str(len(mixed)))
    assert table(request).tolist() == [[1, 2, 3], [4, 5, 6]]


def test_missing_values() -> None:
    in_json = table(asked(spelled(tensor("features", [None, 1, None], [1, 3], "FP64"))))
    in_binary = table(asked(*packed(("features", [[math.nan, 1, math.nan]], "FP64"))))
    for given_rows in (in_json, in_binary):
        assert np.isnan(given_rows[0]).tolist() == [True, False, True]


def test_a_model_whose_one_feature_is_called_features() -> None:
    request = asked(spelled(tensor("features", [7, 8], [2])))
    assert rows(request.inputs, ("features",), MOST).tolist() == [[7], [8]]


def test_outputs_and_id() -> None:
    inputs = [tensor("features", [1, 2, 3], [1, 3])]
    assert asked(spelled(*inputs)).id is None
    assert asked(spelled(*inputs)).outputs == {"mean": False, "low": False}
    everything = asked(spelled(*inputs, id="", parameters={"binary_data_output": True}))
    assert everything.id == ""
    assert everything.outputs == {"mean": True, "low": True}
    chosen = [{"name": "low", "parameters": {"binary_data": False}}, {"name": "mean"}]
    some = asked(spelled(*inputs, outputs=chosen, parameters={"binary_data_output": True}))
    assert list(some.outputs.items()) == [("low", False), ("mean", True)]
    assert asked(spelled(*inputs, outputs=[])).outputs == {"mean": False, "low": False}


def test_unknown_parameters_and_members_are_let_be() -> None:
    given_input = tensor("features", [1, 2, 3], [1, 3]) | {"parameters": {"content_type": "np"}}
    body = spelled(given_input, parameters={"priority": 3}, model_name="anything")
    assert table(asked(body)).tolist() == [[1, 2, 3]]


GOOD = tensor("features", [1, 2, 3], [1, 3])
BAD: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "no JSON"),
    "no JSON": (b"{", "no JSON"),
    "NaN": (b'{"inputs": [NaN]}', "no JSON"),
    "deep": (b"[" * 5000, "no JSON"),
    "a list": (b"[]", "the request is a JSON object, not an array"),
    "no inputs": (b"{}", "inputs is an array, not null"),
    "empty inputs": (spelled(), "no inputs"),
    "input": (spelled(7), "input 0 is a JSON object, not 7"),  # type: ignore[arg-type]
    "id": (spelled(GOOD, id=42), "id is a string, not 42"),
    "parameters": (spelled(GOOD, parameters=[]), "parameters of the request is a JSON object"),
    "flag": (spelled(GOOD, parameters={"binary_data_output": 1}), "is true or false, not 1"),
    "twice": (spelled(GOOD, GOOD), "'features' is given twice"),
    "no name": (spelled(GOOD | {"name": None}), "name is a string, not null"),
    "no shape": (spelled(GOOD | {"shape": "1,3"}), "shape is an array"),
    "rank 0": (spelled(GOOD | {"shape": []}), "one or two dimensions, not 0"),
    "rank 3": (spelled(GOOD | {"shape": [1, 1, 3]}), "one or two dimensions, not 3"),
    "negative": (spelled(GOOD | {"shape": [-1, 3]}), "from 0 on, not -1"),
    "fraction": (spelled(GOOD | {"shape": [1.0, 3]}), "from 0 on, not 1.0"),
    "flag in shape": (spelled(GOOD | {"shape": [True, 3]}), "from 0 on, not true"),
    "datatype": (spelled(GOOD | {"datatype": "FP16"}), "accepted: FP32, FP64, INT32, INT64"),
    "datatype object": (spelled(GOOD | {"datatype": {}}), "'features': datatype an object"),
    "no data": (
        spelled({key: value for key, value in GOOD.items() if key != "data"}),
        "either data or the parameter binary_data_size",
    ),
    "both": (spelled(GOOD | {"parameters": {"binary_data_size": 12}}), "either data or"),
    "data": (spelled(GOOD | {"data": "1,2,3"}), "data is an array, not '1,2,3'"),
    "few": (spelled(GOOD | {"data": [1, 2]}), "holds 3 values, data holds 2"),
    "ragged": (spelled(tensor("features", [[1, 2, 3], [4]], [2, 3])), "each row in data has 3"),
    "nested column": (
        spelled(*(tensor(name, [[1], [2]], [2]) for name in FEATURES)),
        "takes numbers, and null for a missing one, not an array",
    ),
    "three deep": (spelled(GOOD | {"data": [[[1], [2], [3]]]}), "not an array"),
    "text": (spelled(GOOD | {"data": ["1", 2, 3]}), "takes numbers, and null for a missing one"),
    "truth": (spelled(GOOD | {"data": [True, 2, 3]}), "not true"),
    "half": (spelled(GOOD | {"datatype": "INT32", "data": [1, 2, 2.5]}), "whole numbers, not 2.5"),
    "no whole": (spelled(GOOD | {"datatype": "INT64", "data": [1, 2, None]}), "not null"),
    "past INT32": (
        spelled(GOOD | {"datatype": "INT32", "data": [1, 2, 2**40]}),
        "past what INT32 holds",
    ),
    "past INT64": (
        spelled(GOOD | {"datatype": "INT64", "data": [1, 2, 2**63]}),
        "past what INT64 holds",
    ),
    "past FP32": (
        spelled(GOOD | {"datatype": "FP64", "data": [1, 1e39, 2]}),
        "second is infinite in row 0",
    ),
    "narrow": (spelled(tensor("features", [1, 2], [1, 2])), "the model reads [-1, 3]"),
    "one row": (spelled(tensor("features", [1, 2, 3], [3])), "the model reads [-1, 3]"),
    "no rows": (spelled(tensor("features", [], [0, 3])), "no rows"),
    "many": (
        spelled(*(tensor(str(n), [1], [1]) for n in range(4))),
        "4 inputs; the model reads up to 3",
    ),
    "unknown": (spelled(tensor("secnd", [1], [1])), "'secnd' is no feature of the model; close: "),
    "table and column": (spelled(GOOD, tensor("first", [1], [1])), "'features' is no feature"),
    "missing": (spelled(tensor("second", [1], [1])), "no input for the features first, third"),
    "lengths": (
        spelled(*(tensor(name, [1] * n, [n]) for n, name in enumerate(FEATURES, start=1))),
        "'second' has 2 rows, 'first' has 1",
    ),
    "wide column": (
        spelled(*(tensor(name, [1, 2], [1, 2]) for name in FEATURES)),
        "has shape [1, 2]; a feature has [n] or [n, 1]",
    ),
    "outputs": (spelled(GOOD, outputs={}), "outputs is an array, not an object"),
    "output": (spelled(GOOD, outputs=["mean"]), "output 0 is a JSON object, not 'mean'"),
    "unknown output": (spelled(GOOD, outputs=[{"name": "x"}]), "none of the model's: mean, low"),
    "output twice": (spelled(GOOD, outputs=[{"name": "low"}] * 2), "asked for twice"),
    "classes": (
        spelled(GOOD, outputs=[{"name": "low", "parameters": {"classification": 3}}]),
        "classification is of an extension that is not offered",
    ),
    "shared memory": (
        spelled(GOOD | {"parameters": {"shared_memory_region": "r"}}),
        "shared_memory_region is of an extension",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_bodies_are_told_what_is_wrong(case: str) -> None:
    body, told = BAD[case]
    error = refused(body)
    assert error.problem is ProblemType.INVALID_REQUEST
    assert told in error.detail


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("", "a number of bytes, not ''"),
        ("+5", "a number of bytes"),
        ("²", "a number of bytes"),
        ("99999", "is 99999, and the body has"),
        ("0", "no JSON"),
        ("5", "no JSON"),
    ],
)
def test_bad_lengths_of_the_json(header: str, told: str) -> None:
    assert told in refused(packed(("features", [[1, 2, 3]], "FP32"))[0], header).detail


def test_binary_data_is_of_just_its_size() -> None:
    body, length = packed(("features", [[1, 2, 3]], "FP32"))
    assert "12 bytes of binary data are announced, 11 are left" in refused(body[:-1], length).detail
    assert "1 bytes of binary data are left" in refused(body + b"x", length).detail
    assert "are announced, 0 are left" in refused(body[: int(length)]).detail
    wrong = body.replace(b'"binary_data_size": 12', b'"binary_data_size": 16')
    assert "is 16; FP32 of shape [1, 3] takes 12" in refused(wrong + b"four", length).detail
    for odd in (b"true", b"12.0", b"null"):
        changed = body.replace(b"[1, 3]", b"[1,3]").replace(b": 12", b":" + odd)
        assert "binary_data_size" in refused(changed, length).detail


def test_infinite_features_are_refused() -> None:
    body = packed(("features", [[1, 2, 3], [4, 5, -math.inf]], "FP32"))
    assert "third is infinite in row 1" in refused(*body).detail


def test_more_rows_than_are_taken() -> None:
    body = packed(("features", np.zeros((5, 3)), "FP32"))
    assert table(asked(*body), 5).shape == (5, 3)
    assert refused(*body, most=4).problem is ProblemType.TOO_LARGE


def test_no_value_is_looked_at_before_there_are_few_enough() -> None:
    error = refused(spelled(tensor("features", "nonsense", [MOST + 1, 3])))
    assert error.problem is ProblemType.TOO_LARGE
    assert "the model reads [-1, 3]" in refused(spelled(tensor("features", "n", [1, 10**9]))).detail


def test_what_was_sent_is_told_short() -> None:
    huge = tensor("x" * 5000, [1], [1])
    assert len(refused(spelled(huge)).detail) < 300
    assert len(refused(spelled(GOOD | {"datatype": "y" * 5000})).detail) < 300


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
PARAMETERS = st.dictionaries(
    st.sampled_from(["binary_data_size", "binary_data", "binary_data_output", "x"]),
    st.integers(-1, 40) | JSON,
)
ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["features", *FEATURES, "mean", "low"]) | JSON,
        "shape": st.lists(st.integers(-1, 4) | st.integers(), max_size=3) | JSON,
        "datatype": st.sampled_from([*DTYPES, "BOOL", "BYTES"]) | JSON,
        "parameters": PARAMETERS | JSON,
        "data": st.lists(st.floats() | st.integers() | st.lists(st.floats())) | JSON,
    },
)
DOCUMENT = st.fixed_dictionaries(
    {},
    optional={
        "id": st.text() | JSON,
        "inputs": st.lists(ENTRY, max_size=4) | JSON,
        "outputs": st.lists(ENTRY, max_size=4) | JSON,
        "parameters": PARAMETERS | JSON,
    },
)
LENGTH = st.none() | st.integers(0, 400).map(str) | st.text(max_size=4)


HUGE = tensor("features", [], [2**63, 2**63])


def outcome(body: bytes, header_length: str | None) -> Any:
    """The rows, or the problem; anything else that is raised fails the test."""
    try:
        return table(asked(body, header_length))
    except ProblemError as error:
        return error


def check_outcome(body: bytes, header_length: str | None) -> None:
    found = outcome(body, header_length)
    if isinstance(found, ProblemError):
        assert found.problem in {ProblemType.INVALID_REQUEST, ProblemType.TOO_LARGE}
        assert found.detail.encode()
    else:
        assert found.ndim == 2
        assert found.shape[1] == len(FEATURES)
        assert not np.isinf(found).any()


@settings(deadline=None)
@given(head=DOCUMENT, tail=st.binary(max_size=64), exact=st.booleans(), length=LENGTH)
@example(head={"inputs": [HUGE]}, tail=b"", exact=True, length=None)
@example(head={"inputs": [HUGE | {"shape": [2**63] * 2000}]}, tail=b"", exact=True, length=None)
@example(head={"inputs": [{**HUGE, "data": [1]}]}, tail=b"", exact=True, length=None)
def test_any_document_is_read_or_refused(
    head: Any, tail: bytes, exact: bool, length: str | None
) -> None:
    document = json.dumps(head).encode()
    check_outcome(document + tail, str(len(document)) if exact else length)


@settings(deadline=None)
@given(body=st.binary(max_size=200), length=LENGTH)
def test_any_bytes_are_read_or_refused(body: bytes, length: str | None) -> None:
    check_outcome(body, length)


@settings(deadline=None)
@given(
    values=st.lists(
        st.lists(st.floats(width=32, allow_infinity=False), min_size=3, max_size=3), min_size=1
    ),
    cut=st.integers(0, 400),
    flipped=st.integers(0, 400),
)
def test_a_damaged_binary_body(values: list[list[float]], cut: int, flipped: int) -> None:
    body, length = packed(("features", values, "FP32"))
    np.testing.assert_array_equal(table(asked(body, length)), np.array(values, np.float32))
    damaged = bytearray(body[: len(body) - cut] if cut < len(body) else b"")
    if flipped < len(damaged):
        damaged[flipped] ^= 0xFF
    check_outcome(bytes(damaged), length)
