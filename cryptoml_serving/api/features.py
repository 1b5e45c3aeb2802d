"""``POST /predict/features``: rows that callers send, predicted by an approved model.

The door calls it with the body, as it does for ``POST /predict``. A body that is as it should be
takes the short way; only one that is not is looked at piece by piece, to say what is wrong.
"""

from __future__ import annotations

from datetime import datetime
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import orjson
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, RootModel

from cryptoml_serving.api import explicit
from cryptoml_serving.api.openapi import Operation
from cryptoml_serving.api.problems import MOST_REASONS, ProblemError, ProblemType, invalid_request
from cryptoml_serving.runtime.errors import ExplicitError

if TYPE_CHECKING:
    from typing import NoReturn

    from numpy.typing import NDArray

    from cryptoml_serving.api.service import Service
    from cryptoml_serving.runtime.batcher import Batch

PATH = "/predict/features"
_KEYS = frozenset({"rows", "columns", "matrix", "version"})
_NUMBERS = frozenset({int, float, type(None)})
#: Characters told of a name that somebody sent.
_TOLD = 64
_VERSION = "version of the model; none: the champion"


class NamedRows(BaseModel):
    """Rows that name each value; every column of the model, and no other. Null is missing."""

    model_config = ConfigDict(extra="forbid", strict=True)

    rows: list[dict[str, float | None]] = Field(min_length=1)
    version: str | None = Field(None, description=_VERSION)


class Matrix(BaseModel):
    """Rows whose columns are named once, in any order. Null is missing."""

    model_config = ConfigDict(extra="forbid", strict=True)

    columns: list[str] = Field(min_length=1, description="every column of the model, each once")
    matrix: list[list[float | None]] = Field(min_length=1)
    version: str | None = Field(None, description=_VERSION)


class FeaturesRequest(RootModel[NamedRows | Matrix]):
    """``{"rows": [...]}`` or ``{"columns": [...], "matrix": [...]}``."""


class RowPrediction(BaseModel):
    """What the model expects of one row; log returns over the horizon."""

    prediction: float = Field(description="expected log return over the horizon")
    lower: float = Field(description="lower end of the calibrated 90 % interval")
    upper: float = Field(description="upper end of the calibrated 90 % interval")
    probability_up: float = Field(description="probability of a positive return")
    confidence: float = Field(
        description="the model's own probability that the return has the sign of the prediction"
    )


class RowPredictions(BaseModel):
    """The predictions of one model for the rows of one request, in their order."""

    model_config = ConfigDict(protected_namespaces=())

    predictions: list[RowPrediction]
    horizon_seconds: int = Field(description="how far ahead the returns reach")
    model_name: str
    model_version: str
    role: Literal["champion", "shadow", "canary"]
    source: str = Field(description="the world the model learned from")
    timestamp: AwareDatetime = Field(description="when the predictions were computed")


OPERATION = Operation(
    path=PATH,
    tag="predictions",
    summary="Predict rows of features",
    description="What a model that is served expects of features that the request brings. Nothing "
    "of it is kept. A row gets the same answer as a symbol with these features does.",
    body=FeaturesRequest,
    answers=(RowPredictions,),
    statuses=(404, 408, 413, 422, 503),
)


async def predict_features(service: Service, body: bytes, deadline: float) -> bytes:
    """The JSON that answers a request.

    Args:
        service: with the models.
        body: of the request, as it came.
        deadline: instant of ``time.monotonic`` from which on nobody waits for the answer.

    Raises:
        ProblemError: the body is none of ours, no such version is served, or there is no time or
            no room left.
        BundleError: the model failed.
    """
    asked = _parse(body)
    model = explicit.chosen_model(service, asked.get("version"))
    rows = _values(asked, model.bundle.columns, service.settings.serving_max_rows)
    try:
        batch = await service.batcher.predict(rows, deadline=deadline, model=model)
    except ExplicitError as error:
        raise explicit.refused(service, error) from error
    return _rendered(batch, "rows" if "rows" in asked else "matrix", service.settings.clock())


def _parse(body: bytes) -> dict[str, Any]:
    """The members of a request; values are not looked at yet.

    Raises:
        ProblemError: it is no object of one of the two kinds.
    """
    try:
        asked: Any = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        _refuse("body", f"it is not JSON: {error}")
    if not isinstance(asked, dict):
        _refuse("body", "it is no object")
    unknown = next((name for name in asked if name not in _KEYS), None)
    if unknown is not None:
        _refuse(f"body/{_told(unknown)}", "there is no such member")
    if not isinstance(asked.get("version"), str | None):
        _refuse("body/version", "it is no string")
    if ("rows" in asked) == ("matrix" in asked) or ("matrix" in asked) != ("columns" in asked):
        _refuse("body", "it has to have either rows, or columns and matrix")
    return asked


def _values(asked: dict[str, Any], columns: tuple[str, ...], most: int) -> NDArray[np.float32]:
    """What is to be predicted, shape (n, k), in the model's order of columns.

    Raises:
        ProblemError: too many rows, or one that is not of these columns and of numbers.
    """
    part = "rows" if "rows" in asked else "matrix"
    sent = asked[part]
    if not isinstance(sent, list) or not sent:
        _refuse(f"body/{part}", "it has to be a list of at least one row")
    if len(sent) > most:
        detail = f"{len(sent)} rows; a request has at most {most}"
        raise ProblemError(ProblemType.TOO_LARGE, detail)
    rows = _named(sent, columns) if part == "rows" else _matrix(sent, asked["columns"], columns)
    if not _NUMBERS.issuperset(map(type, chain.from_iterable(rows))):
        _find_no_number(rows, columns, part)
    with np.errstate(over="ignore"):
        values = np.array(rows, np.float32)
    if np.isinf(values).any():
        row, column = np.argwhere(np.isinf(values))[0]
        _refuse(_place(part, row, columns[column]), "it is too large for a 32-bit number")
    return values


def _named(sent: list[Any], columns: tuple[str, ...]) -> list[list[Any]]:
    count = len(columns)
    try:
        rows = [[row[name] for name in columns] for row in sent if len(row) == count]
    except (KeyError, TypeError):
        rows = []
    if len(rows) != len(sent):
        _find_wrong_row(sent, columns)
    return rows


def _find_wrong_row(sent: list[Any], columns: tuple[str, ...]) -> NoReturn:
    """Say which row is no object of exactly these columns."""
    for number, row in enumerate(sent):
        if not isinstance(row, dict):
            _refuse(f"body/rows/{number}", "it is no object")
        _check_names(row, columns, f"body/rows/{number}")
    message = "the rows are of the model's columns, yet were refused"
    raise AssertionError(message)


def _matrix(sent: list[Any], named: Any, columns: tuple[str, ...]) -> list[list[Any]]:
    if not isinstance(named, list):
        _refuse("body/columns", "it has to be a list of names")
    _check_names(named, columns, "body/columns")
    if len(named) != len(columns):
        _refuse("body/columns", "a column is named twice")
    for number, row in enumerate(sent):
        if not isinstance(row, list) or len(row) != len(columns):
            _refuse(f"body/matrix/{number}", f"it has to be a list of {len(columns)} numbers")
    if named == list(columns):
        return sent
    order = [named.index(name) for name in columns]
    return [[row[place] for place in order] for row in sent]


def _check_names(names: list[Any] | dict[str, Any], columns: tuple[str, ...], at: str) -> None:
    """See that names are those of all columns.

    Names are many where somebody wants the loop kept from others. So they are counted first, and
    looked at only where there are not many more than columns.

    Raises:
        ProblemError: naming some of those that are not, or that lack; or saying how many there are.
    """
    if len(names) > 2 * len(columns) + MOST_REASONS:
        _refuse(at, f"it has {len(names)} names; the model has {len(columns)} columns")
    if not all(isinstance(name, str) for name in names):
        _refuse(at, "it has to be a list of names")
    known, given = frozenset(columns), dict.fromkeys(names)
    unknown = ((_told(name), "the model has no such column") for name in given if name not in known)
    missing = (
        (name, "the model reads this column; null where its value is missing")
        for name in columns
        if name not in given
    )
    reasons = [(f"{at}/{name}", why) for name, why in islice(chain(unknown, missing), MOST_REASONS)]
    if reasons:
        raise invalid_request(reasons)


def _find_no_number(rows: list[list[Any]], columns: tuple[str, ...], part: str) -> NoReturn:
    """Say which value is neither a number nor null."""
    row, column = next(
        (number, name)
        for number, row in enumerate(rows)
        for name, value in zip(columns, row, strict=True)
        if type(value) not in _NUMBERS
    )
    _refuse(_place(part, row, column), "it is neither a number nor null")


def _rendered(batch: Batch, part: str, now: datetime) -> bytes:
    """The answer as JSON.

    Raises:
        ProblemError: the model's answer for a row is no prediction.
    """
    found = explicit.figures(batch)
    number = explicit.no_prediction(found)
    if number is not None:
        _refuse(f"body/{part}/{number}", "the model's answer to this row is no prediction")
    model = batch.model
    manifest = model.bundle.manifest
    return orjson.dumps(
        {
            "predictions": [
                {
                    "prediction": a,
                    "lower": b,
                    "upper": c,
                    "probability_up": d,
                    "confidence": 1.0 - d if a < 0 else d,
                }
                for a, b, c, d in zip(*found, strict=True)
            ],
            "horizon_seconds": manifest.horizon_seconds,
            "model_name": manifest.model_name,
            "model_version": model.placement.model_version,
            "role": model.placement.role,
            "source": manifest.source,
            "timestamp": now,
        }
    )


def _place(part: str, row: int, column: str) -> str:
    return f"body/{part}/{row}/{column}"


def _told(name: str) -> str:
    return name if len(name) <= _TOLD else f"{name[:_TOLD]}..."


def _refuse(place: str, why: str) -> NoReturn:
    raise invalid_request([(place, why)])
