"""Imputation, clipping and standardisation, fitted on training rows and shipped with the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Shares of a feature's values that are clipped at either end.
_LOWER, _UPPER = 0.005, 0.995


@dataclass(frozen=True)
class Scaling:
    """Per-feature constants, each of shape (k,), float32.

    Attributes:
        median: what a missing value becomes.
        lower: values below are clipped to it.
        upper: values above are clipped to it.
        mean: of the clipped training values.
        deviation: standard deviation of the same; 1 where they do not vary.
        unseen: features without one training value, which therefore say nothing.
    """

    median: NDArray[np.float32]
    lower: NDArray[np.float32]
    upper: NDArray[np.float32]
    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]
    unseen: NDArray[np.bool_]

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """The constants by name."""
        return {
            f"scaling.{name}": getattr(self, name)
            for name in ("median", "lower", "upper", "mean", "deviation")
        }


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
    lower, median, upper = np.nanquantile(values, (_LOWER, 0.5, _UPPER), axis=0)
    clipped = np.clip(np.where(np.isnan(values), median, values), lower, upper)
    deviation = clipped.std(axis=0)
    # Below float32's resolution of the mean, what is left is rounding, not information.
    constant = deviation <= np.abs(clipped.mean(axis=0)) * np.finfo(np.float32).eps
    return Scaling(
        median=median.astype(np.float32),
        lower=lower.astype(np.float32),
        upper=upper.astype(np.float32),
        mean=clipped.mean(axis=0).astype(np.float32),
        deviation=np.where(constant, 1.0, deviation).astype(np.float32),
        unseen=unseen,
    )
