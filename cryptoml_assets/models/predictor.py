"""The whole prediction as one function of raw features: what is trained, tested and exported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from flax import nnx
from jax import numpy as jnp

from cryptoml_serving.contract.bundle import OUTPUTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from cryptoml_assets.models.calibration import Calibration
    from cryptoml_assets.models.scaling import Scaling

_CHUNK = 8192


@dataclass(frozen=True)
class Ensemble:
    """Networks of one shape, trained from different seeds.

    Attributes:
        scaling: what raw features pass through first.
        graph: the network without its numbers.
        members: the numbers of each network.
        label_mean: of the training labels, log return.
        label_scale: spread of the training labels, in whose units the networks answer.
    """

    scaling: Scaling
    graph: Any
    members: tuple[Any, ...]
    label_mean: float
    label_scale: float

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Every fitted number by name."""
        named = dict(self.scaling.arrays())
        named["label.mean"] = np.asarray([self.label_mean], np.float32)
        named["label.scale"] = np.asarray([self.label_scale], np.float32)
        for index, member in enumerate(self.members):
            for path, leaf in jax.tree_util.tree_leaves_with_path(member):
                name = jax.tree_util.keystr(path, simple=True, separator=".")
                named[f"member.{index}.{name.removesuffix('.value')}"] = np.asarray(leaf)
        return named


def standardise(scaling: Scaling, features: Any) -> Any:
    """Impute, clip and standardise raw features of shape (n, k)."""
    # Zero and below have no logarithm: they become the smallest value there is, and are clipped.
    logarithms = jnp.log(jnp.maximum(features, jnp.finfo(jnp.float32).tiny))
    read = jnp.where(scaling.logarithmic, logarithms, features)
    filled = jnp.where(jnp.isnan(features), scaling.median, read)
    clipped = jnp.clip(filled, scaling.lower, scaling.upper)
    return (clipped - scaling.mean) / scaling.deviation


def distribution(ensemble: Ensemble, features: Any) -> tuple[Any, Any]:
    """Location and scale of each row's log return, before calibration, each of shape (n,)."""
    inputs = standardise(ensemble.scaling, features)
    answers = [nnx.merge(ensemble.graph, member)(inputs) for member in ensemble.members]
    location = sum(answer[0] for answer in answers) / len(answers)
    log_scale = sum(answer[1] for answer in answers) / len(answers)
    return (
        ensemble.label_mean + ensemble.label_scale * location,
        ensemble.label_scale * jnp.exp(log_scale),
    )


def predictor(ensemble: Ensemble, calibration: Calibration) -> Callable[[Any], dict[str, Any]]:
    """The prediction as a function from raw features (n, k) to the bundle's outputs (n,)."""

    def predict(features: Any) -> dict[str, Any]:
        location, scale = distribution(ensemble, features)
        expected = calibration.base_mean + calibration.slope * (location - calibration.centre)
        half_width = calibration.interval_factor * scale
        lean = location / scale - calibration.lean_centre
        probability = jax.nn.sigmoid(calibration.base_logit + calibration.steepness * lean)
        answers = (expected, expected - half_width, expected + half_width, probability)
        return dict(zip(OUTPUTS, answers, strict=True))

    return predict


def predict_rows(function: Callable[[Any], Any], features: NDArray[np.float32]) -> Any:
    """Apply a function of features (n, k) to many rows, a fixed number at a time.

    Args:
        function: from features to a tree of arrays of shape (n,).
        features: shape (n, k).

    Returns:
        The same tree, of numpy arrays.
    """
    compiled = jax.jit(function)
    rows = len(features)
    padded = np.full((-(-rows // _CHUNK) * _CHUNK, features.shape[1]), np.nan, np.float32)
    padded[:rows] = features
    parts = [compiled(padded[start : start + _CHUNK]) for start in range(0, len(padded), _CHUNK)]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:rows], *parts)
