"""``GET /predictions/{id}``: one prediction, where it came from, and what came of it."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from cryptoml_serving.api.openapi import problems
from cryptoml_serving.api.problems import ProblemError, ProblemType
from cryptoml_serving.api.service import CurrentService
from cryptoml_serving.api.stream import CurrentChronicle
from cryptoml_serving.contract.approval import Role
from cryptoml_serving.runtime.errors import LakeUnavailableError
from cryptoml_serving.telemetry import event

if TYPE_CHECKING:
    from concurrent.futures import Future

    from cryptoml_serving.api.service import Service
    from cryptoml_serving.contract.approval import ApprovalRecord
    from cryptoml_serving.runtime.chronicle import Chronicle

_LOG = logging.getLogger(__name__)
#: Share of a request's time that a look into the lake may take.
_PATIENCE = 0.8
_Found = TypeVar("_Found")
router = APIRouter(tags=["predictions"])


class Served(BaseModel):
    """What was predicted."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    prediction_id: UUID
    symbol: str
    prediction: float = Field(description="expected log return over the horizon")
    lower: float = Field(description="lower end of the calibrated 90 % interval")
    upper: float = Field(description="upper end of the calibrated 90 % interval")
    probability_up: float
    horizon_seconds: int
    feature_timestamp: AwareDatetime = Field(description="when the features could be known")
    timestamp: AwareDatetime = Field(description="when the prediction was computed first")


class Approval(BaseModel):
    """The decision that let the model predict; `GET /models/champion` has the champion's whole."""

    decision: int = Field(description="its number")
    action: str
    claim: str
    decided_by: str
    decided_at: AwareDatetime
    reason: str
    criteria_passed: int


class Lineage(BaseModel):
    """Where a prediction came from, back to the rows and the code."""

    model_config = ConfigDict(protected_namespaces=())

    model_name: str
    model_version: str
    role: Role = Field(description="what the model was when it predicted this first")
    bundle_digest: str
    source: str = Field(description="the world the model learned from")
    verified: bool = Field(
        description="whether a signed approval of exactly this bundle was verified; what follows "
        "is that record's, and null without it"
    )
    run_id: str | None = Field(None, description="the training run")
    git_commit: str | None = Field(None, description="of the code that made the bundle")
    data_versions: dict[str, int] | None = Field(
        None, description="lake table to the version of it that the bundle was made from"
    )
    approval: Approval | None = None


class Outcome(BaseModel):
    """What came of it."""

    model_config = ConfigDict(extra="ignore")

    outcome_at: AwareDatetime
    realised_return: float = Field(description="log return over the horizon")
    covered: bool | None = Field(None, description="whether the interval held it")
    correct: bool | None = Field(None, description="whether the direction was right")


class Traced(BaseModel):
    """A prediction with its lineage."""

    prediction: Served
    lineage: Lineage
    outcome: Outcome | None = Field(description="null while it is not known, or not recorded")
    found_in: Literal["memory", "lake"]


@router.get(
    "/predictions/{prediction_id}",
    responses=problems(404, 422, 503),
    summary="Trace a prediction",
)
async def prediction(
    prediction_id: UUID, request: Request, service: CurrentService, chronicle: CurrentChronicle
) -> Traced:
    """A prediction of any version with its lineage, and its outcome once that is known.

    The last ones are in memory, all others in the lake.
    """
    until = request.state.deadline
    if (held := chronicle.recent.find(prediction_id)) is not None:
        # What came of it is worth a moment, and no error.
        try:
            came = await _found(chronicle.lake.outcome(held.prediction), until)
        except LakeUnavailableError:
            came = None
        told = held.prediction.model_dump(by_alias=True)
        return _traced(told, held.record.role, held.record, came, "memory")
    try:
        row = await _found(chronicle.lake.find(str(prediction_id)), until)
    except LakeUnavailableError as error:
        detail = "it is none of the last ones, and the lake cannot be read now"
        headers = service.retry_after()
        raise ProblemError(ProblemType.OVERLOADED, detail, headers=headers) from error
    if row is None:
        detail = f"no prediction {prediction_id} was served, or it has not reached the lake yet"
        raise ProblemError(ProblemType.UNKNOWN_PREDICTION, detail)
    return _from_lake(row, service, chronicle)


async def _found(future: Future[_Found], until: float) -> _Found:
    """What the lake says, if it says so in time.

    Raises:
        LakeUnavailableError: it does not, or cannot be read.
    """
    patience = max(0.0, until - time.monotonic()) * _PATIENCE
    try:
        async with asyncio.timeout(patience):
            return await asyncio.wrap_future(future)
    except TimeoutError as error:
        raise LakeUnavailableError("it did not answer in time") from error
    except LakeUnavailableError:
        raise
    except Exception as error:  # the lake's libraries have no class of errors in common
        event(_LOG, logging.ERROR, "error", f"lake: {error}", error_type="lake", part="lake")
        raise LakeUnavailableError(str(error)) from error


def _from_lake(row: dict[str, Any], service: Service, chronicle: Chronicle) -> Traced:
    record = chronicle.lake.picture.history.record_of(row["sequence"], row["bundle_digest"])
    row = {**row, "prediction": row["expected_return"], "timestamp": row["computed_at"]}
    if record is None:
        served = {each.record.bundle_digest: each.record for each in service.state.models.values()}
        known = served.get(row["bundle_digest"])
        record = known if known and known.sequence == row["sequence"] else None
    return _traced(row, row["role"], record, row["outcome"], "lake")


def _traced(
    row: dict[str, Any],
    role: Role,
    record: ApprovalRecord | None,
    came: dict[str, Any] | None,
    found_in: Literal["memory", "lake"],
) -> Traced:
    told: dict[str, Any] = {
        "model_name": row["model_name"],
        "model_version": row["model_version"],
        "role": role,
        "bundle_digest": row["bundle_digest"] if record is None else record.bundle_digest,
        "source": row["source"],
        "verified": record is not None,
    }
    if record is not None:
        approval = record.model_dump(
            include={"action", "claim", "decided_by", "decided_at", "reason"}
        )
        passed = sum(each.passed for each in record.criteria)
        told["approval"] = {
            **approval,
            "decision": record.sequence,
            "criteria_passed": passed,
        }
        told |= record.model_dump(include={"run_id", "git_commit", "data_versions"})
    known = came is not None and came["realised_return"] is not None
    return Traced(
        prediction=Served.model_validate(row),
        lineage=Lineage.model_validate(told),
        outcome=Outcome.model_validate(came) if known else None,
        found_in=found_in,
    )
