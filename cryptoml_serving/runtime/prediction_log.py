"""Every prediction of every snapshot into the lake, once each, and never in a request's way.

::

    snapshot ── offer ──> queue in memory ──> outbox on disk ──> table in the lake
               (never waits)   (one thread)        (another, every few seconds)

A lake that is down, or hangs, only lets the outbox grow, and an outbox that is full the queue. What
finds the queue full is offered again with the next snapshot that has it. What no snapshot has any
more by then is lost; it is counted, once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptoml_serving.contract.served import ServedPrediction
from cryptoml_serving.runtime.outbox import Outbox, OutboxFullError, SegmentError
from cryptoml_serving.runtime.served_table import append_new
from cryptoml_serving.telemetry import event

if TYPE_CHECKING:
    from datetime import timedelta
    from pathlib import Path

    from cryptoml_serving.runtime.snapshot import Snapshot
    from cryptoml_serving.telemetry import Metrics

_LOG = logging.getLogger(__name__)
#: Bytes of the outbox: at some 500 a prediction, of 5 symbols and 3 models about a month.
MOST_BYTES = 64 * 2**20
#: Predictions of one commit at most; a commit takes whole segments.
_BATCH = 20_000
#: Models whose last offers are remembered.
_MODELS = 32
#: Longest wait for the last commit, which has seconds before the server's patience ends.
_STOP_SECONDS = 4.0


@dataclass(frozen=True)
class _Offered:
    """Ids of one snapshot.

    Attributes:
        queued: those the queue took, of this snapshot or one before.
        refused: those it had no room for.
    """

    queued: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()


class PredictionLog:
    """Takes snapshots and brings what is new in them to the lake."""

    def __init__(
        self,
        *,
        lake: str,
        folder: Path,
        queue: int,
        interval: timedelta,
        metrics: Metrics,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        """Touch nothing yet; ``start`` begins.

        Args:
            lake: folder or address of the lake.
            folder: of the outbox; services of one world may share it.
            queue: predictions that may wait in memory.
            interval: least time between two commits.
            metrics: told of what was written, failed and was lost.
            most_bytes: size of the outbox.
        """
        self._lake = lake
        self._outbox = Outbox(folder, most_bytes)
        self._bound = queue
        self._interval = interval.total_seconds()
        self._metrics = metrics
        self._queue: deque[ServedPrediction] = deque()
        #: What became of each bundle's last offer: the same snapshot comes again every few seconds.
        self._offered: OrderedDict[str, _Offered] = OrderedDict()
        self._changed = threading.Condition()
        #: Held by whoever empties the queue, of which one takes what another has not on disk yet.
        self._writing = threading.Lock()
        self._stopping = threading.Event()
        self._failing: dict[str, str] = {}
        self._threads = (
            threading.Thread(target=self._spool_loop, name="prediction-outbox", daemon=True),
            threading.Thread(target=self._commit_loop, name="prediction-commits", daemon=True),
        )

    def start(self) -> None:
        """Begin with what an earlier process left in the outbox."""
        # Counts what is on disk before anybody asks how much waits.
        self.pending()
        for thread in self._threads:
            thread.start()

    def offer(self, snapshot: Snapshot) -> None:
        """Queue what is new in a snapshot of any model; never waits for disk or lake."""
        record = snapshot.model.record
        ids = {str(each.prediction_id): each for each in snapshot.predictions.values()}
        with self._changed:
            before = self._offered.pop(record.bundle_digest, _Offered())
            new = [name for name in ids if name not in before.queued]
            room = max(0, self._bound - len(self._queue))
            self._queue.extend(ServedPrediction.of(ids[name], record) for name in new[:room])
            refused = frozenset(new[room:])
            self._offered[record.bundle_digest] = _Offered(frozenset(ids) - refused, refused)
            self._metrics.log_dropped.inc(len(before.refused.difference(ids)))
            if len(self._offered) > _MODELS:
                _, oldest = self._offered.popitem(last=False)
                self._metrics.log_dropped.inc(len(oldest.refused))
            if new[:room]:
                self._changed.notify_all()
        if refused:
            why = f"the queue holds its {self._bound} predictions"
            self._tell("queue", f"{why}; new ones wait for room, and are lost without", why)

    def pending(self) -> int:
        """Predictions that wait in memory or on disk."""
        return len(self._queue) + self._outbox.rows()

    def flush(self) -> bool:
        """Put on disk what waits in memory; what the disk does not take goes on waiting.

        Returns:
            Whether nothing of what waited is left.
        """
        with self._writing:
            with self._changed:
                waiting = tuple(self._queue)
            try:
                if waiting:
                    self._outbox.add(waiting)
            except (OutboxFullError, OSError) as error:
                self._failed("outbox", error)
                return False
            with self._changed:
                for _ in waiting:
                    self._queue.popleft()
        for part in ("outbox", "queue"):
            self._recovered(part)
        return True

    def commit(self) -> None:
        """Bring the outbox to the lake, oldest first, in as few commits as its size allows."""
        segments = list(self._outbox.segments())
        while segments:
            batch: list[Path] = []
            rows: list[ServedPrediction] = []
            while segments and len(rows) < _BATCH:
                segment = segments.pop(0)
                try:
                    rows.extend(self._outbox.read(segment))
                except SegmentError as error:
                    self._outbox.set_aside(segment)
                    self._failed("segment", error)
                    continue
                batch.append(segment)
            if rows:
                self._metrics.log_written.inc(append_new(self._lake, rows))
            for segment in batch:
                self._outbox.remove(segment)

    def stop(self) -> None:
        """Put everything on disk, then try one last commit for a few seconds."""
        self.flush()
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        deadline = time.monotonic() + _STOP_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        # The last commit may have made room.
        left = 0 if self.flush() else len(self._queue)
        with self._changed:
            left += sum(len(each.refused) for each in self._offered.values())
            self._offered.clear()
        if left:
            why = "queue and outbox do not take them, and the service ends"
            self._metrics.log_dropped.inc(left)
            self._tell("queue", f"{left} predictions are lost to the log: {why}", why)

    def _spool_loop(self) -> None:
        while not self._stopping.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._stopping.is_set())
            if not self.flush():
                self._stopping.wait(self._interval)

    def _commit_loop(self) -> None:
        self._outbox.sweep()
        while True:
            # Before the look, so that what was put on disk before the end is part of the last one.
            last = self._stopping.is_set()
            try:
                self.commit()
            except Exception as error:  # noqa: BLE001 - the thread's end would end the log
                self._failed("lake", error)
            else:
                self._recovered("lake")
            if last:
                return
            self._stopping.wait(self._interval)

    def _failed(self, part: str, error: Exception) -> None:
        self._metrics.log_errors.inc()
        self._tell(part, f"prediction log, {part}: {error}", f"{type(error).__name__}")

    def _tell(self, part: str, message: str, why: str) -> None:
        """Log a failure when it begins or changes, not each time."""
        if self._failing.get(part) != why:
            self._failing[part] = why
            event(_LOG, logging.ERROR, "error", message, error_type="prediction_log", part=part)

    def _recovered(self, part: str) -> None:
        if self._failing.pop(part, None) is not None:
            message = f"prediction log: the {part} takes predictions again"
            event(_LOG, logging.INFO, "recovered", message, part=part)
