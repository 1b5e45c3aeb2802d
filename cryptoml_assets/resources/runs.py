"""What Dagster's instance knows of runs and of materialisations, as plain figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import dagster as dg
from dagster import DagsterEventType, DagsterInstance, DagsterRunStatus

from cryptoml_assets import jobs

#: Statuses that a run keeps, with the word that each goes by outside of Dagster.
FINISHED = {
    DagsterRunStatus.SUCCESS: "success",
    DagsterRunStatus.FAILURE: "failure",
    DagsterRunStatus.CANCELED: "canceled",
}
_JUDGED = (DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE)
#: Job of the runs that automation and people start for single assets.
SINGLE_ASSETS = "__ASSET_JOB"
#: Pipeline of the runs of jobs that are not among those asked for.
OTHER = "other"
#: Most runs that are read at once.
_MOST_RUNS = 1000


@dataclass(frozen=True)
class RunFigures:
    """The runs that ended in a span of time; those a person cancelled do not count.

    Attributes:
        finished: how many succeeded or failed.
        succeeded: how many succeeded.
        mean_seconds: mean time that one took, seconds; none where none finished.
    """

    finished: int
    succeeded: int
    mean_seconds: float | None

    @property
    def success_rate(self) -> float | None:
        """Share that succeeded, 0 to 1; none where none finished."""
        return self.succeeded / self.finished if self.finished else None


def pipelines() -> tuple[str, ...]:
    """The jobs of the code, and that of the runs of single assets."""
    own = (each for each in vars(jobs).values() if isinstance(each, type(jobs.ingest)))
    return (*(job.name for job in own), SINGLE_ASSETS)


def run_figures(instance: DagsterInstance, since: datetime) -> dict[str, RunFigures]:
    """Figures of the runs updated after ``since``, by pipeline, its newest thousand at most."""
    return {
        "single assets" if pipeline == SINGLE_ASSETS else pipeline: _figures(
            instance, dg.RunsFilter(job_name=pipeline, statuses=list(_JUDGED), updated_after=since)
        )
        for pipeline in pipelines()
    }


def _figures(instance: DagsterInstance, asked: dg.RunsFilter) -> RunFigures:
    records = instance.get_run_records(asked, limit=_MOST_RUNS)
    seconds = [
        record.end_time - record.start_time
        for record in records
        if record.start_time is not None and record.end_time is not None
    ]
    return RunFigures(
        finished=len(records),
        succeeded=sum(record.dagster_run.status is DagsterRunStatus.SUCCESS for record in records),
        mean_seconds=sum(seconds) / len(seconds) if seconds else None,
    )


def finished_runs(
    instance: DagsterInstance, pipelines: Sequence[str]
) -> dict[tuple[str, str], int]:
    """How many runs of each pipeline ended how, by (pipeline, status); see :data:`FINISHED`.

    Runs of jobs that are none of ``pipelines`` are those of :data:`OTHER`.
    """
    counts = {}
    for status, word in FINISHED.items():
        total = instance.get_runs_count(dg.RunsFilter(statuses=[status]))
        for pipeline in pipelines:
            asked = dg.RunsFilter(job_name=pipeline, statuses=[status])
            counts[pipeline, word] = instance.get_runs_count(asked)
            total -= counts[pipeline, word]
        counts[OTHER, word] = max(total, 0)
    return counts


def newest_run_seconds(instance: DagsterInstance, pipelines: Sequence[str]) -> dict[str, float]:
    """How long the newest run of each pipeline that succeeded or failed took, seconds."""
    found = {}
    for pipeline in pipelines:
        asked = dg.RunsFilter(job_name=pipeline, statuses=list(_JUDGED))
        for record in instance.get_run_records(asked, limit=1):
            if record.start_time is not None and record.end_time is not None:
                found[pipeline] = record.end_time - record.start_time
    return found


def materialised_at(instance: DagsterInstance) -> dict[str, float]:
    """When each asset was last materialised, as seconds since 1970.

    Of an asset with partitions it is its newest partition that counts: a backfill of an old day
    does not make it younger.
    """
    found = {}
    for record in instance.get_asset_records():
        entry = record.asset_entry
        newest = entry.last_materialization
        if newest is None or newest.dagster_event is None:
            continue
        key, when = entry.asset_key, newest.timestamp
        if newest.dagster_event.partition is not None:
            partition = max(instance.get_materialized_partitions(key))
            asked = dg.AssetRecordsFilter(key, asset_partitions=[partition])
            records = instance.fetch_materializations(asked, limit=1).records
            when = records[0].timestamp if records else when
        found[key.to_user_string()] = when
    return found


def failures(instance: DagsterInstance, known: Mapping[str, str] | None = None) -> dict[str, str]:
    """The newest thousand failed runs, each with the name of the error class that failed it.

    Args:
        instance: where the runs are.
        known: what an earlier call gave, so that only newer runs are read; it is kept.
    """
    found = dict(known or {})
    asked = dg.RunsFilter(statuses=[DagsterRunStatus.FAILURE])
    for run_id in instance.get_run_ids(asked, limit=_MOST_RUNS):
        if run_id not in found:
            found[run_id] = _error_type(instance, run_id)
    return found


def _error_type(instance: DagsterInstance, run_id: str) -> str:
    """Class name of what a run's first failed step raised, below what Dagster wraps it in."""
    steps = instance.get_records_for_run(run_id, of_type=DagsterEventType.STEP_FAILURE, limit=1)
    for record in steps.records:
        event = record.event_log_entry.dagster_event
        error = None if event is None else event.step_failure_data.error
        while error is not None:
            if error.cause is None:
                return error.cls_name or OTHER
            error = error.cause
    return OTHER
