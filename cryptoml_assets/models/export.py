"""From fitted numbers to a bundle."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import jax
import numpy as np
from jax import export

from cryptoml_assets.models.predictor import PRECISION, predict
from cryptoml_serving.contract.bundle import Manifest, write_bundle

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cryptoml_assets.models.calibration import Calibration
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
        weights={**ensemble.arrays(), **calibration.arrays()},
        manifest=manifest,
    )


def lower(ensemble: Ensemble, calibration: Calibration) -> bytes:
    """The whole prediction as serialised StableHLO, for any number of rows."""
    (rows,) = export.symbolic_shape("rows")
    columns = len(ensemble.scaling.median)
    with _without_source_locations(), jax.default_matmul_precision(PRECISION):
        exported = export.export(
            jax.jit(partial(predict, ensemble, calibration)), platforms=PLATFORMS
        )(jax.ShapeDtypeStruct((rows, columns), np.float32))
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
