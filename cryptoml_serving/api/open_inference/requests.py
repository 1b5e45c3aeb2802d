"""Inference requests: JSON, and the bytes of binary tensors behind it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from cryptoml_serving.api.problems import ProblemError, ProblemType

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Says how many bytes of a body are JSON; the rest are binary tensors.
HEADER_LENGTH = "Inference-Header-Content-Length"
#: The protocol's names of what a feature may be given as, as it lies in binary data.
DATATYPES: dict[str, np.dtype[Any]] = {
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
}
_BINARY_SIZE = "binary_data_size"
#: Parameters that would change what comes back, and belong to extensions that are not offered.
_NOT_OFFERED = ("classification", "shared_memory_region")
_LENGTH = re.compile(r"[0-9]{1,12}")
#: A column of features, or a table.
_RANKS = (1, 2)
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input as it was sent.

    Attributes:
        shape: of one or two dimensions.
        datatype: one of ``DATATYPES``.
        data: the member of that name, not looked at yet; or binary data, of just the size that
            shape and datatype take.
    """

    shape: tuple[int, ...]
    datatype: str
    data: Any | memoryview


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """What a caller wants.

    Attributes:
        id: the caller's own, for the answer; none: none was given.
        inputs: by name.
        outputs: wanted, in this order, and whether as binary data.
    """

    id: str | None
    inputs: dict[str, Tensor]
    outputs: dict[str, bool]


def read(
    body: bytes, header_length: str | None, *, produced: Sequence[str], most_inputs: int
) -> InferenceRequest:
    """Read a request; what is in its tensors stays to be seen.

    Args:
        body: all of it.
        header_length: the header of that name; none: all is JSON.
        produced: outputs of the model, in its own order.
        most_inputs: inputs that the model can be given.

    Raises:
        ProblemError: it is not one of the protocol, or asks for what is not offered.
    """
    head, rest = _split(body, header_length)
    try:
        document = orjson.loads(head)
    except orjson.JSONDecodeError as error:
        raise invalid(f"the request is no JSON: {error}") from error
    document = _object(document, "the request")
    name = document.get("id")
    if name is not None and not isinstance(name, str):
        raise invalid(f"id is a string, not {shown(name)}")
    binary = _flag(_parameters(document, "the request"), "binary_data_output", "the request")
    inputs = _list(document, "inputs", "the request")
    if len(inputs) > most_inputs:
        raise invalid(f"the request has {len(inputs)} inputs; the model reads up to {most_inputs}")
    return InferenceRequest(
        id=name,
        inputs=_inputs(inputs, rest),
        outputs=_outputs(document, produced, binary=bool(binary)),
    )


def invalid(message: str) -> ProblemError:
    """A request that is not one of the protocol, or not one for this model."""
    return ProblemError(ProblemType.INVALID_REQUEST, message)


def shown(value: object) -> str:
    """A value that was sent, in few characters."""
    if isinstance(value, str):
        return repr(value if len(value) <= _SHOWN else value[:_SHOWN] + "...")
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return str(value)
    return "an object" if isinstance(value, dict) else "an array"


def _split(body: bytes, header_length: str | None) -> tuple[memoryview, memoryview]:
    """The JSON of a body, and what follows it."""
    view = memoryview(body)
    if header_length is None:
        return view, view[len(body) :]
    if not _LENGTH.fullmatch(header_length):
        raise invalid(f"{HEADER_LENGTH} is a number of bytes, not {shown(header_length)}")
    length = int(header_length)
    if length > len(body):
        raise invalid(f"{HEADER_LENGTH} is {length}, and the body has {len(body)} bytes")
    return view[:length], view[length:]


def _inputs(given: list[Any], rest: memoryview) -> dict[str, Tensor]:
    """Every input; binary data lies in the order of the inputs, without gaps."""
    inputs: dict[str, Tensor] = {}
    for number, each in enumerate(given):
        entry = _object(each, f"input {number}")
        name = _name(entry, f"input {number}")
        what = f"input {shown(name)}"
        if name in inputs:
            raise invalid(f"{what} is given twice")
        inputs[name], rest = _tensor(entry, what, rest)
    if not inputs:
        raise invalid("the request has no inputs")
    if rest:
        raise invalid(f"{len(rest)} bytes of binary data are left that no input announces")
    return inputs


def _tensor(entry: dict[str, Any], what: str, rest: memoryview) -> tuple[Tensor, memoryview]:
    """One input, and the binary data after its own."""
    shape = _shape(entry, what)
    datatype = _datatype(entry, what)
    size = _parameters(entry, what).get(_BINARY_SIZE)
    if (size is None) == ("data" not in entry):
        raise invalid(f"{what} has either data or the parameter {_BINARY_SIZE}")
    if size is None:
        return Tensor(shape, datatype, entry["data"]), rest
    wanted = math.prod(shape) * DATATYPES[datatype].itemsize
    if type(size) is not int or size != wanted:
        raise invalid(
            f"{what}: {_BINARY_SIZE} is {shown(size)}; {datatype} of shape {list(shape)} "
            f"takes {wanted}"
        )
    if size > len(rest):
        raise invalid(f"{what}: {size} bytes of binary data are announced, {len(rest)} are left")
    return Tensor(shape, datatype, rest[:size]), rest[size:]


def _outputs(document: dict[str, Any], produced: Sequence[str], *, binary: bool) -> dict[str, bool]:
    """What is wanted, each as binary data or not; everything where nothing is named."""
    named = document.get("outputs")
    if named is None or named == []:
        return dict.fromkeys(produced, binary)
    wanted: dict[str, bool] = {}
    for number, each in enumerate(_list(document, "outputs", "the request")):
        entry = _object(each, f"output {number}")
        name = _name(entry, f"output {number}")
        what = f"output {shown(name)}"
        if name not in produced:
            raise invalid(f"{what} is none of the model's: {', '.join(produced)}")
        if name in wanted:
            raise invalid(f"{what} is asked for twice")
        own = _flag(_parameters(entry, what), "binary_data", what)
        wanted[name] = binary if own is None else own
    return wanted


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise invalid(f"{what} is a JSON object, not {shown(value)}")
    return value


def _list(entry: dict[str, Any], name: str, what: str) -> list[Any]:
    value = entry.get(name)
    if not isinstance(value, list):
        raise invalid(f"{what}: {name} is an array, not {shown(value)}")
    return value


def _name(entry: dict[str, Any], what: str) -> str:
    name = entry.get("name")
    if not isinstance(name, str):
        raise invalid(f"{what}: name is a string, not {shown(name)}")
    return name


def _shape(entry: dict[str, Any], what: str) -> tuple[int, ...]:
    shape = _list(entry, "shape", what)
    if len(shape) not in _RANKS:
        raise invalid(f"{what}: shape has one or two dimensions, not {len(shape)}")
    for length in shape:
        if type(length) is not int or length < 0:
            raise invalid(f"{what}: shape holds whole numbers from 0 on, not {shown(length)}")
    return tuple(shape)


def _datatype(entry: dict[str, Any], what: str) -> str:
    datatype = entry.get("datatype")
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        accepted = ", ".join(DATATYPES)
        raise invalid(f"{what}: datatype {shown(datatype)} is not accepted; accepted: {accepted}")
    return datatype


def _parameters(entry: dict[str, Any], what: str) -> dict[str, Any]:
    given = entry.get("parameters")
    parameters = {} if given is None else _object(given, f"parameters of {what}")
    for name in _NOT_OFFERED:
        if name in parameters:
            raise invalid(f"{what}: the parameter {name} is of an extension that is not offered")
    return parameters


def _flag(parameters: dict[str, Any], name: str, what: str) -> bool | None:
    value = parameters.get(name)
    if value is not None and not isinstance(value, bool):
        raise invalid(f"{what}: {name} is true or false, not {shown(value)}")
    return value
