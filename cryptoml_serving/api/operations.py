"""Routes for those who run the service: liveness, readiness, metrics, and an index."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from cryptoml_serving.api.openapi import problems
from cryptoml_serving.api.problems import ProblemError, ProblemType
from cryptoml_serving.api.service import CurrentService

router = APIRouter(tags=["operations"])


class Index(BaseModel):
    """What there is to ask for."""

    service: str
    symbols: tuple[str, ...]
    endpoints: dict[str, str]


class Health(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Readiness(BaseModel):
    """What is served, and how old it is."""

    model_config = ConfigDict(protected_namespaces=())

    status: Literal["ready"] = "ready"
    model_name: str
    model_version: str
    bundle_digest: str
    approved_by: str
    approved_at: AwareDatetime
    source: str
    snapshot_timestamp: AwareDatetime = Field(description="when the features were last read")
    model_check_age_seconds: float | None = Field(
        description="time since the registry last confirmed the model"
    )
    feature_check_age_seconds: float | None = Field(
        description="time since the features were last read"
    )
    problems: dict[str, str] = Field(
        description="what currently keeps model or features from being refreshed"
    )


@router.get("/", responses=problems(), summary="Index")
async def index(service: CurrentService) -> Index:
    """The endpoints and the served symbols."""
    return Index(
        service="cryptoml inference",
        symbols=service.settings.symbols,
        endpoints={
            "POST /predict": 'prediction for {"symbol": "BTC/USDT"}',
            "GET /health": "whether the process lives",
            "GET /ready": "whether predictions are served, of which model, how old",
            "GET /metrics": "Prometheus metrics",
            "GET /openapi.json": "the interface in full",
        },
    )


@router.get("/health", responses=problems(), summary="Liveness")
async def health() -> Health:
    """Answers as long as the process lives, ready or not."""
    return Health()


@router.get("/ready", responses=problems(503), summary="Readiness")
async def ready(service: CurrentService) -> Readiness:
    """Answers 200 once an approved model is loaded and predicts a served symbol."""
    state = service.state
    snapshot = state.snapshot
    if snapshot is None or not state.ready:
        headers = service.retry_after()
        raise ProblemError(ProblemType.NOT_READY, state.not_ready, headers=headers, counted=False)
    record = snapshot.model.record
    return Readiness(
        model_name=record.model_name,
        model_version=record.model_version,
        bundle_digest=record.bundle_digest,
        approved_by=record.decided_by,
        approved_at=record.decided_at,
        source=snapshot.model.bundle.manifest.source,
        snapshot_timestamp=snapshot.computed_at,
        model_check_age_seconds=state.age("model"),
        feature_check_age_seconds=state.age("features"),
        problems=dict(state.problems),
    )


@router.get("/metrics", responses=problems(), response_class=Response, summary="Metrics")
async def metrics(service: CurrentService) -> Response:
    """Prometheus' text format."""
    return Response(service.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)
