"""Looks at a service until all is well or time is up, then goes on asking for a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import cycle

from cryptoml_assets.operations.smoke.budget import Prometheus, Tally
from cryptoml_assets.operations.smoke.checks import (
    STRANGE_SYMBOL,
    Check,
    Look,
    Wanted,
    judge,
    read_answer,
    served_symbols,
)
from cryptoml_assets.operations.smoke.service import Service

#: Time between two looks, and between two requests of the watch, seconds.
LOOK_SECONDS, ASK_SECONDS = 2.0, 0.5


@dataclass(frozen=True)
class Watch:
    """How long to go on asking, and what may fail meanwhile.

    Attributes:
        lasts: no time: the checks are all.
        budget: largest share of requests that may fail, 0 to 1.
        prometheus: where the requests of all callers are counted; none: only its own count.
    """

    lasts: timedelta
    budget: float
    prometheus: Prometheus | None = None


def smoke(service: Service, wanted: Wanted, *, wait: timedelta, watch: Watch) -> tuple[Check, ...]:
    """Every check of a deployed service; it is well where all of them are.

    Args:
        service: whom to ask.
        wanted: what is expected of it.
        wait: how long to look again while something is not well.
        watch: what follows once all is well.

    Raises:
        SettingsError: the Prometheus of ``watch`` does not answer.
    """
    checks = _look_until(lambda: judge(look(service, wanted), wanted), wait.total_seconds())
    if not watch.lasts or not all(each.well for each in checks):
        return checks
    symbols = wanted.symbols or served_symbols(service.predict(STRANGE_SYMBOL))
    return (*checks, *_watched(service, symbols, watch))


def look(service: Service, wanted: Wanted) -> Look:
    """Ask everything once."""
    strange = service.predict(STRANGE_SYMBOL)
    return Look(
        health=service.get("/health"),
        ready=service.get("/ready"),
        described=service.get("/openapi.json"),
        strange=strange,
        unknown_caller=(
            service.predict(STRANGE_SYMBOL, as_stranger=True) if service.credential.given else None
        ),
        predictions={
            symbol: service.predict(symbol) for symbol in wanted.symbols or served_symbols(strange)
        },
    )


def _look_until(judged: Callable[[], tuple[Check, ...]], seconds: float) -> tuple[Check, ...]:
    deadline = time.monotonic() + seconds
    while True:
        checks = judged()
        if all(each.well for each in checks) or time.monotonic() + LOOK_SECONDS > deadline:
            return checks
        time.sleep(LOOK_SECONDS)


def _watched(service: Service, symbols: Sequence[str], watch: Watch) -> Iterable[Check]:
    """Ask for one symbol after the other; stops early once the budget is spent for good."""
    seconds, began, tally = watch.lasts.total_seconds(), time.monotonic(), Tally()
    planned = int(seconds / ASK_SECONDS)
    for symbol in cycle(symbols):
        reply = service.predict(symbol)
        answer = read_answer(symbol, reply)
        tally.add(answer if isinstance(answer, str) else None, reply.seconds)
        if tally.spent(watch.budget, planned) or time.monotonic() - began >= seconds:
            break
        time.sleep(ASK_SECONDS)
    yield tally.check(watch.budget)
    if watch.prometheus is not None:
        yield watch.prometheus.check(watch.budget, time.monotonic() - began)
