"""Retries: bounded, on named errors only, never sooner than the other side asked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from cryptoml_assets.errors import WorldUnreachableError
from cryptoml_assets.retry import LONGEST_WAIT, await_with_retries, call_with_retries

WHAT = "GET http://venue: raw_prices 2024-01-01 BTC/USDT"


class BusyError(Exception):
    def __init__(self, retry_after: float | None = None) -> None:
        super().__init__("busy")
        self.retry_after = retry_after


class Call:
    """Fails with each of ``errors`` in turn, then answers; records how long it was waited for."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.waits: list[float] = []
        self.calls = 0

    def answer(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


def run_blocking(call: Call, delays: tuple[float, ...] = (1, 2, 4)) -> str:
    return call_with_retries(
        call.answer,
        transient=(BusyError, TimeoutError),
        delays=delays,
        what=WHAT,
        sleep=call.waits.append,
    )


def run_async(call: Call, delays: tuple[float, ...] = (1, 2, 4)) -> str:
    async def answer() -> str:
        return call.answer()

    async def sleep(seconds: float) -> None:
        call.waits.append(seconds)

    return asyncio.run(
        await_with_retries(
            answer, transient=(BusyError, TimeoutError), delays=delays, what=WHAT, sleep=sleep
        )
    )


pytestmark = pytest.mark.parametrize("run", [run_blocking, run_async])
Run = Callable[..., str]


def test_an_answer_needs_no_wait(run: Run) -> None:
    call = Call()
    assert run(call) == "answer"
    assert (call.calls, call.waits) == (1, [])


def test_named_errors_are_tried_again_after_each_delay(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    call = Call(BusyError(), TimeoutError(), BusyError())
    with caplog.at_level(logging.WARNING):
        assert run(call) == "answer"
    assert call.waits == [1, 2, 4]
    assert [WHAT in record.getMessage() for record in caplog.records] == [True] * 3


def test_the_last_failure_names_the_work_and_its_cause(run: Run) -> None:
    call = Call(*(BusyError() for _ in range(9)))
    with pytest.raises(WorldUnreachableError, match="still failing after 4 attempts") as caught:
        run(call)
    assert WHAT in str(caught.value)
    assert isinstance(caught.value.__cause__, BusyError)
    assert (call.calls, call.waits) == (4, [1, 2, 4])


def test_other_errors_are_not_tried_again(run: Run) -> None:
    call = Call(ValueError("bad symbol"))
    with pytest.raises(ValueError, match="bad symbol"):
        run(call)
    assert (call.calls, call.waits) == (1, [])


def test_the_wait_is_at_least_what_the_other_side_asked_for(run: Run) -> None:
    call = Call(BusyError(7), BusyError(0.5), BusyError(None))
    assert run(call) == "answer"
    assert call.waits == [7, 2, 4]


def test_a_wait_that_is_too_long_gives_up_at_once(run: Run) -> None:
    call = Call(BusyError(LONGEST_WAIT + 1))
    with pytest.raises(WorldUnreachableError, match="asked to wait 61 s, longer than 60 s"):
        run(call)
    assert (call.calls, call.waits) == (1, [])


def test_without_delays_there_is_one_attempt(run: Run) -> None:
    call = Call(BusyError())
    with pytest.raises(WorldUnreachableError, match="after 1 attempts"):
        run(call, delays=())
