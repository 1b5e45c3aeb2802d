"""``GET /models``, ``GET /models/champion``: what may predict, and on whose word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from fastapi import APIRouter
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from cryptoml_serving.api.openapi import problems
from cryptoml_serving.api.problems import ProblemError, ProblemType
from cryptoml_serving.api.service import CurrentService
from cryptoml_serving.contract.approval import ApprovalRecord

if TYPE_CHECKING:
    from cryptoml_serving.api.service import Service
    from cryptoml_serving.contract.deployment import Placement
    from cryptoml_serving.runtime.registry import ApprovedModel
    from cryptoml_serving.runtime.state import State

router = APIRouter(tags=["models"])


class Model(BaseModel):
    """One version that may predict. What only its bundle and approval say is null until loaded."""

    model_config = ConfigDict(protected_namespaces=())

    model_name: str
    model_version: str
    role: Literal["champion", "shadow", "canary"]
    percent: float = Field(description="share of the requests it answers as a canary, in percent")
    bundle_digest: str
    run_id: str = Field(description="the training run that made it")
    loaded: bool = Field(description="whether its bundle is verified and it can predict")
    family: str | None = Field(None, description="kind of model")
    source: str | None = Field(None, description="the world it learned from")
    horizon_seconds: int | None = Field(None, description="how far ahead its predictions reach")
    features: tuple[str, ...] | None = Field(None, description="its inputs, in order")
    training_start: AwareDatetime | None = None
    training_end: AwareDatetime | None = None
    approved_by: str | None = None
    approved_at: AwareDatetime | None = None
    decision: int | None = Field(None, description="number of the decision that gave it its role")


class Models(BaseModel):
    """Everything the newest signed deployment places, the champion first."""

    deployment: int = Field(description="number of the decision the deployment follows")
    models: tuple[Model, ...]


class Champion(Model):
    """The model whose predictions are answered, with the approval that lets it."""

    approval: ApprovalRecord = Field(
        description="the verified record: every criterion with its figure and its threshold, who "
        "decided and why, and what the model was made from"
    )


@router.get("/models", responses=problems(503), summary="What may predict")
async def models(service: CurrentService) -> Models:
    """Champion, shadows and canaries of the newest valid deployment, loaded or not."""
    deployment = service.state.deployment
    if deployment is None:
        raise _not_ready(service)
    return Models(
        deployment=deployment.sequence,
        models=tuple(
            Model.model_validate(described(service, placement, loaded(service.state, placement)))
            for placement in deployment.placements
        ),
    )


@router.get("/models/champion", responses=problems(503), summary="What answers, and its approval")
async def champion(service: CurrentService) -> Champion:
    """The model that answers now, with its approval record.

    While a new champion is being loaded, it is the one before.
    """
    model = answering(service.state)
    if model is None:
        raise _not_ready(service)
    fields = described(service, model.placement, model)
    return Champion.model_validate({**fields, "approval": model.record})


def answering(state: State) -> ApprovedModel | None:
    """The champion whose predictions are answered; before the first, the one that is loaded."""
    snapshot = state.snapshot
    return state.champion if snapshot is None else snapshot.model


def loaded(state: State, placement: Placement) -> ApprovedModel | None:
    """The model of a placement, if it can predict by the approval of exactly that."""
    snapshots = () if state.snapshot is None else (state.snapshot,)
    held = [each.model for each in (*snapshots, *state.challengers)] + list(state.models.values())
    return next(
        (
            model
            for model in held
            if model.placement == placement
            and (model.record.role, model.record.percent) == (placement.role, placement.percent)
        ),
        None,
    )


def described(
    service: Service, placement: Placement, model: ApprovedModel | None
) -> dict[str, object]:
    """The fields of a `Model`."""
    told: dict[str, object] = {
        "model_name": service.settings.model_name,
        **placement.model_dump(),
        "loaded": model is not None,
    }
    if model is None:
        return told
    manifest, record = model.bundle.manifest, model.record
    return {
        **told,
        "family": manifest.family,
        "source": manifest.source,
        "horizon_seconds": manifest.horizon_seconds,
        "features": tuple(each.name for each in manifest.features),
        "training_start": manifest.training_start,
        "training_end": manifest.training_end,
        "approved_by": record.decided_by,
        "approved_at": record.decided_at,
        "decision": record.sequence,
    }


def _not_ready(service: Service) -> ProblemError:
    detail = service.state.not_ready
    return ProblemError(ProblemType.NOT_READY, detail, headers=service.retry_after())
