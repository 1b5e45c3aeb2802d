"""What a bundle says of itself."""

from __future__ import annotations

import json
from typing import Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    model_validator,
)

FORMAT_VERSION = 2
_READABLE = (1, FORMAT_VERSION)
#: What a model answers for each row, in this order.
OUTPUTS = ("expected_return", "lower", "upper", "probability_up")


class BundleError(Exception):
    """A bundle is incomplete, altered, or does not do what its manifest says."""


class FeatureSpec(BaseModel):
    """One input column: its name, its dtype, and the feature view that holds it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    dtype: str = "float64"
    view: str

    @property
    def reference(self) -> str:
        """The name a feature store looks it up by: ``view:name``."""
        return f"{self.view}:{self.name}"


class Manifest(BaseModel):
    """What a bundle is; two bundles built from the same rows by the same code have equal ones."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    format_version: int = FORMAT_VERSION
    model_name: str
    family: str
    #: When the newest row it was built from became known; not the wall clock, so that training
    #: again on the same rows gives the same bytes.
    created_at: AwareDatetime
    horizon_seconds: int = Field(gt=0)
    bar_seconds: int = Field(gt=0)
    features: tuple[FeatureSpec, ...] = Field(min_length=1)
    feature_service: str
    outputs: tuple[str, ...] = OUTPUTS
    training_start: AwareDatetime
    training_end: AwareDatetime
    test_start: AwareDatetime
    test_end: AwareDatetime
    lake_versions: dict[str, int]
    git_commit: str
    source: str
    metrics: dict[str, FiniteFloat]
    libraries: dict[str, str]
    platforms: tuple[str, ...] = Field(min_length=1)
    #: File name → SHA-256 in hex, for every file but the manifest.
    files: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_coherent(self) -> Self:
        names = [feature.name for feature in self.features]
        if len(set(names)) != len(names):
            message = f"a feature appears twice: {names}"
            raise ValueError(message)
        if self.outputs != OUTPUTS:
            message = f"outputs are {self.outputs}, not {OUTPUTS}"
            raise ValueError(message)
        if self.format_version not in _READABLE:
            message = f"bundle format {self.format_version}; this code reads {_READABLE}"
            raise ValueError(message)
        return self

    @property
    def feature_references(self) -> tuple[str, ...]:
        """``view:name`` of each input, in the order of the input columns."""
        return tuple(feature.reference for feature in self.features)


def canonical_json(model: BaseModel) -> bytes:
    """The one spelling of a record as JSON: keys sorted, no blanks, UTF-8, finite numbers."""
    return json.dumps(
        model.model_dump(mode="json"),
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    ).encode()
