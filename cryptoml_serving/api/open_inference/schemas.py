"""What the protocol's routes send and get, as the OpenAPI document tells it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cryptoml_serving.api.open_inference.requests import DATATYPES, HEADER_LENGTH

Parameters = dict[str, str | float | bool]


class ErrorAnswer(BaseModel):
    """What went wrong."""

    error: str


class Server(BaseModel):
    """The server, in the protocol's words."""

    name: str
    version: str
    extensions: tuple[str, ...]


class Live(BaseModel):
    """The process answers."""

    live: Literal[True] = True


class Ready(BaseModel):
    """A model is loaded, and answers."""

    ready: Literal[True] = True


class ModelReady(Ready):
    """This model is loaded, and answers."""

    name: str


class TensorMetadata(BaseModel):
    """An input or output; -1 stands for any number of rows."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class ModelMetadata(BaseModel):
    """What a version reads and answers."""

    name: str
    versions: tuple[str, ...] = Field(description="those that can be asked for")
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]
    parameters: Parameters = Field(
        description="the version described, its features in the order of the input's columns, "
        "separated by commas, the seconds that a prediction looks ahead, where the rows it "
        "learned from come from, and its digest"
    )


class OutputTensor(BaseModel):
    """An output of the model; ``data`` is absent where it follows as binary data."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    parameters: Parameters | None = None
    data: tuple[float | None, ...] | None = None


class InferenceAnswer(BaseModel):
    """Who predicted, and what."""

    model_config = ConfigDict(protected_namespaces=())

    model_name: str
    model_version: str
    id: str | None = Field(None, description="the request's own, where it gave one")
    parameters: Parameters
    outputs: tuple[OutputTensor, ...]


_PARAMETERS = {"type": "object"}
_BINARY = {"type": "string", "format": "binary"}
_INPUT = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": {"type": "string", "description": "features, or the name of one feature"},
        "shape": {
            "type": "array",
            "items": {"type": "integer", "minimum": 0},
            "minItems": 1,
            "maxItems": 2,
        },
        "datatype": {"enum": list(DATATYPES)},
        "parameters": _PARAMETERS,
        "data": {
            "type": "array",
            "description": "values in row-major order, or rows of them; null is missing",
            "items": {
                "anyOf": [
                    {"type": ["number", "null"]},
                    {"type": "array", "items": {"type": ["number", "null"]}},
                ]
            },
        },
    },
}
_OUTPUT = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": {"type": "string"}, "parameters": _PARAMETERS},
}
_REQUEST = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "parameters": _PARAMETERS,
        "inputs": {"type": "array", "items": _INPUT, "minItems": 1},
        "outputs": {"type": "array", "items": _OUTPUT},
    },
}
#: The body and the header of an inference request, for FastAPI's ``openapi_extra``: the routes read
#: both themselves.
INFERENCE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": _REQUEST},
            "application/octet-stream": {"schema": _BINARY},
        },
    },
    "parameters": [
        {
            "name": HEADER_LENGTH,
            "in": "header",
            "required": False,
            "description": "bytes of JSON, where binary data follows it",
            "schema": {"type": "integer", "minimum": 1},
        }
    ],
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """A route's error answers, as FastAPI's ``responses`` wants them."""
    told = {"model": ErrorAnswer, "description": "Error"}
    return dict.fromkeys((*statuses, "default"), told)


#: An inference's answers: of the whole as JSON FastAPI knows from the route's model.
INFERENCE_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {"schema": _BINARY}}},
    **errors(400, 404, 413, 415, 503),
}
