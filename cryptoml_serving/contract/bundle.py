"""The model bundle: a folder of data that predicts, and never runs code of its own.

::

    manifest.json         what the model is, what it reads and answers, and a SHA-256 of each file
    model.stablehlo       ``jax.export`` of the whole prediction: scaling, network, calibration
    weights.safetensors   the same fitted numbers by name, for inspection and warm starts

The bundle's digest is the SHA-256 of the manifest's bytes. The manifest is canonical JSON and lists
every other file, so one digest vouches for the folder to the last byte.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    model_validator,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray

FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"
MODEL_FILE = "model.stablehlo"
WEIGHTS_FILE = "weights.safetensors"
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
        if self.format_version != FORMAT_VERSION:
            message = f"bundle format {self.format_version}; this code reads {FORMAT_VERSION}"
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


def write_bundle(
    folder: Path, *, stablehlo: bytes, weights: Mapping[str, NDArray[Any]], manifest: Manifest
) -> str:
    """Write a bundle into a new or empty folder.

    Args:
        folder: where; created when absent.
        stablehlo: serialised ``jax.export`` of the prediction.
        weights: fitted arrays by name.
        manifest: everything but ``files``, which is filled here.

    Returns:
        The bundle's digest.

    Raises:
        BundleError: the folder already holds something.
    """
    from safetensors.numpy import save  # noqa: PLC0415 - readers do without it

    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        message = f"{folder} is not empty: a bundle never overwrites"
        raise BundleError(message)
    arrays = {name: np.ascontiguousarray(array) for name, array in sorted(weights.items())}
    contents = {MODEL_FILE: stablehlo, WEIGHTS_FILE: save(arrays)}
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    files = {name: _sha256(data) for name, data in contents.items()}
    written = canonical_json(manifest.model_copy(update={"files": files}))
    (folder / MANIFEST_FILE).write_bytes(written)
    return _sha256(written)


def bundle_digest(folder: Path) -> str:
    """SHA-256 of the manifest's bytes, in hex; says nothing about the other files by itself.

    Raises:
        BundleError: there is no manifest.
    """
    return _sha256(_read(folder, MANIFEST_FILE))


def read_manifest(folder: Path, *, expected_digest: str | None = None) -> Manifest:
    """The manifest alone, without looking at the other files.

    Raises:
        BundleError: missing, malformed, or not of the expected digest.
    """
    return _manifest(folder, expected_digest)[0]


def _manifest(folder: Path, expected_digest: str | None) -> tuple[Manifest, str]:
    """The manifest and its digest, both from one reading."""
    raw = _read(folder, MANIFEST_FILE)
    digest = _sha256(raw)
    if expected_digest is not None and digest != expected_digest:
        message = f"bundle {folder} has digest {digest}, expected {expected_digest}"
        raise BundleError(message)
    try:
        manifest = Manifest.model_validate_json(raw)
    except ValidationError as error:
        message = f"{folder / MANIFEST_FILE} is not a manifest: {error}"
        raise BundleError(message) from error
    if canonical_json(manifest) != raw:
        message = f"{folder / MANIFEST_FILE} is not canonical JSON"
        raise BundleError(message)
    return manifest, digest


def load_bundle(folder: Path, *, expected_digest: str | None) -> Bundle:
    """Read a bundle and make it ready to predict.

    Args:
        folder: the bundle.
        expected_digest: what a signed approval says it must be; none only for a bundle this very
            process has just written.

    Raises:
        BundleError: wrong digest, a file missing, unlisted or altered, or a program whose inputs or
            outputs are not those of the manifest.
    """
    manifest, digest = _manifest(folder, expected_digest)
    contents = _verified_files(folder, manifest)
    if MODEL_FILE not in contents:
        message = f"{folder} lists no {MODEL_FILE}"
        raise BundleError(message)
    return Bundle(manifest, digest, _exported(contents[MODEL_FILE], manifest))


class Bundle:
    """A verified bundle that predicts. Compiled programs are kept by batch size.

    Attributes:
        manifest: what the model is.
        digest: the SHA-256 that identifies it.
    """

    def __init__(self, manifest: Manifest, digest: str, exported: Any) -> None:
        self.manifest = manifest
        self.digest = digest
        self._exported = exported
        self._programs: dict[int, Callable[[NDArray[np.float32]], dict[str, Any]]] = {}

    def warm(self, batch_sizes: Iterable[int]) -> None:
        """Compile for these numbers of rows now, so that no later call of such a size does."""
        for size in batch_sizes:
            if size not in self._programs:
                self._programs[size] = self._compile(size)

    def predict(
        self, features: NDArray[np.float64] | NDArray[np.float32]
    ) -> dict[str, NDArray[np.float32]]:
        """Predict each row.

        Rows are padded to the smallest compiled batch size that holds them; a batch larger than
        every one of those is compiled for.

        Args:
            features: shape (n, k), columns in the order of ``manifest.features``; NaN is missing.

        Returns:
            Each of ``manifest.outputs``, shape (n,), dtype float32.

        Raises:
            BundleError: not a table of that many columns.
        """
        columns = len(self.manifest.features)
        if features.ndim != 2 or features.shape[1] != columns:  # noqa: PLR2004 - rows, columns
            message = f"features have shape {features.shape}; this model reads (n, {columns})"
            raise BundleError(message)
        rows = len(features)
        if rows == 0:
            return {name: np.empty(0, np.float32) for name in self.manifest.outputs}
        size = min((known for known in tuple(self._programs) if known >= rows), default=rows)
        self.warm((size,))
        batch = np.full((size, columns), np.nan, np.float32)
        batch[:rows] = features
        answer = self._programs[size](batch)
        return {name: np.asarray(answer[name])[:rows] for name in self.manifest.outputs}

    def _compile(self, size: int) -> Callable[[NDArray[np.float32]], dict[str, Any]]:
        import jax  # noqa: PLC0415 - the contract imports without it

        shape = jax.ShapeDtypeStruct((size, len(self.manifest.features)), np.float32)
        program: Callable[[NDArray[np.float32]], dict[str, Any]] = (
            jax.jit(self._exported.call).lower(shape).compile()
        )
        return program


def _exported(data: bytes, manifest: Manifest) -> Any:
    """The program in ``data``, once its signature is the manifest's."""
    from jax import export  # noqa: PLC0415 - the contract imports without it

    try:
        exported = export.deserialize(bytearray(data))
    except Exception as error:
        # Whatever a malformed program makes the decoder do, it is not a bundle.
        message = f"{MODEL_FILE} does not decode: {error}"
        raise BundleError(message) from error
    inputs = exported.in_avals
    columns = len(manifest.features)
    shape: tuple[Any, ...] = inputs[0].shape if len(inputs) == 1 else ()
    if len(shape) != 2 or shape[1] != columns:  # noqa: PLR2004 - rows, columns
        message = f"the program reads {inputs}, the manifest lists {columns} features"
        raise BundleError(message)
    if set(exported.platforms) != set(manifest.platforms):
        message = f"the program is for {exported.platforms}, the manifest says {manifest.platforms}"
        raise BundleError(message)
    _check_outputs(exported, manifest)
    return exported


def _check_outputs(exported: Any, manifest: Manifest) -> None:
    """Each output named by the manifest, nothing else, one float32 a row."""
    import jax  # noqa: PLC0415 - the contract imports without it

    answer = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    rows = exported.in_avals[0].shape[0]
    if not isinstance(answer, dict) or set(answer) != set(manifest.outputs):
        message = f"the program answers {answer}, the manifest says {manifest.outputs}"
        raise BundleError(message)
    for name, output in answer.items():
        if output.shape != (rows,) or output.dtype != np.float32:
            message = f"output {name} is {output}, not one float32 a row"
            raise BundleError(message)


def _verified_files(folder: Path, manifest: Manifest) -> dict[str, bytes]:
    """Contents of every listed file, hashed from the very bytes that are returned."""
    present = _names(folder) - {MANIFEST_FILE}
    if unlisted := sorted(present - manifest.files.keys()):
        message = f"{folder} holds files its manifest does not list: {', '.join(unlisted)}"
        raise BundleError(message)
    contents = {}
    for name, expected in manifest.files.items():
        if Path(name).name != name:
            message = f"the manifest lists {name!r}, which is not a file of the folder"
            raise BundleError(message)
        data = _read(folder, name)
        if _sha256(data) != expected:
            message = f"{folder / name} was altered: its SHA-256 is not the manifest's"
            raise BundleError(message)
        contents[name] = data
    return contents


def _names(folder: Path) -> set[str]:
    try:
        return {path.name for path in folder.iterdir()}
    except OSError as error:
        message = f"{folder} cannot be listed: {error}"
        raise BundleError(message) from error


def _read(folder: Path, name: str) -> bytes:
    path = folder / name
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name no file can have
        message = f"{path} cannot be read: {error}"
        raise BundleError(message) from error


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
