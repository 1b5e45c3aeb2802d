"""Imputation, clipping and standardisation, fitted on training rows and shipped with the model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

#: Quantiles that hold the bulk of a feature's values.
_LOWER, _UPPER = 0.005, 0.995
#: Values are clipped this share of the bulk's width beyond it.
_MARGIN = 0.25
#: Skewness past which a positive feature is a size, such as a volatility, and read by its log.
_SKEWED = 1.0
#: What a prediction reads of it.
_READ = ("median", "lower", "upper", "mean", "deviation", "logarithmic")


@dataclass(frozen=True)
class Scaling:
    """Per-feature constants, each of shape (k,) and, but for the last two, float32.

    All but ``logarithmic`` and ``unseen`` are in units of the feature after its logarithm, where
    one is taken.

    Attributes:
        median: what a missing value becomes.
        lower: values below are clipped to it.
        upper: values above are clipped to it.
        mean: of the clipped training values.
        deviation: standard deviation of the same; 1 where they do not vary.
        logarithmic: features read by their logarithm: a model that is right about twice the usual
            volatility is then also right about four times of it, which it may never have seen.
        unseen: features without one training value, which therefore say nothing.
    """

    median: NDArray[np.float32]
    lower: NDArray[np.float32]
    upper: NDArray[np.float32]
    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]
    logarithmic: NDArray[np.bool_]
    unseen: NDArray[np.bool_]

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """The constants by name."""
        return {f"scaling.{name}": getattr(self, name).astype(np.float32) for name in _READ}

    def with_arrays(self, arrays: Mapping[str, Any]) -> Scaling:
        """The constants from their names: :meth:`arrays` the other way round.

        Args:
            arrays: by name; those of other parts of a model are passed over.
        """
        read = {name: arrays[f"scaling.{name}"] for name in _READ}
        return replace(self, **{**read, "logarithmic": read["logarithmic"] > 0})


def fit_scaling(features: NDArray[np.float32]) -> Scaling:
    """Fit on training rows alone.

    Args:
        features: shape (n, k); NaN is missing. A column that is missing throughout becomes a
            constant and is reported in ``unseen``.
    """
    values = features.astype(np.float64)
    unseen: NDArray[np.bool_] = np.asarray(~np.isfinite(values).any(axis=0))
    values[:, unseen] = 0.0
    values[~np.isfinite(values)] = np.nan
    logarithmic = np.array([_is_size(column[~np.isnan(column)]) for column in values.T])
    values[:, logarithmic] = np.log(values[:, logarithmic])
    low, median, high = np.nanquantile(values, (_LOWER, 0.5, _UPPER), axis=0)
    lower, upper = low - _MARGIN * (high - low), high + _MARGIN * (high - low)
    clipped = np.clip(np.where(np.isnan(values), median, values), lower, upper)
    mean, deviation = clipped.mean(axis=0), clipped.std(axis=0)
    # Below float32's resolution of the mean, what is left is rounding, not information.
    constant = deviation <= np.abs(mean) * np.finfo(np.float32).eps
    return Scaling(
        median=median.astype(np.float32),
        lower=lower.astype(np.float32),
        upper=upper.astype(np.float32),
        mean=mean.astype(np.float32),
        deviation=np.where(constant, 1.0, deviation).astype(np.float32),
        logarithmic=logarithmic,
        unseen=unseen,
    )


def _is_size(values: NDArray[np.float64]) -> bool:
    """Whether values are all positive and skewed to the right."""
    spread = values.std()
    if values.min() <= 0.0 or spread == 0.0:
        return False
    return float((((values - values.mean()) / spread) ** 3).mean()) > _SKEWED
