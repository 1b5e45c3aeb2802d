"""The linear family: ridge regressions of the return and its size, a logistic one of its sign.

All three are solved, not descended: the answer is exact and needs no seed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from flax import nnx
from jax import numpy as jnp

from cryptoml_assets.models.families.heads import LOG_SCALE_LIMIT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

#: Penalties that are tried, as shares of the rows; with standardised inputs, 1 halves a slope.
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
#: Mean of the log of the size of a Student t of four degrees of freedom, (ln 4 + ψ(½) - ψ(2)) / 2.
_MEAN_LOG_SIZE = -0.5
_SMALLEST = 1e-4
_NEWTON_STEPS = 25
_CONVERGED = 1e-9


class ReturnLinear(nnx.Module):  # type: ignore[misc]
    """Three straight lines through the standardised features.

    Attributes:
        lines: features → location, log-scale, and log odds of an up move.
    """

    def __init__(self, inputs: int, *, rngs: nnx.Rngs) -> None:
        self.lines = nnx.Linear(inputs, 3, rngs=rngs)

    def __call__(self, inputs: Any) -> tuple[Any, Any, Any]:
        """Location, log-scale and log odds, each (n,), of standardised features (n, k)."""
        answers = self.lines(inputs)
        log_scale = jnp.clip(answers[:, 1], -LOG_SCALE_LIMIT, LOG_SCALE_LIMIT)
        return answers[:, 0], log_scale, answers[:, 2]


def fit_linear(
    fit: tuple[NDArray[np.float32], NDArray[np.float32]],
    validation: tuple[NDArray[np.float32], NDArray[np.float32]],
    up: tuple[NDArray[np.bool_], NDArray[np.bool_]],
) -> tuple[Any, Any]:
    """Solve on the fit part; the validation part chooses each line's penalty.

    The log-scale is regressed on the log of the size of what the location leaves (Harvey,
    *Estimating Regression Models with Multiplicative Heteroscedasticity*, 1976).

    Args:
        fit: standardised inputs (n, k) and labels (n,) in units of their spread.
        validation: the same of the validation part.
        up: whether each row's return was above zero, of both parts.

    Returns:
        The graph of the model, and its numbers.
    """
    designs = (_with_constant(fit[0]), _with_constant(validation[0]))
    labels = (fit[1].astype(np.float64), validation[1].astype(np.float64))
    location = _ridge(designs, labels)
    sizes = (
        _log_size(labels[0] - designs[0] @ location),
        _log_size(labels[1] - designs[1] @ location),
    )
    log_scale = _ridge(designs, sizes)
    log_scale[-1] -= _MEAN_LOG_SIZE
    odds = _logistic(designs, (up[0].astype(np.float64), up[1].astype(np.float64)))
    answers = np.column_stack([location, log_scale, odds]).astype(np.float32)
    model = ReturnLinear(fit[0].shape[1], rngs=nnx.Rngs(0))
    model.lines.kernel[...] = jnp.asarray(answers[:-1])
    model.lines.bias[...] = jnp.asarray(answers[-1])
    return nnx.split(model)  # type: ignore[no-any-return]


def _log_size(left: NDArray[np.float64]) -> NDArray[np.float64]:
    sizes: NDArray[np.float64] = np.log(np.maximum(np.abs(left), _SMALLEST))
    return sizes


def _with_constant(inputs: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.column_stack([inputs.astype(np.float64), np.ones(len(inputs))])


def _ridge(
    designs: tuple[NDArray[np.float64], NDArray[np.float64]],
    targets: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> NDArray[np.float64]:
    """Weights of least squares with the penalty that is best on the second part."""
    gram, moments = designs[0].T @ designs[0], designs[0].T @ targets[0]
    candidates = [
        np.linalg.solve(gram + _penalty(gram, share, len(designs[0])), moments)
        for share in PENALTIES
    ]
    losses = [float(((targets[1] - designs[1] @ weights) ** 2).mean()) for weights in candidates]
    return _best(candidates, losses)


def _logistic(
    designs: tuple[NDArray[np.float64], NDArray[np.float64]],
    targets: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> NDArray[np.float64]:
    """Weights of the most likely log odds with the penalty that is best on the second part."""
    candidates = [_newton(designs[0], targets[0], share) for share in PENALTIES]
    losses = []
    for weights in candidates:
        odds = designs[1] @ weights
        losses.append(float((np.logaddexp(0.0, odds) - targets[1] * odds).mean()))
    return _best(candidates, losses)


def _newton(
    design: NDArray[np.float64], up: NDArray[np.float64], share: float
) -> NDArray[np.float64]:
    weights = np.zeros(design.shape[1])
    for _ in range(_NEWTON_STEPS):
        chance = 1 / (1 + np.exp(-(design @ weights)))
        curvature = design.T @ (design * (chance * (1 - chance))[:, None])
        # A quarter, the most a chance can vary by, puts the penalty on the ridge's scale.
        penalty = _penalty(curvature, share / 4, len(design))
        step = np.linalg.solve(curvature + penalty, design.T @ (up - chance) - penalty @ weights)
        weights = weights + step
        if float(np.abs(step).max()) < _CONVERGED:
            break
    return weights


def _penalty(gram: NDArray[np.float64], share: float, rows: int) -> NDArray[np.float64]:
    """The ridge on every weight but the constant's."""
    penalties = np.full(len(gram), share * rows)
    # A column that never varies would else leave the constant with two names.
    penalties[-1] = rows * np.finfo(np.float64).eps
    return np.diag(penalties)


def _best(candidates: Sequence[Any], losses: Sequence[float]) -> NDArray[np.float64]:
    best: NDArray[np.float64] = candidates[int(np.argmin(losses))]
    return best
