"""What must hold of a deployed service, judged from what it answered. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Self, TypeVar
from uuid import UUID

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    model_validator,
)

from cryptoml_assets.operations.smoke.service import Reply

#: A symbol that nobody lists: asked for to hear which are served, and whether errors are errors.
STRANGE_SYMBOL = "SMOKE/TEST"
_OK, _UNAUTHORIZED, _NOT_FOUND = 200, 401, 404
_CONFIDENCE_TOLERANCE = 1e-9
_Model = TypeVar("_Model", bound=BaseModel)


class Challenger(BaseModel):
    """A version that predicts beside the champion."""

    model_config = ConfigDict(protected_namespaces=())

    model_version: str
    role: str


class Readiness(BaseModel):
    """What ``/ready`` tells somebody with a credential."""

    model_config = ConfigDict(protected_namespaces=())

    model_name: str
    model_version: str
    approved_by: str
    challengers: tuple[Challenger, ...]
    problems: dict[str, str]


class Answer(BaseModel):
    """A prediction as answered; fields that a newer service adds are none of ours."""

    model_config = ConfigDict(protected_namespaces=())

    symbol: str
    prediction: FiniteFloat
    lower: FiniteFloat
    upper: FiniteFloat
    probability_up: float = Field(ge=0, le=1)
    confidence: float = Field(ge=0, le=1)
    horizon_seconds: int = Field(gt=0)
    model_name: str = Field(min_length=1)
    model_version: str = Field(min_length=1)
    role: Literal["champion", "canary"]
    prediction_id: UUID
    feature_timestamp: AwareDatetime
    feature_age_seconds: FiniteFloat
    timestamp: AwareDatetime

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        if not self.lower <= self.prediction <= self.upper:
            message = f"prediction {self.prediction} is not in {self.lower} … {self.upper}"
            raise ValueError(message)
        sign = 1 - self.probability_up if self.prediction < 0 else self.probability_up
        if abs(sign - self.confidence) > _CONFIDENCE_TOLERANCE:
            message = f"confidence {self.confidence} is not that of the prediction's sign"
            raise ValueError(message)
        return self


@dataclass(frozen=True)
class Wanted:
    """What the caller of the smoke test expects.

    Attributes:
        symbols: that must be served; empty: those that the service says it serves.
        model_version: of the champion; empty: any.
        release: version of the software; empty: any.
        most_age: of the features of an answer, seconds.
    """

    symbols: tuple[str, ...] = ()
    model_version: str = ""
    release: str = ""
    most_age: float = 1800.0


@dataclass(frozen=True)
class Look:
    """Everything that one look at the service brought.

    Attributes:
        health: of ``GET /health``.
        ready: of ``GET /ready``.
        described: of ``GET /openapi.json``.
        strange: of a prediction of a symbol that nobody serves.
        unknown_caller: of a prediction without the credential; none where there is no credential.
        predictions: of each symbol.
    """

    health: Reply
    ready: Reply
    described: Reply
    strange: Reply
    unknown_caller: Reply | None
    predictions: Mapping[str, Reply] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """One thing that must hold: its name, whether it does, and what was seen."""

    name: str
    well: bool
    seen: str


def served_symbols(strange: Reply) -> tuple[str, ...]:
    """The symbols a service named when it was asked for one it does not serve."""
    body = strange.body if isinstance(strange.body, dict) else {}
    named = body.get("served_symbols")
    if not isinstance(named, list):
        return ()
    return tuple(each for each in named if isinstance(each, str))


def read_answer(symbol: str, reply: Reply) -> Answer | str:
    """The prediction for ``symbol``, or what is wrong with the reply."""
    if reply.status != _OK:
        return reply.told
    answer = _read(Answer, reply)
    if isinstance(answer, Answer) and answer.symbol != symbol:
        return f"answered for {answer.symbol}"
    return answer


def judge(look: Look, wanted: Wanted) -> tuple[Check, ...]:
    """Every check, in the order in which a person would ask."""
    readiness = _read(Readiness, look.ready) if look.ready.status == _OK else look.ready.told
    answers = {symbol: read_answer(symbol, each) for symbol, each in look.predictions.items()}
    whole = {symbol: each for symbol, each in answers.items() if isinstance(each, Answer)}
    return (
        _live(look.health),
        _ready(look.ready, readiness),
        *_callers(look.unknown_caller),
        _errors(look.strange),
        *_symbols(look, wanted),
        *(_prediction(symbol, each) for symbol, each in answers.items()),
        *_versions(readiness, whole, wanted),
        *_release(look.described, wanted),
        *_freshness(whole, wanted),
    )


def _live(health: Reply) -> Check:
    alive = health.status == _OK and health.body == {"status": "alive"}
    return Check("live", alive, "alive" if alive else health.told)


def _ready(reply: Reply, readiness: Readiness | str) -> Check:
    if isinstance(readiness, str):
        shown = reply.status == _OK and reply.body == {"status": "ready"}
        why = "ready, but tells no more: the credential is missing or refused"
        return Check("ready", well=False, seen=why if shown else readiness)
    if readiness.problems:
        told = "; ".join(f"{name}: {why}" for name, why in readiness.problems.items())
        return Check("ready", well=False, seen=f"ready with problems: {told}")
    name, version = readiness.model_name, readiness.model_version
    return Check("ready", well=True, seen=f"{name} {version}, approved by {readiness.approved_by}")


def _callers(unknown: Reply | None) -> Iterator[Check]:
    if unknown is not None:
        refused = unknown.status == _UNAUTHORIZED
        seen = "refused with 401" if refused else f"not refused with 401: {unknown.told}"
        yield Check("unknown caller", refused, seen)


def _errors(strange: Reply) -> Check:
    refused = strange.status == _NOT_FOUND and bool(served_symbols(strange))
    seen = "404, with the symbols served" if refused else f"no 404 with symbols: {strange.told}"
    return Check("unknown symbol", refused, seen)


def _symbols(look: Look, wanted: Wanted) -> Iterator[Check]:
    missing = sorted(set(wanted.symbols) - set(served_symbols(look.strange)))
    if missing:
        served = ", ".join(served_symbols(look.strange)) or "none"
        yield Check(
            "symbols", well=False, seen=f"not served: {', '.join(missing)}; served: {served}"
        )
    elif not look.predictions:
        yield Check("symbols", well=False, seen="no symbol to ask for")


def _prediction(symbol: str, answer: Answer | str) -> Check:
    if isinstance(answer, str):
        return Check(f"predict {symbol}", well=False, seen=answer)
    seen = (
        f"{answer.prediction:+.6f} in {answer.lower:+.6f} … {answer.upper:+.6f} "
        f"by {answer.role} {answer.model_version}"
    )
    return Check(f"predict {symbol}", well=True, seen=seen)


def _versions(
    readiness: Readiness | str, answers: Mapping[str, Answer], wanted: Wanted
) -> Iterator[Check]:
    if isinstance(readiness, str):
        return
    if wanted.model_version:
        agrees = readiness.model_version == wanted.model_version
        seen = f"champion is {readiness.model_version}, wanted {wanted.model_version}"
        yield Check("model version", agrees, seen)
    canaries = {each.model_version for each in readiness.challengers if each.role == "canary"}
    may = {"champion": {readiness.model_version}, "canary": canaries}
    odd = [
        f"{symbol} by {answer.role} {answer.model_version}"
        for symbol, answer in answers.items()
        if answer.model_version not in may[answer.role]
    ]
    if answers:
        seen = "; ".join(odd) if odd else "every answer is of a version that /ready names"
        yield Check("versions", not odd, seen)


def _release(described: Reply, wanted: Wanted) -> Iterator[Check]:
    if not wanted.release:
        return
    body = described.body if isinstance(described.body, dict) else {}
    about = body.get("info")
    version = about.get("version") if isinstance(about, dict) else None
    seen = f"is {version}, wanted {wanted.release}" if version else described.told
    yield Check("release", version == wanted.release, seen)


def _freshness(answers: Mapping[str, Answer], wanted: Wanted) -> Iterator[Check]:
    if not answers:
        return
    oldest = max(answers, key=lambda symbol: answers[symbol].feature_age_seconds)
    youngest = min(answers, key=lambda symbol: answers[symbol].feature_age_seconds)
    age, least = answers[oldest].feature_age_seconds, answers[youngest].feature_age_seconds
    if least < 0:
        seen = f"features of {youngest} are {-least:.0f} s in the future"
        yield Check("freshness", well=False, seen=seen)
        return
    seen = f"oldest features are {age:.0f} s old ({oldest}), at most {wanted.most_age:.0f} s"
    yield Check("freshness", age <= wanted.most_age, seen)


def _read(kind: type[_Model], reply: Reply) -> _Model | str:
    """The reply as a model, or a text that names each field that is not as it should be."""
    try:
        return kind.model_validate(reply.body)
    except ValidationError as error:
        reasons = [
            f"{'.'.join(map(str, each['loc']))}: {each['msg']}".removeprefix(": ")
            for each in error.errors()
        ]
        return f"not understood: {'; '.join(reasons)}"
