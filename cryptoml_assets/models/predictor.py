"""The whole prediction as one function of raw features: what is trained, tested and exported."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from flax import nnx
from jax import numpy as jnp

from cryptoml_assets.models.calibration import Calibration
from cryptoml_assets.models.scaling import Scaling
from cryptoml_serving.contract.manifest import OUTPUTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

#: Of every product in a prediction: a GPU would otherwise multiply in TF32, and answer differently
#: from the CPU.
PRECISION = "highest"
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
                named[_name(index, path)] = np.asarray(leaf)
        return named

    def with_arrays(self, arrays: Mapping[str, Any]) -> Ensemble:
        """The same networks with other numbers: :meth:`arrays` the other way round.

        Args:
            arrays: by name; those of other parts of a model are passed over.
        """
        members = tuple(
            jax.tree_util.tree_map_with_path(
                lambda path, _, index=index: arrays[_name(index, path)], member
            )
            for index, member in enumerate(self.members)
        )
        return replace(
            self,
            scaling=self.scaling.with_arrays(arrays),
            members=members,
            label_mean=arrays["label.mean"][0],
            label_scale=arrays["label.scale"][0],
        )


def _name(index: int, path: Any) -> str:
    """What a number of a member is called."""
    name = jax.tree_util.keystr(path, simple=True, separator=".")
    return f"member.{index}.{name.removesuffix('.value')}"


def standardise(scaling: Scaling, features: Any) -> Any:
    """Impute, clip and standardise raw features of shape (n, k)."""
    # Zero and below have no logarithm: they become the smallest value there is, and are clipped.
    logarithms = jnp.log(jnp.maximum(features, jnp.finfo(jnp.float32).tiny))
    read = jnp.where(scaling.logarithmic, logarithms, features)
    filled = jnp.where(jnp.isnan(features), scaling.median, read)
    clipped = jnp.clip(filled, scaling.lower, scaling.upper)
    return (clipped - scaling.mean) / scaling.deviation


def distribution(ensemble: Ensemble, features: Any) -> tuple[Any, Any, Any]:
    """Location and scale of each row's log return and its lean, before calibration, each (n,).

    The lean is what the chance of an up move is read from: the log odds where a family states
    them, else the location in scales.
    """
    inputs = standardise(ensemble.scaling, features)
    answers = [nnx.merge(ensemble.graph, member)(inputs) for member in ensemble.members]
    first, log_scale, *odds = (sum(each) / len(answers) for each in zip(*answers, strict=True))
    location = ensemble.label_mean + ensemble.label_scale * first
    scale = ensemble.label_scale * jnp.exp(log_scale)
    return location, scale, odds[0] if odds else location / scale


def predict(ensemble: Ensemble, calibration: Calibration, features: Any) -> dict[str, Any]:
    """The prediction: raw features (n, k) to the bundle's outputs, each of shape (n,)."""
    location, scale, raw_lean = distribution(ensemble, features)
    expected = calibration.base_mean + calibration.slope * (location - calibration.centre)
    half_width = calibration.interval_factor * scale
    lean = raw_lean - calibration.lean_centre
    base_logit = jnp.log(calibration.base_rate) - jnp.log1p(-calibration.base_rate)
    probability = jax.nn.sigmoid(base_logit + calibration.steepness * lean)
    answers = (expected, expected - half_width, expected + half_width, probability)
    return dict(zip(OUTPUTS, answers, strict=True))


def distribution_of_rows(ensemble: Ensemble, features: NDArray[np.float32]) -> Any:
    """Location, scale and lean of many rows: numpy arrays of shape (n,)."""
    with jax.default_matmul_precision(PRECISION):
        return _in_chunks(partial(_DISTRIBUTION, ensemble), features)


def predict_rows(
    ensemble: Ensemble, calibration: Calibration, features: NDArray[np.float32]
) -> dict[str, NDArray[np.float32]]:
    """The outputs for many rows (n, k): numpy arrays of shape (n,)."""
    with jax.default_matmul_precision(PRECISION):
        answers: dict[str, NDArray[np.float32]] = _in_chunks(
            partial(_PREDICT, ensemble, calibration), features
        )
    return answers


def _in_chunks(function: Callable[[Any], Any], features: NDArray[np.float32]) -> Any:
    """Apply a compiled function a fixed number of rows at a time, so that it is compiled once."""
    rows = len(features)
    padded = np.full((-(-rows // _CHUNK) * _CHUNK, features.shape[1]), np.nan, np.float32)
    padded[:rows] = features
    parts = [function(padded[start : start + _CHUNK]) for start in range(0, len(padded), _CHUNK)]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:rows], *parts)


# What is fitted is an argument, so that the folds of a family share one compiled program.
for _fitted, _fixed in ((Scaling, ()), (Calibration, ()), (Ensemble, ("graph",))):
    jax.tree_util.register_dataclass(
        _fitted,
        data_fields=[each.name for each in fields(_fitted) if each.name not in _fixed],
        meta_fields=list(_fixed),
    )
_DISTRIBUTION = jax.jit(distribution)
_PREDICT = jax.jit(predict)
