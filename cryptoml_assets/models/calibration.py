"""What the calibration part corrects: width of the interval, size of the move, confidence."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from cryptoml_assets.errors import TrainingDataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

#: Share of outcomes the interval is to hold.
COVERAGE = 0.9
_STEEPNESS_LIMIT = 4.0
_NEWTON_STEPS = 30


@dataclass(frozen=True)
class Calibration:
    """Numbers between a raw location and scale and what is answered.

    Without skill on the calibration part, slope and steepness are 0 and the model answers the base
    rate exactly: it then claims nothing.

    Attributes:
        base_mean: mean label of all training rows, log return.
        base_rate: share of training labels above zero.
        centre: mean raw location over the training rows, log return.
        slope: how much of the raw location's deviation from ``centre`` is believed, 0 to 1.
        lean_centre: mean lean over the training rows: raw location / scale, or log odds.
        steepness: log odds of an up move per unit of lean, 0 or more.
        interval_factor: half the 90 % interval's width, in raw scales.
    """

    base_mean: float
    base_rate: float
    centre: float
    slope: float
    lean_centre: float
    steepness: float
    interval_factor: float

    @property
    def base_logit(self) -> float:
        """Log odds of an up move in the training rows."""
        return float(np.log(self.base_rate) - np.log1p(-self.base_rate))

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Every number by name."""
        return {
            f"calibration.{name}": np.asarray([value], np.float32)
            for name, value in sorted(vars(self).items())
        }

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, Any]) -> Self:
        """The numbers from their names: :meth:`arrays` the other way round.

        Args:
            arrays: by name; those of other parts of a model are passed over.
        """
        return cls(**{each.name: arrays[f"calibration.{each.name}"][0] for each in fields(cls)})


def calibrate(
    location: NDArray[np.float64],
    scale: NDArray[np.float64],
    labels: NDArray[np.float64],
    held_out: NDArray[np.bool_],
    *,
    lean: NDArray[np.float64] | None = None,
) -> Calibration:
    """Fit on the calibration rows, around the base rates of all training rows.

    Args:
        location: raw location of each training row, shape (n,), log return.
        scale: raw scale of each training row, shape (n,).
        labels: shape (n,), log return.
        held_out: mask of shape (n,) of the calibration rows, unseen by the networks.
        lean: what the log odds of an up move follow, shape (n,); location / scale where none is
            given.

    Raises:
        TrainingDataError: labels all of one sign.
    """
    lean = location / scale if lean is None else lean
    base_mean, base_rate = float(labels.mean()), float((labels > 0).mean())
    if base_rate in {0.0, 1.0}:
        message = (
            f"{base_rate:.0%} of the {len(labels)} labels before the test part are above zero: "
            "there is no direction to learn"
        )
        raise TrainingDataError(message)
    centre, lean_centre = float(location.mean()), float(lean.mean())
    slope = _slope(location[held_out] - centre, labels[held_out] - base_mean)
    logit = np.log(base_rate / (1 - base_rate))
    steepness = _steepness(lean[held_out] - lean_centre, labels[held_out] > 0, logit)
    expected = base_mean + slope * (location[held_out] - centre)
    factor = conformal_factor(np.abs(labels[held_out] - expected) / scale[held_out])
    return Calibration(base_mean, base_rate, centre, slope, lean_centre, steepness, factor)


def conformal_factor(scores: NDArray[np.float64]) -> float:
    """Half-width, in scales, that covers 90 % of exchangeable outcomes (split conformal).

    The finite-sample quantile of Lei et al., *Distribution-free predictive inference* (2018): the
    ``ceil((n + 1) 0.9)``-th smallest score, or the largest where there are fewer than nine.
    """
    rank = int(np.ceil((len(scores) + 1) * COVERAGE))
    return float(np.sort(scores)[min(rank, len(scores)) - 1])


def _slope(location: NDArray[np.float64], labels: NDArray[np.float64]) -> float:
    """Least-squares slope through the origin, between 0 and 1."""
    power = float(location @ location)
    return float(np.clip(location @ labels / power, 0.0, 1.0)) if power > 0 else 0.0


def _steepness(lean: NDArray[np.float64], up: NDArray[np.bool_], logit: float) -> float:
    """Maximum-likelihood slope of a logistic regression with its intercept fixed at ``logit``."""
    steepness = 0.0
    for _ in range(_NEWTON_STEPS):
        probability = 1 / (1 + np.exp(-(logit + steepness * lean)))
        gradient = float(lean @ (up - probability))
        curvature = float(lean**2 @ (probability * (1 - probability)))
        if curvature == 0.0:
            return 0.0
        steepness = float(np.clip(steepness + gradient / curvature, 0.0, _STEEPNESS_LIMIT))
    return steepness
