"""Rows of many requests at once: who goes with whom, who waits, and who is refused."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cryptoml_serving.contract.manifest import BundleError
from cryptoml_serving.runtime import batcher
from cryptoml_serving.runtime.batcher import Batch, Batcher
from cryptoml_serving.runtime.errors import DeadlineError, NotServedError, OverloadedError
from cryptoml_serving.runtime.state import State
from cryptoml_serving.settings import ServingSettings
from cryptoml_serving.telemetry import Metrics

COLUMNS = 3


class Adding:
    """A bundle that answers the sum of a row and something of its own.

    Attributes:
        batches: rows of each batch, and the thread that ran it.
        gate: batches wait for it.
    """

    manifest = SimpleNamespace(outputs=("expected_return", "lower"))

    def __init__(self, more: float, seconds: float) -> None:
        self.more = more
        self.takes = seconds
        self.batches: list[tuple[int, str]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.error: Exception | None = None

    def seconds(self, _rows: int) -> float:
        return self.takes

    def check(self, rows: NDArray[np.float32]) -> None:
        if rows.shape[1:] != (COLUMNS,):
            message = "other columns"
            raise BundleError(message)

    def answer(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        self.batches.append((len(rows), threading.current_thread().name))
        assert self.gate.wait(10)
        if self.error is not None:
            raise self.error
        total = rows.sum(axis=1) + np.float32(self.more)
        return np.stack([total, total - 1])


def model(version: str, *, more: float = 0.0, seconds: float = 0.0) -> Any:
    placement = SimpleNamespace(model_version=version, role="champion")
    return SimpleNamespace(placement=placement, bundle=Adding(more, seconds))


def rows(count: int, start: float = 0.0) -> NDArray[np.float32]:
    return (np.arange(count * COLUMNS, dtype=np.float32) + np.float32(start)).reshape(-1, COLUMNS)


class Made:
    """A batcher and what it works with."""

    def __init__(self, *models: Any, **settings: Any) -> None:
        self.state = State()
        self.state.champion = models[0] if models else None
        self.state.models = MappingProxyType({m.placement.model_version: m for m in models})
        self.metrics = Metrics("m")
        self.batcher = Batcher(self.state, ServingSettings(**settings), self.metrics)

    def ask(
        self, given: NDArray[np.float32], seconds: float = 10.0, **which: Any
    ) -> Coroutine[Any, Any, Batch]:
        return self.batcher.predict(given, deadline=time.monotonic() + seconds, **which)

    def waiting(self) -> float | None:
        return self.metrics.registry.get_sample_value("batch_waiting_rows")

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        async def bounded() -> Any:
            self.batcher.start()
            try:
                return await asyncio.wait_for(coroutine, 10)
            finally:
                self.batcher.stop()

        return asyncio.run(bounded())


def expected(given: NDArray[np.float32], more: float = 0.0) -> NDArray[np.float32]:
    total: NDArray[np.float32] = given.sum(axis=1) + np.float32(more)
    return total


def test_what_comes_at_once_goes_together_and_each_gets_its_own() -> None:
    one = model("1")
    made = Made(one)
    given = [rows(count, 100 * count) for count in (1, 3, 2, 1)]

    async def all_at_once() -> list[Batch]:
        return await asyncio.gather(*(made.ask(each) for each in given))

    answers = made.run(all_at_once())
    assert one.bundle.batches == [(7, "MainThread")]
    for sent, batch in zip(given, answers, strict=True):
        assert batch.model is one
        assert np.array_equal(batch.outputs["expected_return"], expected(sent))
        assert np.array_equal(batch.outputs["lower"], expected(sent) - 1)
    value = made.metrics.registry.get_sample_value
    assert value("explicit_rows_total", {"model_version": "1", "role": "champion"}) == 7
    assert value("batch_rows_sum") == 7
    assert value("explicit_latency_seconds_count") == 4
    assert made.waiting() == 0


def test_a_batch_holds_no_more_than_the_largest_program() -> None:
    one = model("1")
    made = Made(one, serving_batch_sizes=(1, 8))

    async def all_at_once() -> list[Batch]:
        return await asyncio.gather(*(made.ask(rows(count)) for count in (5, 5, 3, 20, 1)))

    answers = made.run(all_at_once())
    assert [count for count, _ in one.bundle.batches] == [8, 6, 20]
    assert [len(each.outputs["lower"]) for each in answers] == [5, 5, 3, 20, 1]


def test_each_model_predicts_its_own_and_the_answer_says_which() -> None:
    one, two = model("1"), model("2", more=1000.0)
    made = Made(one, two)
    given = rows(1)

    async def mixed() -> list[Batch]:
        versions = (None, "2", "1", "2")
        return await asyncio.gather(*(made.ask(given, version=each) for each in versions))

    answers = made.run(mixed())
    assert [each.model.placement.model_version for each in answers] == ["1", "2", "1", "2"]
    for each in answers:
        more = 1000.0 if each.model is two else 0.0
        assert np.array_equal(each.outputs["expected_return"], expected(given, more))
    assert [len(each.bundle.batches) for each in (one, two)] == [1, 1]


def test_a_request_ends_on_the_model_it_began_with() -> None:
    one, two = model("1"), model("2", more=1000.0)
    made = Made(one)

    async def swapped() -> Batch:
        asked = asyncio.ensure_future(made.ask(rows(2)))
        await asyncio.sleep(0)
        made.state.champion, made.state.models = two, MappingProxyType({"2": two})
        return await asked

    batch = made.run(swapped())
    assert batch.model is one
    assert np.array_equal(batch.outputs["expected_return"], expected(rows(2)))


def test_a_model_laid_out_for_is_the_one_that_predicts() -> None:
    one, two = model("1"), model("2")
    made = Made(two)
    assert made.run(made.ask(rows(1), model=one)).model is one


def test_a_long_batch_leaves_the_loop_to_others_and_the_next_rows_gather() -> None:
    one = model("1", seconds=1.0)
    made = Made(one)

    async def busy() -> tuple[int, list[Batch]]:
        one.bundle.gate.clear()
        first = asyncio.ensure_future(made.ask(rows(4)))
        turns = 0
        while not one.bundle.batches:
            await asyncio.sleep(0.001)
            turns += 1
        others = [asyncio.ensure_future(made.ask(rows(2))) for _ in range(3)]
        await asyncio.sleep(0.02)
        assert made.waiting() == 6
        one.bundle.gate.set()
        return turns, await asyncio.gather(first, *others)

    turns, answers = made.run(busy())
    assert turns > 0
    assert one.bundle.batches == [(4, "batcher"), (6, "batcher")]
    assert [len(each.outputs["lower"]) for each in answers] == [4, 2, 2, 2]


def test_a_deadline_that_is_over_costs_no_prediction() -> None:
    one = model("1")
    made = Made(one)
    with pytest.raises(DeadlineError):
        made.run(made.ask(rows(1), seconds=0.0))
    assert one.bundle.batches == []


def test_rows_whose_time_ran_out_before_their_turn_are_not_predicted() -> None:
    one = model("1")
    made = Made(one)

    async def held_up() -> list[Any]:
        late = asyncio.ensure_future(made.ask(rows(1), seconds=0.02))
        patient = asyncio.ensure_future(made.ask(rows(2)))
        await asyncio.sleep(0)
        # Something else keeps the loop.
        time.sleep(0.05)  # noqa: ASYNC251
        return [*await asyncio.gather(late, patient, return_exceptions=True)]

    late, patient = made.run(held_up())
    assert isinstance(late, DeadlineError)
    assert len(patient.outputs["lower"]) == 2
    assert one.bundle.batches == [(2, "MainThread")]


def test_nobody_waits_past_the_deadline_for_a_model_that_takes_long() -> None:
    one = model("1", seconds=1.0)
    made = Made(one)

    async def slow() -> list[Any]:
        one.bundle.gate.clear()
        running = asyncio.ensure_future(made.ask(rows(1), seconds=0.05))
        await asyncio.sleep(0.02)
        behind = asyncio.ensure_future(made.ask(rows(2), seconds=0.05))
        patient = asyncio.ensure_future(made.ask(rows(3)))
        late = await asyncio.gather(running, behind, return_exceptions=True)
        one.bundle.gate.set()
        return [*late, await patient]

    running, behind, patient = made.run(slow())
    assert isinstance(running, DeadlineError)
    assert isinstance(behind, DeadlineError)
    assert len(patient.outputs["lower"]) == 3
    # What nobody waited for any more was not predicted.
    assert [count for count, _ in one.bundle.batches] == [1, 3]
    assert made.waiting() == 0


@pytest.mark.parametrize(
    ("count", "version"), [(1, "2"), (8, "1")], ids=["another model", "too many for one batch"]
)
def test_nobody_waits_past_the_deadline_behind_what_came_in_the_same_turn(
    count: int, version: str
) -> None:
    one, two = model("1", seconds=1.0), model("2", seconds=1.0)
    made = Made(one, two, serving_batch_sizes=(1, 8))

    async def slow() -> Any:
        one.bundle.gate.clear()
        running = asyncio.ensure_future(made.ask(rows(1)))
        behind = asyncio.ensure_future(made.ask(rows(count), seconds=0.05, version=version))
        try:
            done, _ = await asyncio.wait([behind], timeout=2)
        finally:
            one.bundle.gate.set()
        await asyncio.gather(running, behind, return_exceptions=True)
        return behind.exception() if behind in done else "it went on waiting"

    assert isinstance(made.run(slow()), DeadlineError)
    assert one.bundle.batches == [(1, "batcher")]
    assert two.bundle.batches == []


def test_rows_past_the_queue_are_refused_and_later_ones_are_not() -> None:
    one = model("1", seconds=1.0)
    made = Made(one, serving_batch_queue=4)

    async def full() -> None:
        one.bundle.gate.clear()
        first = asyncio.ensure_future(made.ask(rows(9)))
        await asyncio.sleep(0.02)
        second = asyncio.ensure_future(made.ask(rows(3)))
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError) as refused:
            await made.ask(rows(2))
        assert refused.value.retry_after > 0
        one.bundle.gate.set()
        await asyncio.gather(first, second)
        await made.ask(rows(2))

    made.run(full())


@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_a_model_that_fails_fails_its_own_requests_and_nothing_after(seconds: float) -> None:
    one, two = model("1", seconds=seconds), model("2", seconds=seconds)
    made = Made(one, two)
    one.bundle.error = BundleError("broken")

    async def failing() -> list[Any]:
        asked = [made.ask(rows(1), version=each) for each in ("1", "2", "1")]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        one.bundle.error = None
        return [*answers, await made.ask(rows(1))]

    first, second, third, later = made.run(failing())
    assert isinstance(first, BundleError)
    assert isinstance(third, BundleError)
    assert second.model is two
    assert later.model is one


def test_a_caller_who_left_costs_the_others_nothing() -> None:
    one = model("1")
    made = Made(one)

    async def left() -> Batch:
        gone = asyncio.ensure_future(made.ask(rows(3)))
        stays = asyncio.ensure_future(made.ask(rows(2, 50)))
        await asyncio.sleep(0)
        gone.cancel()
        return await stays

    batch = made.run(left())
    assert np.array_equal(batch.outputs["expected_return"], expected(rows(2, 50)))
    assert one.bundle.batches == [(2, "MainThread")]


def test_rows_of_another_shape_are_refused_alone() -> None:
    made = Made(model("1"))

    async def mixed() -> list[Any]:
        wrong = made.ask(np.zeros((1, COLUMNS + 1), np.float32))
        return [*await asyncio.gather(made.ask(rows(1)), wrong, return_exceptions=True)]

    right, wrong = made.run(mixed())
    assert len(right.outputs["lower"]) == 1
    assert isinstance(wrong, BundleError)


def test_stopping_answers_what_waits_and_refuses_the_rest() -> None:
    one = model("1", seconds=1.0)
    made = Made(one)

    async def stopped() -> list[Batch]:
        made.batcher.start()
        asked = [asyncio.ensure_future(made.ask(rows(count))) for count in (1, 2)]
        await asyncio.sleep(0.02)
        asked.append(asyncio.ensure_future(made.ask(rows(3))))
        await asyncio.sleep(0)
        made.batcher.stop()
        with pytest.raises(OverloadedError):
            await made.ask(rows(1))
        return await asyncio.wait_for(asyncio.gather(*asked), 5)

    answers = asyncio.run(stopped())
    assert [len(each.outputs["lower"]) for each in answers] == [1, 2, 3]
    assert not made.batcher._thread.is_alive()


@pytest.mark.parametrize("gone", ["expired", "left", "out of time"])
def test_stopping_with_nobody_left_to_answer(gone: str) -> None:
    one = model("1", seconds=1.0)
    made = Made(one)

    async def stopped() -> list[Any]:
        made.batcher.start()
        one.bundle.gate.clear()
        first = asyncio.ensure_future(made.ask(rows(1)))
        await asyncio.sleep(0.02)
        late = asyncio.ensure_future(made.ask(rows(1), seconds=0.02))
        await asyncio.sleep(0)
        if gone == "left":
            late.cancel()
        elif gone == "expired":
            await asyncio.sleep(0.05)
        else:
            # The loop is kept, so that its timer comes too late.
            time.sleep(0.05)  # noqa: ASYNC251
        one.bundle.gate.set()
        made.batcher.stop()
        both = asyncio.gather(first, late, return_exceptions=True)
        return [*await asyncio.wait_for(both, 5)]

    first, late = asyncio.run(stopped())
    assert len(first.outputs["lower"]) == 1
    assert isinstance(late, asyncio.CancelledError if gone == "left" else DeadlineError)
    assert one.bundle.batches == [(1, "batcher")]
    assert made.waiting() == 0


@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_rows_that_cannot_be_put_together_fail_alone(
    seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Made(model("1", seconds=seconds))

    def full(_: Any) -> Any:
        raise MemoryError

    async def failing() -> list[Any]:
        with monkeypatch.context() as patched:
            patched.setattr(batcher, "np", SimpleNamespace(concatenate=full))
            asked = [asyncio.ensure_future(made.ask(rows(1))) for _ in range(2)]
            done, _ = await asyncio.wait(asked, timeout=2)
        failed = [each.exception() if each in done else None for each in asked]
        return [*failed, await made.ask(rows(1))]

    first, second, later = made.run(failing())
    assert isinstance(first, MemoryError)
    assert isinstance(second, MemoryError)
    assert len(later.outputs["lower"]) == 1


def test_versions_that_are_not_there() -> None:
    made = Made(model("3"), model("5"))
    with pytest.raises(NotServedError, match=r"'4' is not served; served: 3, 5"):
        made.run(made.ask(rows(1), version="4"))
    with pytest.raises(NotServedError) as refused:
        made.batcher.model("x" * 5000)
    assert len(str(refused.value)) < 200
    empty = Made()
    with pytest.raises(NotServedError, match="being loaded"):
        empty.run(empty.ask(rows(1)))
