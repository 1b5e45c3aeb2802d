"""What a bundle's program takes and answers, held against its manifest and its weights."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from cryptoml_serving.contract.manifest import BundleError
from cryptoml_serving.contract.programs import Prediction

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from cryptoml_serving.contract.manifest import Manifest

#: What may come before the features: nothing, or weights by name.
_BEFORE: tuple[list[type], ...] = ([], [dict])


def read_prediction(program: bytes, weights: bytes | None, manifest: Manifest) -> Prediction:
    """What a bundle's files compute, once it is what the manifest says.

    Args:
        program: serialised ``jax.export``.
        weights: the weights file; none where the bundle has none.
        manifest: of the bundle.

    Raises:
        BundleError: a file does not decode, the program reads or answers something else than the
            manifest lists, or other weights than there are.
    """
    from jax import export  # noqa: PLC0415 - the contract imports without it

    try:
        exported = export.deserialize(bytearray(program))
    except Exception as error:
        # Whatever a malformed program makes the decoder do, it is not a bundle.
        message = f"the program does not decode: {error}"
        raise BundleError(message) from error
    arrays = _weights(exported, weights, manifest)
    if set(exported.platforms) != set(manifest.platforms):
        message = f"the program is for {exported.platforms}, the manifest says {manifest.platforms}"
        raise BundleError(message)
    _check_outputs(exported, manifest)
    digest = hashlib.sha256(program).hexdigest()
    return Prediction(exported, digest, len(manifest.features), manifest.outputs, arrays)


def _weights(
    exported: Any, data: bytes | None, manifest: Manifest
) -> dict[str, NDArray[Any]] | None:
    """The arrays that the program takes before the features; none where it takes features alone.

    Raises:
        BundleError: it takes something else, or other arrays than ``data`` holds.
    """
    import jax  # noqa: PLC0415 - the contract imports without it

    taken, named = jax.tree.unflatten(exported.in_tree, exported.in_avals)
    *before, features = taken or (None,)
    columns = len(manifest.features)
    rows_of = getattr(features, "shape", ())[1:]
    numbers = (features, *(each for weights in before for each in _members(weights)))
    if (
        named
        or rows_of != (columns,)
        or [type(each) for each in before] not in _BEFORE
        or any(getattr(each, "dtype", None) != np.float32 for each in numbers)
    ):
        message = f"the program reads {exported.in_avals}, the manifest lists {columns} features"
        raise BundleError(message)
    return _arrays(data, before[0]) if before else None


def _members(weights: Any) -> Iterable[Any]:
    return weights.values() if isinstance(weights, dict) else (weights,)


def _arrays(data: bytes | None, wanted: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The arrays of a weights file, which are to be those that a program takes.

    Raises:
        BundleError: they are not.
    """
    from safetensors import SafetensorError  # noqa: PLC0415 - the contract imports without it
    from safetensors.numpy import load  # noqa: PLC0415 - the contract imports without it

    try:
        arrays: dict[str, NDArray[Any]] = load(data or b"")
    except (SafetensorError, KeyError) as error:  # KeyError: a type that numpy has not
        message = f"the weights file does not decode: {error}"
        raise BundleError(message) from error
    for name in sorted({*arrays, *wanted}):
        held, asked = (
            f"{part[name].dtype}{list(part[name].shape)}" if name in part else "nothing"
            for part in (arrays, wanted)
        )
        if held != asked:
            message = f"the weights file holds {held} as {name}, and the program takes {asked}"
            raise BundleError(message)
    return arrays


def _check_outputs(exported: Any, manifest: Manifest) -> None:
    """Each output named by the manifest, nothing else, one float32 a row."""
    import jax  # noqa: PLC0415 - the contract imports without it

    answer = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    rows = exported.in_avals[-1].shape[0]
    if not isinstance(answer, dict) or set(answer) != set(manifest.outputs):
        message = f"the program answers {answer}, the manifest says {manifest.outputs}"
        raise BundleError(message)
    for name, output in answer.items():
        if output.shape != (rows,) or output.dtype != np.float32:
            message = f"output {name} is {output}, not one float32 a row"
            raise BundleError(message)
