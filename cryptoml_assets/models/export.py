"""From fitted numbers to a bundle."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax import export

from cryptoml_assets.models.calibration import Calibration
from cryptoml_assets.models.predictor import PRECISION, predict
from cryptoml_serving.contract.bundle import write_bundle
from cryptoml_serving.contract.manifest import Manifest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from cryptoml_assets.models.predictor import Ensemble

#: Devices a bundle is lowered for; one export runs on all of them.
PLATFORMS = ("cpu", "cuda")


def export_bundle(
    folder: Path, ensemble: Ensemble, calibration: Calibration, manifest: Manifest
) -> str:
    """Write the bundle of a calibrated ensemble.

    Returns:
        The bundle's digest.

    Raises:
        BundleError: the folder already holds something.
    """
    return write_bundle(
        folder,
        stablehlo=lower(ensemble, calibration),
        weights=weights_of(ensemble, calibration),
        manifest=manifest,
    )


def weights_of(ensemble: Ensemble, calibration: Calibration) -> dict[str, NDArray[np.float32]]:
    """Every fitted number of a prediction by name, as its program takes them."""
    return {**ensemble.arrays(), **calibration.arrays()}


def lower(ensemble: Ensemble, calibration: Calibration) -> bytes:
    """The whole prediction as serialised StableHLO: of its fitted numbers and any number of rows.

    The numbers are an argument, so that models which differ in nothing else have the same program,
    to the byte.
    """

    def prediction(weights: dict[str, Any], features: Any) -> dict[str, Any]:
        fitted = ensemble.with_arrays(weights), Calibration.of_arrays(weights)
        return predict(*fitted, features)

    (rows,) = export.symbolic_shape("rows")
    columns = len(ensemble.scaling.median)
    weights = {
        name: jax.ShapeDtypeStruct(each.shape, each.dtype)
        for name, each in weights_of(ensemble, calibration).items()
    }
    with _without_source_locations(), jax.default_matmul_precision(PRECISION):
        exported = export.export(jax.jit(prediction), platforms=PLATFORMS)(
            weights, jax.ShapeDtypeStruct((rows, columns), np.float32)
        )
    return bytes(exported.serialize())


@contextmanager
def _without_source_locations() -> Iterator[None]:
    """Leave this machine's paths out of the program, whose bytes must not depend on them."""
    limit = jax.config.jax_traceback_in_locations_limit
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        yield
    finally:
        jax.config.update("jax_traceback_in_locations_limit", limit)
