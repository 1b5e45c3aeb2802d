"""What every route for rows that callers send says alike: which model, and why there is no answer.

``POST /predict/features`` and the Open Inference Protocol differ in their bodies alone.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

from cryptoml_serving.api.problems import ProblemError, ProblemType
from cryptoml_serving.contract.manifest import OUTPUTS
from cryptoml_serving.runtime.errors import (
    DeadlineError,
    ExplicitError,
    NotServedError,
    OverloadedError,
)

if TYPE_CHECKING:
    from cryptoml_serving.api.service import Service
    from cryptoml_serving.runtime.batcher import Batch
    from cryptoml_serving.runtime.registry import ApprovedModel

#: Each output of a model as numbers, in the order of ``OUTPUTS``.
Figures = tuple[list[float], ...]


def chosen_model(service: Service, version: str | None, *, counted: bool = True) -> ApprovedModel:
    """The model of this version, or the champion.

    Args:
        service: with the models.
        version: asked for; none: the champion.
        counted: whether a refusal is an error of the service.

    Raises:
        ProblemError: 503 while no model is loaded, so that nobody can tell which versions there
            will be, or no champion is; 404 for a version that is not among those loaded.
    """
    try:
        return service.batcher.model(version)
    except NotServedError as error:
        if version is not None and service.state.models:
            problem = ProblemError(ProblemType.UNKNOWN_VERSION, str(error), counted=counted)
        else:
            problem = not_ready(service, counted=counted)
        raise problem from error


def not_ready(service: Service, *, counted: bool = True) -> ProblemError:
    """The problem of a service that answers nothing yet, or soon no more."""
    detail, retry = service.state.not_ready, service.retry_after()
    return ProblemError(ProblemType.NOT_READY, detail, headers=retry, counted=counted)


def refused(service: Service, error: ExplicitError) -> ProblemError:
    """Why rows get no answer now."""
    if isinstance(error, OverloadedError):
        retry = {"Retry-After": str(error.retry_after)}
        return ProblemError(ProblemType.OVERLOADED, str(error), headers=retry)
    kind = ProblemType.DEADLINE if isinstance(error, DeadlineError) else ProblemType.NOT_READY
    return ProblemError(kind, str(error), headers=service.retry_after())


def figures(batch: Batch) -> Figures:
    """Each output of a batch as numbers."""
    return tuple(batch.outputs[name].tolist() for name in OUTPUTS)


def no_prediction(found: Figures) -> int | None:
    """The first row whose figures are no prediction; none: every row has one.

    A prediction has finite figures, and a probability among them.
    """
    *_, up = found
    if all(all(map(isfinite, each)) for each in found) and min(up) >= 0 and max(up) <= 1:
        return None
    return next(
        number
        for number, row in enumerate(zip(*found, strict=True))
        if not (all(map(isfinite, row)) and 0 <= row[-1] <= 1)
    )
