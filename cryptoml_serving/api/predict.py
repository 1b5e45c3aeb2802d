"""``POST /predict``: a look-up in the newest snapshot."""

from __future__ import annotations

import difflib
import logging
import time

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from cryptoml_serving.api.openapi import problems
from cryptoml_serving.api.problems import ProblemError, ProblemType
from cryptoml_serving.api.service import CurrentService, Service
from cryptoml_serving.contract.prediction import Prediction
from cryptoml_serving.contract.settings import format_duration
from cryptoml_serving.telemetry import event

_LOG = logging.getLogger(__name__)
router = APIRouter(tags=["predictions"])


class PredictRequest(BaseModel):
    """Which symbol to predict."""

    model_config = ConfigDict(extra="forbid", strict=True)

    symbol: str = Field(
        min_length=1, max_length=64, description="a served ccxt symbol", examples=["BTC/USDT"]
    )


@router.post(
    "/predict",
    response_model=Prediction,
    responses=problems(404, 413, 422, 503),
    summary="Predict the return of one symbol",
)
async def predict(body: PredictRequest, request: Request, service: CurrentService) -> Response:
    """The newest prediction of the approved model for a symbol, with its age."""
    began = time.perf_counter()
    prediction = _look_up(body.symbol, service)
    answer = Response(prediction.model_dump_json(), media_type="application/json")
    service.metrics.answered(time.perf_counter() - began)
    event(
        _LOG,
        logging.INFO,
        "prediction",
        f"predicted {prediction.symbol}",
        request_id=request.state.request_id,
        **prediction.model_dump(),
    )
    return answer


def _look_up(symbol: str, service: Service) -> Prediction:
    """The prediction to answer with, its age as of now.

    Raises:
        ProblemError: not served, not ready, nothing for this symbol, or its features too old.
    """
    if symbol not in service.settings.symbols:
        raise _unknown(symbol, service.settings.symbols)
    service.metrics.requested(symbol)
    retry = service.retry_after()
    if (snapshot := service.state.snapshot) is None:
        raise ProblemError(ProblemType.NOT_READY, service.state.not_ready, headers=retry)
    if (why := snapshot.missing.get(symbol)) is not None:
        raise ProblemError(ProblemType.NO_PREDICTION, f"{symbol}: {why}", headers=retry)
    prediction = snapshot.predictions[symbol]
    age = service.settings.clock() - prediction.feature_timestamp
    limit = service.settings.serving_max_feature_age
    if age > limit:
        detail = (
            f"{symbol}: the features are of {prediction.feature_timestamp.isoformat()}, "
            f"{age.total_seconds():.0f} s old; served up to {format_duration(limit)}"
        )
        members = {"feature_age_seconds": age.total_seconds()}
        raise ProblemError(ProblemType.STALE_FEATURES, detail, members, retry)
    return prediction.model_copy(update={"feature_age_seconds": age.total_seconds()})


def _unknown(symbol: str, served: tuple[str, ...]) -> ProblemError:
    by_folded = {name.casefold(): name for name in served}
    close = [by_folded[name] for name in difflib.get_close_matches(symbol.casefold(), by_folded)]
    hint = f"; close: {', '.join(close)}" if close else ""
    detail = f"{symbol!r} is not served{hint}; served: {', '.join(served)}"
    members = {"close_matches": close, "served_symbols": served}
    return ProblemError(ProblemType.UNKNOWN_SYMBOL, detail, members)
