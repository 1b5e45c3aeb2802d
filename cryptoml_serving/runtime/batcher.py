"""Rows that callers send, predicted many at a time by programs compiled beforehand.

Nothing waits for company. What has come in one turn of the event loop goes through the model
together at the turn's end, and meanwhile the next rows gather: the busier the service, the larger
its batches. Where a batch takes less time than handing it to a thread and back, it runs on the loop
itself. A longer one, and any on a GPU, is for a thread, so that other requests go on.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING

import numpy as np
from prometheus_client import Counter, Gauge, Histogram

from cryptoml_serving.runtime.errors import DeadlineError, NotServedError, OverloadedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from cryptoml_serving.runtime.registry import ApprovedModel
    from cryptoml_serving.runtime.state import State
    from cryptoml_serving.settings import ServingSettings
    from cryptoml_serving.telemetry import Metrics

#: Longest time that a batch may keep the event loop from everything else.
_INLINE_SECONDS = 1e-3
_STOP_SECONDS = 5.0
#: Characters told of a version that somebody asked for.
_TOLD = 64
_LATENCY_BUCKETS = (100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 1.0)
_ROW_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


@dataclass(frozen=True, slots=True)
class Batch:
    """The answer to the rows of one request.

    Attributes:
        model: what predicted all of them.
        outputs: each output of the model by name, shape (n,), in the order of the rows.
    """

    model: ApprovedModel
    outputs: Mapping[str, NDArray[np.float32]]


@dataclass(slots=True)
class _Waiting:
    """The rows of one request, until they are answered.

    Attributes:
        model: to predict them.
        rows: shape (n, k).
        deadline: instant of ``time.monotonic``.
        answer: gets an array of shape (outputs, n).
        timer: ends the wait at the deadline, where there is one.
    """

    model: ApprovedModel
    rows: NDArray[np.float32]
    deadline: float
    answer: asyncio.Future[NDArray[np.float32]]
    timer: asyncio.TimerHandle | None = None


@dataclass(frozen=True, slots=True)
class _Job:
    """A batch for the thread."""

    loop: asyncio.AbstractEventLoop
    batch: Sequence[_Waiting]


class Batcher:
    """Predicts explicit rows; those that wait at one moment go through the model together.

    All but the thread's own function runs on the event loop, so nothing needs a lock.
    """

    def __init__(self, state: State, settings: ServingSettings, metrics: Metrics) -> None:
        """Touch nothing yet; ``start`` begins.

        Args:
            state: says which models there are.
            settings: sizes and limits.
            metrics: gets the batcher's own.
        """
        self._state = state
        self._most_waiting = settings.serving_batch_queue
        self._most_rows = max(settings.serving_batch_sizes)
        self._waiting: deque[_Waiting] = deque()
        self._waiting_rows = 0
        self._due = False
        self._running: Sequence[_Waiting] = ()
        self._stopping = False
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)
        self._count(metrics)

    def _count(self, metrics: Metrics) -> None:
        self._rows_counter = Counter(
            "explicit_rows_total",
            "Rows sent by callers that were predicted, by the version that did",
            ["model_version", "role"],
            registry=metrics.registry,
        )
        self._batches = Histogram(
            "batch_rows",
            "Rows that went through a model together",
            buckets=_ROW_BUCKETS,
            registry=metrics.registry,
        )
        self._latency = Histogram(
            "explicit_latency_seconds",
            "Time from the parsed rows of a request to their answer",
            buckets=_LATENCY_BUCKETS,
            registry=metrics.registry,
        )
        waiting = Gauge(
            "batch_waiting_rows", "Rows that wait to be predicted", registry=metrics.registry
        )
        waiting.set_function(lambda: self._waiting_rows)

    def start(self) -> None:
        """Start the thread for long batches."""
        self._thread.start()

    def stop(self) -> None:
        """Predict what waits, and refuse what comes after; to be called on the event loop."""
        self._stopping = True
        self._jobs.put(None)
        self._thread.join(_STOP_SECONDS)
        while batch := self._next_batch():
            self._deliver(batch, _predicted(batch))

    def model(self, version: str | None = None) -> ApprovedModel:
        """The model of this version, or the champion.

        Raises:
            NotServedError: no such version is loaded, or no champion is.
        """
        if version is None:
            if (model := self._state.champion) is None:
                raise NotServedError(self._state.not_ready)
            return model
        models = self._state.models
        if (model := models.get(version)) is None:
            served = ", ".join(models) or "none yet"
            told = version if len(version) <= _TOLD else f"{version[:_TOLD]}..."
            message = f"version {told!r} is not served; served: {served}"
            raise NotServedError(message)
        return model

    async def predict(
        self,
        rows: NDArray[np.float32],
        *,
        deadline: float,
        version: str | None = None,
        model: ApprovedModel | None = None,
    ) -> Batch:
        """Predict rows, together with those of other requests.

        A request is answered by the model it began with, whatever is swapped in meanwhile.

        Args:
            rows: shape (n, k), columns in the order of the model's manifest; NaN is missing.
            deadline: instant of ``time.monotonic`` from which on nobody waits for the answer.
            version: which model; none: the champion.
            model: what ``model(version)`` gave, in place of ``version``. Whoever lays rows out by
                a manifest passes its model on: the champion may be another one by now.

        Raises:
            NotServedError: no such version is loaded, or no champion is.
            DeadlineError: the time was over before there was an answer.
            OverloadedError: too many rows wait, or the service stops.
            BundleError: not a table of the model's columns, or the model failed.
        """
        model = model or self.model(version)
        began = time.monotonic()
        if began >= deadline:
            raise DeadlineError(DeadlineError.summary)
        model.bundle.check(rows)
        full = self._waiting_rows and self._waiting_rows + len(rows) > self._most_waiting
        if full or self._stopping:
            raise OverloadedError(OverloadedError.summary)
        loop = asyncio.get_running_loop()
        waiting = _Waiting(model, rows, deadline, loop.create_future())
        self._add(waiting, loop)
        answers = await waiting.answer
        self._latency.observe(time.monotonic() - began)
        return Batch(model, dict(zip(model.bundle.manifest.outputs, answers, strict=True)))

    def _add(self, waiting: _Waiting, loop: asyncio.AbstractEventLoop) -> None:
        self._waiting.append(waiting)
        self._waiting_rows += len(waiting.rows)
        if self._running:
            # The thread's end sees to the rest, unless that comes too late.
            _set_timer(waiting, loop)
        elif not self._due:
            self._due = True
            loop.call_soon(self._predict_waiting, loop)

    def _predict_waiting(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run what waits, up to a batch that is for the thread."""
        self._due = False
        while not self._running and (batch := self._next_batch()):
            rows = sum(len(each.rows) for each in batch)
            if batch[0].model.bundle.seconds(rows) <= _INLINE_SECONDS:
                self._deliver(batch, _predicted(batch))
                continue
            self._running = batch
            # The thread may take longer than anybody can wait, those behind this batch included.
            for each in (*batch, *self._waiting):
                _set_timer(each, loop)
            self._jobs.put(_Job(loop, batch))

    def _next_batch(self) -> list[_Waiting]:
        """Take the oldest rows that wait, and others for the same model that fit beside them.

        Those nobody waits for any more, or whose time is over, are left out. An empty batch: nobody
        waits.
        """
        now = time.monotonic()
        batch: list[_Waiting] = []
        others: deque[_Waiting] = deque()
        room = self._most_rows
        for each in self._waiting:
            rows = len(each.rows)
            if batch and (each.model is not batch[0].model or rows > room):
                others.append(each)
                continue
            self._waiting_rows -= rows
            if each.answer.done():
                continue
            if now >= each.deadline:
                _expire(each)
                continue
            batch.append(each)
            room -= rows
        self._waiting = others
        return batch

    def _deliver(self, batch: Sequence[_Waiting], answers: NDArray[np.float32] | Exception) -> None:
        at = 0
        for each in batch:
            end = at + len(each.rows)
            if each.timer is not None:
                each.timer.cancel()
            if not each.answer.done():
                if isinstance(answers, Exception):
                    each.answer.set_exception(answers)
                else:
                    each.answer.set_result(answers[:, at:end])
            at = end
        if not isinstance(answers, Exception):
            placed = batch[0].model.placement
            self._rows_counter.labels(placed.model_version, placed.role).inc(at)
            self._batches.observe(at)

    def _finished(self, job: _Job, answers: NDArray[np.float32] | Exception) -> None:
        """Take what the thread made, and go on."""
        self._running = ()
        self._deliver(job.batch, answers)
        self._predict_waiting(job.loop)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.loop.call_soon_threadsafe(self._finished, job, _predicted(job.batch))


def _predicted(batch: Sequence[_Waiting]) -> NDArray[np.float32] | Exception:
    """The answers to a batch, shape (outputs, rows), or why there are none."""
    try:
        rows = batch[0].rows
        if len(batch) > 1:
            rows = np.concatenate([each.rows for each in batch])
        return batch[0].model.bundle.answer(rows)
    except Exception as error:  # noqa: BLE001 - raised again in each request that waits for it
        return error


def _set_timer(waiting: _Waiting, loop: asyncio.AbstractEventLoop) -> None:
    if waiting.timer is None:
        left = waiting.deadline - time.monotonic()
        waiting.timer = loop.call_later(left, _expire, waiting)


def _expire(waiting: _Waiting) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(DeadlineError(DeadlineError.summary))
