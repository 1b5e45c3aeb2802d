"""From the tensors of a request to the rows that a model reads."""

from __future__ import annotations

import difflib
import math
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from cryptoml_serving.api.open_inference.requests import DATATYPES, Tensor, invalid, shown
from cryptoml_serving.api.problems import ProblemError, ProblemType

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Name of the input that holds every feature, a row for each prediction.
TABLE = "features"


def rows(inputs: dict[str, Tensor], features: tuple[str, ...], most: int) -> NDArray[np.float32]:
    """The rows that the inputs hold.

    Args:
        inputs: the one table of all features, ``features`` of shape (n, k); or each feature by its
            own name, of shape (n,) or (n, 1).
        features: of the model, in its order.
        most: rows that one request may bring.

    Returns:
        Shape (n, k), a missing value as NaN.

    Raises:
        ProblemError: a feature is missing, unknown or infinite, a shape is another one, or there
            are no rows, or too many.
    """
    table = inputs.keys() == {TABLE} and features != (TABLE,)
    length = _table(inputs[TABLE], features) if table else _columns(inputs, features)
    if length == 0:
        raise invalid("the inputs have no rows")
    if length > most:
        raise ProblemError(
            ProblemType.TOO_LARGE, f"the inputs have {length} rows; at most {most} are taken"
        )
    if table:
        given = _values(TABLE, inputs[TABLE]).reshape(length, len(features))
    else:
        given = np.stack([_values(name, inputs[name]) for name in features], axis=1)
    infinite = np.argwhere(np.isinf(given))
    if len(infinite):
        row, column = infinite[0]
        raise invalid(
            f"{features[column]} is infinite in row {row}, or past what FP32 holds; "
            "a missing value is NaN, or null in JSON"
        )
    return given


def _table(tensor: Tensor, features: tuple[str, ...]) -> int:
    """Rows of the one table."""
    if len(tensor.shape) != 2 or tensor.shape[1] != len(features):  # noqa: PLR2004 - rows, columns
        raise invalid(
            f"input {TABLE!r} has shape {list(tensor.shape)}; the model reads [-1, {len(features)}]"
        )
    return tensor.shape[0]


def _columns(inputs: dict[str, Tensor], features: tuple[str, ...]) -> int:
    """Rows of every column."""
    for name in inputs.keys() - set(features):
        close = difflib.get_close_matches(name[:100], features)
        hint = f"; close: {', '.join(close)}" if close else ""
        raise invalid(
            f"input {shown(name)} is no feature of the model{hint}; "
            f"it reads {TABLE!r} alone, or each feature by its name"
        )
    if missing := [name for name in features if name not in inputs]:
        raise invalid(f"no input for the features {', '.join(missing)}")
    lengths = {name: inputs[name].shape[0] for name in features}
    for name, length in lengths.items():
        shape = inputs[name].shape
        if len(shape) != 1 and shape[1] != 1:
            raise invalid(f"input {name!r} has shape {list(shape)}; a feature has [n] or [n, 1]")
        if length != lengths[features[0]]:
            raise invalid(
                f"input {name!r} has {length} rows, {features[0]!r} has {lengths[features[0]]}"
            )
    return lengths[features[0]]


def _values(name: str, tensor: Tensor) -> NDArray[np.float32]:
    """Everything in a tensor, in row-major order."""
    data = tensor.data
    if isinstance(data, memoryview):
        values: NDArray[Any] = np.frombuffer(data, DATATYPES[tensor.datatype])
    else:
        values = _from_json(name, tensor)
    # What float32 does not hold becomes infinite, and is refused later.
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(np.float32)


def _from_json(name: str, tensor: Tensor) -> NDArray[Any]:
    """Values given as one list, or as a list of rows."""
    flat = _flat(name, tensor)
    count = math.prod(tensor.shape)
    if len(flat) != count:
        held = f"shape {list(tensor.shape)} holds {count} values"
        raise invalid(f"input {name!r}: {held}, data holds {len(flat)}")
    datatype = tensor.datatype
    integers = datatype.startswith("INT")
    accepted = {int} if integers else {int, float, type(None)}
    if not set(map(type, flat)) <= accepted:
        wrong = next(value for value in flat if type(value) not in accepted)
        takes = "whole numbers" if integers else "numbers, and null for a missing one"
        raise invalid(f"input {name!r}: {datatype} takes {takes}, not {shown(wrong)}")
    try:
        # Numbers in JSON are doubles; null becomes NaN.
        return np.array(flat, DATATYPES[datatype] if integers else np.float64)
    except OverflowError as error:
        raise invalid(f"input {name!r}: a number is past what {datatype} holds") from error


def _flat(name: str, tensor: Tensor) -> list[Any]:
    data, shape = tensor.data, tensor.shape
    if not isinstance(data, list):
        raise invalid(f"input {name!r}: data is an array, not {shown(data)}")
    if len(shape) == 1 or not (data and isinstance(data[0], list)):
        return data
    if any(not isinstance(row, list) or len(row) != shape[1] for row in data):
        what = f"input {name!r} has shape {list(shape)}"
        raise invalid(f"{what}: each row in data has {shape[1]} values")
    return list(chain.from_iterable(data))
