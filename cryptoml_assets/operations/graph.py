"""Runs the platform's own jobs in this process, recorded in the Dagster instance the UI shows."""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import dagster as dg

from cryptoml_assets.days import days_between
from cryptoml_assets.errors import CryptomlError
from cryptoml_assets.features.catalog import TTL
from cryptoml_assets.features.feature import TABLES
from cryptoml_assets.features.pins import of_other_formulas
from cryptoml_assets.production.instance import write_instance
from cryptoml_assets.settings import Settings, settings

_POLL_SECONDS = 0.3
_STEP_ENDS = {
    dg.DagsterEventType.STEP_SUCCESS: "done",
    dg.DagsterEventType.STEP_FAILURE: "FAILED",
}

Report = Callable[[str], None]


class RunFailedError(CryptomlError):
    """A run ended in failure; the message names the step, the cause and the run."""


def keep_log(file: Path) -> None:
    """Send the libraries' log lines and warnings of this process to ``file``, not the terminal."""
    os.environ.setdefault("MLFLOW_CONFIGURE_LOGGING", "false")
    logging.captureWarnings(capture=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(file, mode="w", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)


def prepare_dagster_home(home: Path) -> Path:
    """Make ``<home>/dagster`` the Dagster home of this process and its children.

    Returns:
        The folder, holding the ``dagster.yaml`` of the settings.
    """
    folder = home / "dagster"
    write_instance(settings(), folder)
    os.environ["DAGSTER_HOME"] = str(folder)
    return folder


def days_to_repeat(configured: Settings, now: datetime) -> tuple[date, ...]:
    """Days a model would be trained on whose features were computed by other formulas."""
    days = days_between((now - configured.training_window - TTL).date(), now.date())
    with dg.DagsterInstance.get() as instance:
        return tuple(day for table in TABLES for day in of_other_formulas(instance, table, days))


def run_job(
    name: str, report: Report, *, days: tuple[date, date] | None = None
) -> dg.ExecuteInProcessResult:
    """Run one of our jobs to its end; ``days`` is an inclusive range of partitions in one run.

    Raises:
        RunFailedError: naming the failed step and its cause.
    """
    from cryptoml_assets.definitions import defs  # noqa: PLC0415  (reads settings when imported)

    job = defs.resolve_job_def(name)
    tags = {}
    if days is not None:
        tags = {
            "dagster/asset_partition_range_start": days[0].isoformat(),
            "dagster/asset_partition_range_end": days[1].isoformat(),
        }
    run_id = str(uuid.uuid4())
    with dg.DagsterInstance.get() as instance, _Progress(instance, run_id, report):
        result = job.execute_in_process(
            instance=instance,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            tags=tags,
            run_id=run_id,
            raise_on_error=False,
        )
    if not result.success:
        raise RunFailedError(run_failure(result))
    return result


class _Progress:
    """Reports each step of a run as it starts and ends, from a thread beside it."""

    def __init__(self, instance: dg.DagsterInstance, run_id: str, report: Report) -> None:
        self._instance = instance
        self._run_id = run_id
        self._report = report
        self._started: dict[str, float] = {}
        self._cursor: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="progress", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._poll()

    def _loop(self) -> None:
        while not self._stop.wait(_POLL_SECONDS):
            self._poll()

    def _poll(self) -> None:
        unread = True
        while unread:
            page = self._instance.get_records_for_run(self._run_id, cursor=self._cursor)
            for record in page.records:
                self._tell(record.event_log_entry)
            self._cursor, unread = page.cursor, page.has_more

    def _tell(self, entry: dg.EventLogEntry) -> None:
        event = entry.dagster_event
        if event is None:
            if int(entry.level) >= logging.INFO:
                self._report(f"  {entry.user_message}")
            return
        step = event.step_key or ""
        if event.event_type is dg.DagsterEventType.STEP_START:
            self._started[step] = entry.timestamp
            self._report(f"{step} ...")
        elif event.event_type in _STEP_ENDS:
            seconds = entry.timestamp - self._started.get(step, entry.timestamp)
            self._report(f"{step} {_STEP_ENDS[event.event_type]} in {seconds:.1f} s")


def run_failure(result: dg.ExecuteInProcessResult) -> str:
    """The failed step of a run, its cause and the run, in words."""
    for event in result.all_events:
        if event.event_type is dg.DagsterEventType.STEP_FAILURE:
            error = event.step_failure_data.error
            while error is not None and error.cause is not None:
                error = error.cause
            cause = error.message.strip() if error is not None else "no cause recorded"
            return f"{event.step_key} failed: {cause} (run {result.run_id})"
    return f"run {result.run_id} failed before its first step"
