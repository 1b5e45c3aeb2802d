"""Bundles of the families trained here, unfitted, and the device that a service runs them on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from cryptoml_assets.features.catalog import row_inputs, window_channels, window_inputs
from cryptoml_assets.models.calibration import Calibration
from cryptoml_assets.models.export import PLATFORMS, export_bundle
from cryptoml_assets.models.families.family import inputs_of, networks
from cryptoml_assets.models.predictor import Ensemble
from cryptoml_assets.models.scaling import fit_scaling
from cryptoml_serving.contract.bundle import Bundle, load_bundle
from cryptoml_serving.runtime.device import Device
from cryptoml_serving.settings import ServingSettings
from cryptoml_serving.telemetry import Metrics
from tests.serving_world import _manifest

CALIBRATION = Calibration(0.0001, 0.51, 0.0, 0.6, 0.0, 0.8, 2.2)
FAMILIES = ("mlp", "tcn", "state_space")


def bundle_of(family: str, folder: Path, seed: int = 3, last: int = 32) -> Bundle:
    """A bundle of two members of a family, of the columns that are the default."""
    inputs = row_inputs() if family == "mlp" else window_inputs()
    names = tuple(each.name for each in inputs)
    channels = () if family == "mlp" else window_channels()
    rng = np.random.default_rng(seed)
    graph, drawn = networks(family, inputs_of(names, channels), (64, last), range(2))
    members = tuple(
        jax.tree.map(lambda leaf: (leaf + rng.normal(0, 0.1, leaf.shape)).astype("f4"), each)
        for each in drawn
    )
    scaling = fit_scaling(rng.normal(3.0, 2.0, (500, len(names))).astype(np.float32))
    ensemble = Ensemble(scaling, graph, members, 0.0001 * seed, 0.005 * seed)
    manifest = _manifest(
        features=tuple({"name": each.name, "view": each.table} for each in inputs),
        platforms=PLATFORMS,
    )
    export_bundle(folder, ensemble, replace(CALIBRATION, base_mean=0.0001 * seed), manifest)
    return load_bundle(folder, expected_digest=None)


def some_rows(count: int, columns: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(count)
    rows = rng.normal(3.0, 3.0, (count, columns)).astype(np.float32)
    rows[rng.random(rows.shape) < 0.03] = np.nan
    return rows


def bits(answers: NDArray[np.float32]) -> list[list[int]]:
    return np.ascontiguousarray(answers).view(np.int32).tolist()  # type: ignore[no-any-return]


class Served:
    """A device as the service has it, and its figures."""

    def __init__(self, **settings: Any) -> None:
        self.metrics = Metrics("m")
        given = {"serving_batch_sizes": (1, 4), **settings}
        self.device = Device(ServingSettings(**given), self.metrics)

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    @property
    def compiled(self) -> float | None:
        return self.value("compilations_total")

    @property
    def used(self) -> list[str]:
        return [kind for kind in ("cpu", "cuda") if self.value("serving_device", device=kind) == 1]
