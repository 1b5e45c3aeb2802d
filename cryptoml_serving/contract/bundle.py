"""The model bundle: a folder of data that predicts, and never runs code of its own.

::

    manifest.json         what the model is, what it reads and answers, and a SHA-256 of each file
    model.stablehlo       ``jax.export`` of the whole prediction: scaling, network, calibration
    weights.safetensors   the fitted numbers by name: the program's first argument

A program of format 1 holds its numbers itself, takes features alone, and is read too.

The bundle's digest is the SHA-256 of the manifest's bytes. The manifest is canonical JSON and lists
every other file, so one digest vouches for the folder to the last byte.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from cryptoml_serving.contract.manifest import BundleError, Manifest, canonical_json
from cryptoml_serving.contract.programs import Programs
from cryptoml_serving.contract.signature import read_prediction

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from cryptoml_serving.contract.programs import Devices, Prediction

MANIFEST_FILE = "manifest.json"
MODEL_FILE = "model.stablehlo"
WEIGHTS_FILE = "weights.safetensors"


def write_bundle(
    folder: Path, *, stablehlo: bytes, weights: Mapping[str, NDArray[Any]], manifest: Manifest
) -> str:
    """Write a bundle into a new or empty folder.

    Args:
        folder: where; created when absent.
        stablehlo: serialised ``jax.export`` of the prediction, of these weights and features.
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
    prediction = read_prediction(contents[MODEL_FILE], contents.get(WEIGHTS_FILE), manifest)
    return Bundle(manifest, digest, prediction)


class Bundle:
    """A verified bundle that predicts.

    Attributes:
        manifest: what the model is.
        digest: the SHA-256 that identifies it.
        columns: names of its inputs, in order.
    """

    def __init__(self, manifest: Manifest, digest: str, prediction: Prediction) -> None:
        self.manifest = manifest
        self.digest = digest
        self.columns = tuple(feature.name for feature in manifest.features)
        self._programs = Programs(prediction)

    def compiled(self, batch_sizes: Iterable[int], devices: Devices | None = None) -> bool:
        """Whether warming it would compile nothing, as other models here have the same program.

        Args:
            batch_sizes: numbers of rows.
            devices: where the bundle is to run; none: on JAX's own choice.

        Raises:
            BundleError: it was exported for none of these devices.
        """
        return self._programs.compiled(batch_sizes, devices)

    def warm(self, batch_sizes: Iterable[int], devices: Devices | None = None) -> None:
        """Compile for these numbers of rows now; no later call compiles anything.

        Args:
            batch_sizes: numbers of rows.
            devices: where the bundle is to run; none: on JAX's own choice.

        Raises:
            BundleError: it was exported for none of these devices.
        """
        self._programs.warm(batch_sizes, devices)

    def seconds(self, rows: int) -> float:
        """Time that many rows take here, as measured when the bundle was warmed.

        Infinite where that was not done, or where they go to another device than the CPU.
        """
        return self._programs.seconds(rows)

    def check(self, features: NDArray[Any]) -> None:
        """See that features are a table of the model's columns.

        Raises:
            BundleError: they are not.
        """
        columns = len(self.columns)
        if features.ndim != 2 or features.shape[1] != columns:  # noqa: PLR2004 - rows, columns
            message = f"features have shape {features.shape}; this model reads (n, {columns})"
            raise BundleError(message)

    def answer(self, features: NDArray[np.float64] | NDArray[np.float32]) -> NDArray[np.float32]:
        """Predict each row; as :meth:`predict`, in one array of shape (outputs, n)."""
        self.check(features)
        return self._programs.run(features)

    def predict(
        self, features: NDArray[np.float64] | NDArray[np.float32]
    ) -> dict[str, NDArray[np.float32]]:
        """Predict each row.

        A row has the same answer to the bit whatever other rows it comes with, on a CPU. A bundle
        that was never warmed compiles for each number of rows it meets.

        Args:
            features: shape (n, k), columns in the order of ``manifest.features``; NaN is missing.

        Returns:
            Each of ``manifest.outputs``, shape (n,), dtype float32.

        Raises:
            BundleError: not a table of that many columns, or the program failed.
        """
        return dict(zip(self.manifest.outputs, self.answer(features), strict=True))


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
