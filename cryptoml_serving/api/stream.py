"""``GET /predictions/stream``: every new snapshot as a server-sent event."""

from __future__ import annotations

from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Annotated

import orjson
from fastapi import APIRouter, Depends, Request
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event

from cryptoml_serving.api.openapi import problems
from cryptoml_serving.api.problems import ProblemError, ProblemType
from cryptoml_serving.api.service import CurrentService
from cryptoml_serving.runtime.chronicle import Chronicle
from cryptoml_serving.runtime.errors import TooManySubscribersError
from cryptoml_serving.security.roles import Role

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from cryptoml_serving.api.service import Service
    from cryptoml_serving.runtime.announcer import Announcement, Announcer

#: Name of the event of a new snapshot.
EVENT = "snapshot"
#: Seconds of silence after which a comment is sent, so that nothing between closes the connection.
HEARTBEAT_SECONDS = 15.0
#: Milliseconds after which a browser whose stream ended asks again.
_RETRY = 2000
router = APIRouter(tags=["predictions"])


async def current_chronicle(request: Request) -> Chronicle:
    """What the application that got this request remembers."""
    chronicle: Chronicle = request.app.state.chronicle
    return chronicle


CurrentChronicle = Annotated[Chronicle, Depends(current_chronicle)]


@router.head("/predictions/stream", include_in_schema=False)
@router.get(
    "/predictions/stream",
    # Not the answer's own class: with that, FastAPI would frame the events itself, each anew.
    response_class=StreamingResponse,
    responses={
        200: {
            "description": f"Events named {EVENT}; the data of each is a JSON object with the "
            "model's name and version, snapshot_timestamp, predictions as POST /predict answers "
            "them, and missing: symbols without one, and why",
            "content": {"text/event-stream": {}},
        },
        **problems(503),
    },
    summary="Stream every new snapshot",
)
async def stream(
    request: Request, service: CurrentService, chronicle: CurrentChronicle
) -> EventSourceResponse:
    """The newest snapshot of the champion at once, then each new one as it is made.

    A reader that is slower than the snapshots come gets the newest and misses those between. The
    stream ends with the service, and before the first event or comment for which the caller's key
    or token is no longer good; `EventSource` asks again by itself. One caller may have 16 at once.
    """
    # Those who cannot be told apart share the places of all.
    caller = "" if service.guard.open else request.state.caller
    try:
        chronicle.announcer.require_room(caller)
    except TooManySubscribersError as error:
        headers = service.retry_after()
        raise ProblemError(ProblemType.OVERLOADED, str(error), headers=headers) from error
    if request.method == "HEAD":
        return EventSourceResponse(())
    headers, client = request.scope["headers"], request.client
    return EventSourceResponse(
        _events(
            service,
            chronicle.announcer,
            caller,
            lambda: service.guard.still_admits(headers, Role.PREDICT, client),
        )
    )


async def _events(
    service: Service, announcer: Announcer, caller: str, admitted: Callable[[], bool]
) -> AsyncIterator[bytes]:
    yield format_sse_event(retry=_RETRY)
    # One that took the last place since the answer began ends this stream, and it asks again.
    with suppress(TooManySubscribersError):
        async with aclosing(announcer.subscribe(HEARTBEAT_SECONDS, caller)) as told:
            async for announcement in told:
                if not admitted():
                    return
                if announcement is None:
                    yield KEEPALIVE_COMMENT
                else:
                    yield encoded(announcement, service)


def encoded(announcement: Announcement, service: Service) -> bytes:
    """The event of a snapshot as it is sent now: ages, and what is too old, are as of now."""
    snapshot, now = announcement.snapshot, service.now()
    record = snapshot.model.record
    predictions, missing = [], dict(snapshot.missing)
    for symbol, answer in snapshot.answers.items():
        age = answer.age(now)
        if age > service.most_age:
            missing[symbol] = service.why_stale(answer, age)
        else:
            predictions.append(orjson.Fragment(answer.body(age)))
    data = {
        "model_name": record.model_name,
        "model_version": record.model_version,
        "snapshot_timestamp": snapshot.computed_at,
        "predictions": predictions,
        "missing": missing,
    }
    text = orjson.dumps(data, option=orjson.OPT_UTC_Z).decode()
    return format_sse_event(data_str=text, event=EVENT, id=str(announcement.number))
