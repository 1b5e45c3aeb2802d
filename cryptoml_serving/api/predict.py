"""``POST /predict``: a look-up in the newest snapshot, of answers that are serialised already.

The door calls it with the body, past the framework's routing, validation and serialisation, which
together take longer than the answer.
"""

from __future__ import annotations

import difflib
import time
from typing import TYPE_CHECKING, Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, RootModel, StringConstraints, ValidationError

from cryptoml_serving.api.openapi import Operation
from cryptoml_serving.api.problems import ProblemError, ProblemType, invalid_request
from cryptoml_serving.contract.prediction import Prediction
from cryptoml_serving.runtime import canary
from cryptoml_serving.runtime.access_log import Answered

if TYPE_CHECKING:
    from cryptoml_serving.api.service import Service
    from cryptoml_serving.runtime.answers import Answer
    from cryptoml_serving.runtime.snapshot import Snapshot

PATH = "/predict"
#: Symbols of one request.
MOST_SYMBOLS = 256

Symbol = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class OneSymbol(BaseModel):
    """Which symbol to predict."""

    model_config = ConfigDict(extra="forbid", strict=True)

    symbol: Symbol = Field(description="a served ccxt symbol", examples=["BTC/USDT"])


class ManySymbols(BaseModel):
    """Which symbols to predict."""

    model_config = ConfigDict(extra="forbid", strict=True)

    symbols: list[Symbol] = Field(
        min_length=1,
        max_length=MOST_SYMBOLS,
        description="served ccxt symbols; answered all, in this order, or none",
        examples=[["BTC/USDT", "ETH/USDT"]],
    )


class PredictRequest(RootModel[OneSymbol | ManySymbols]):
    """``{"symbol": ...}`` or ``{"symbols": [...]}``."""


class Predictions(BaseModel):
    """One prediction for each symbol asked for, in that order."""

    predictions: list[Prediction]


OPERATION = Operation(
    path=PATH,
    tag="predictions",
    summary="Predict the return of one symbol or several",
    description="The newest predictions of the approved model, with their ages. A canary answers "
    "its share of the requests in the champion's place, chosen by X-Request-ID and symbol.",
    body=PredictRequest,
    answers=(Prediction, Predictions),
    statuses=(404, 408, 413, 422, 503),
)


def predict(service: Service, body: bytes, request_id: str, caller: str) -> bytes:
    """The JSON that answers a request.

    Args:
        service: what is answered from.
        body: of the request, as it came.
        request_id: says whether it is a canary's turn.
        caller: for the log.

    Raises:
        ProblemError: the body is none of ours; or of one symbol: not served, not ready, nothing for
            it, or its features too old.
    """
    began = time.perf_counter()
    asked = _parse(body)
    # Both read once for one request: the background thread replaces the snapshot.
    snapshot, now = service.state.snapshot, service.now()
    if isinstance(asked, str):
        answer = _look_up(service, snapshot, asked, request_id, now)
        told = _told(service, answer, now, request_id, caller)
    else:
        found = [_look_up(service, snapshot, symbol, request_id, now) for symbol in asked]
        bodies = [_told(service, answer, now, request_id, caller) for answer in found]
        told = b'{"predictions":[%b]}' % b",".join(bodies)
    service.metrics.tally.took(time.perf_counter() - began)
    return told


def _told(service: Service, answer: Answer, now: float, request_id: str, caller: str) -> bytes:
    """The JSON of one answer, once it is counted and noted."""
    age = answer.age(now)
    made = answer.prediction
    service.metrics.tally.answered(made.model_version, made.role)
    service.access_log.add(Answered(time.time(), request_id, caller, answer, age))
    return answer.body(age)


def not_json() -> ProblemError:
    """The problem of a body that says itself that it is something else."""
    return invalid_request([("body", "it is not sent as application/json")])


def _parse(body: bytes) -> str | list[str]:
    """The symbol or the symbols.

    Raises:
        ProblemError: it is no such body.
    """
    try:
        parsed: Any = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise invalid_request([("body", f"it is not JSON: {error}")]) from None
    # The usual request; everything else is for the model to judge.
    if type(parsed) is dict and len(parsed) == 1:
        symbol = parsed.get("symbol")
        if type(symbol) is str and 0 < len(symbol) <= 64:  # noqa: PLR2004 - as `Symbol` says
            return symbol
    kind = ManySymbols if isinstance(parsed, dict) and "symbols" in parsed else OneSymbol
    try:
        asked = kind.model_validate(parsed)
    except ValidationError as error:
        reasons = [("/".join(map(str, ("body", *e["loc"]))), e["msg"]) for e in error.errors()]
        raise invalid_request(reasons) from None
    return asked.symbol if isinstance(asked, OneSymbol) else asked.symbols


def _look_up(
    service: Service, snapshot: Snapshot | None, symbol: str, request_id: str, now: float
) -> Answer:
    """What answers for a symbol.

    Raises:
        ProblemError: not served, not ready, nothing for this symbol, or its features too old.
    """
    state = service.state
    if symbol not in service.symbols:
        raise _unknown(symbol, service.settings.symbols)
    service.metrics.tally.requested(symbol)
    if snapshot is None:
        raise ProblemError(ProblemType.NOT_READY, state.not_ready, headers=service.retry_after())
    if (answer := canary.choose(state, snapshot, symbol, request_id)) is None:
        detail = f"{symbol}: {snapshot.missing[symbol]}"
        raise ProblemError(ProblemType.NO_PREDICTION, detail, headers=service.retry_after())
    age = answer.age(now)
    if age > service.most_age:
        detail = f"{symbol}: {service.why_stale(answer, age)}"
        members = {"feature_age_seconds": age}
        retry = service.retry_after()
        raise ProblemError(ProblemType.STALE_FEATURES, detail, members, retry)
    return answer


def _unknown(symbol: str, served: tuple[str, ...]) -> ProblemError:
    by_folded = {name.casefold(): name for name in served}
    close = [by_folded[name] for name in difflib.get_close_matches(symbol.casefold(), by_folded)]
    hint = f"; close: {', '.join(close)}" if close else ""
    detail = f"{symbol!r} is not served{hint}; served: {', '.join(served)}"
    members = {"close_matches": close, "served_symbols": served}
    return ProblemError(ProblemType.UNKNOWN_SYMBOL, detail, members)
