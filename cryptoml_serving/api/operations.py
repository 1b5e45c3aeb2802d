"""Routes for those who run the service: liveness, readiness and metrics."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from cryptoml_serving.api.openapi import problems
from cryptoml_serving.api.problems import ProblemError, ProblemType
from cryptoml_serving.api.service import CurrentService
from cryptoml_serving.security.errors import RefusedError
from cryptoml_serving.security.roles import Role

router = APIRouter(tags=["operations"])


class Health(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Challenger(BaseModel):
    """A version that predicts beside the champion."""

    model_config = ConfigDict(protected_namespaces=())

    model_version: str
    role: Literal["shadow", "canary"]
    percent: float = Field(description="share of the requests it answers, in percent")
    snapshot_timestamp: AwareDatetime = Field(description="when the features were last read for it")


class Ready(BaseModel):
    """Predictions are served: all that those hear who show no credential where one is asked for."""

    status: Literal["ready"] = "ready"


class Readiness(Ready):
    """What is served, and how old it is."""

    model_config = ConfigDict(protected_namespaces=())

    model_name: str
    model_version: str
    bundle_digest: str
    approved_by: str
    approved_at: AwareDatetime
    source: str
    deployment: int = Field(description="number of the decision the registry's deployment is of")
    challengers: tuple[Challenger, ...]
    snapshot_timestamp: AwareDatetime = Field(description="when the features were last read")
    model_check_age_seconds: float | None = Field(
        description="time since the registry last confirmed the model"
    )
    feature_check_age_seconds: float | None = Field(
        description="time since the features were last read"
    )
    problems: dict[str, str] = Field(
        description="what currently keeps model, features or challengers from being refreshed, "
        "whether the registry's alias was moved, and whether the version that answers is another "
        "than the deployed champion"
    )


@router.get("/health", responses=problems(asks=False), summary="Liveness")
async def health() -> Health:
    """Answers as long as the process lives, ready or not."""
    return Health()


@router.get("/ready", responses=problems(503, asks=False), summary="Readiness")
async def ready(request: Request, service: CurrentService) -> Readiness | Ready:
    """Answers 200 once a served symbol is predicted, and until the service is told to stop."""
    state = service.state
    snapshot = state.snapshot
    deployment = state.deployment
    if snapshot is None or deployment is None or not state.accepting:
        headers = service.retry_after()
        raise ProblemError(ProblemType.NOT_READY, state.not_ready, headers=headers, counted=False)
    try:
        service.guard.admit(request.scope["headers"], Role.PREDICT, request.client)
    except RefusedError:
        # Whoever spreads requests has no credential, and wants to know no more.
        return Ready()
    record = snapshot.model.record
    return Readiness(
        model_name=record.model_name,
        model_version=record.model_version,
        bundle_digest=record.bundle_digest,
        approved_by=record.decided_by,
        approved_at=record.decided_at,
        source=snapshot.model.bundle.manifest.source,
        deployment=deployment.sequence,
        challengers=tuple(
            Challenger(
                **each.model.placement.model_dump(include={"model_version", "role", "percent"}),
                snapshot_timestamp=each.computed_at,
            )
            for each in state.challengers
        ),
        snapshot_timestamp=snapshot.computed_at,
        model_check_age_seconds=state.age("model"),
        feature_check_age_seconds=state.age("features"),
        problems=state.troubles | service.guard.troubles,
    )


@router.get("/metrics", responses=problems(), response_class=Response, summary="Metrics")
async def metrics(service: CurrentService) -> Response:
    """Prometheus' text format."""
    return Response(service.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)
