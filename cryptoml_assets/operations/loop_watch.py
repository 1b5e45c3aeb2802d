"""The daemon's part in one process: evaluates the sensors and runs what they ask for.

A run is recorded before it begins and before its sensor's cursor moves, and cursors lie in the
Dagster instance: a process killed anywhere repeats a question rather than losing it, and run keys
keep what was asked for twice from running twice. What a killed process left is run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.definitions.assets.job.asset_job import IMPLICIT_ASSET_JOB_NAME
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARENT_RUN_ID_TAG,
    PARTITION_NAME_TAG,
    RETRY_NUMBER_TAG,
    ROOT_RUN_ID_TAG,
    RUN_KEY_TAG,
    SENSOR_NAME_TAG,
)

if TYPE_CHECKING:
    from dagster._core.execution.execution_result import ExecutionResult

#: Keeps assets as fresh as real time asks, as automation conditions do: no part of a world whose
#: days pass in seconds.
NOT_EVALUATED = frozenset({"watch_freshness"})
#: Times a run that was killed is run again, as `dagster.yaml` has it.
MOST_RETRIES = 2
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
_CURSOR = "cryptoml-loop"
_UNFINISHED = [
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dataclass(frozen=True)
class Asked:
    """A run that a sensor asked for.

    Attributes:
        sensor: its name.
        job: name of the job.
        run_key: what the sensor calls the reason, if it names one.
        run_id: the run.
    """

    sensor: str
    job: str
    run_key: str | None
    run_id: str


class Watch:
    """Evaluates every sensor of the code location against one Dagster instance.

    Args:
        instance: where runs are recorded and cursors kept.
        launch: has a recorded run executed, here or in another process; here when not given.
        alive: whether the process of a run that has begun is still there; none is when not given.
        definitions: whose sensors; the code location's when not given.
    """

    def __init__(
        self,
        instance: dg.DagsterInstance,
        launch: Callable[[str], object] | None = None,
        alive: Callable[[str], bool] = lambda _: False,
        definitions: dg.Definitions | None = None,
    ) -> None:
        defs = definitions or _code_location()
        self._instance = instance
        self._launch = launch or self.perform
        self._alive = alive
        self._repository = defs.get_repository_def()
        self._jobs = defs.resolve_job_def
        self._whole = defs.resolve_implicit_global_asset_job_def
        self._sensors = [
            sensor
            for sensor in self._repository.sensor_defs
            if sensor.name not in NOT_EVALUATED
            and not isinstance(sensor, dg.AutomationConditionSensorDefinition)
        ]

    def tick(self) -> list[Asked]:
        """Evaluate each sensor once and launch what it asks for."""
        return [asked for sensor in self._sensors for asked in self._evaluate(sensor)]

    def recover(self) -> None:
        """Launch what was recorded and never begun, and run again what was killed."""
        for run_id in self._left([dg.DagsterRunStatus.NOT_STARTED]):
            self._launch(run_id)
        for run_id in self._left(_UNFINISHED):
            run = self._instance.get_run_by_id(run_id)
            if run is not None:
                self._instance.report_run_failed(run, "its process is gone")
        for run in self._instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE])):
            self._again(run)

    def _left(self, statuses: list[dg.DagsterRunStatus]) -> list[str]:
        """Runs of these statuses that no process is at."""
        runs = self._instance.get_runs(dg.RunsFilter(statuses=statuses))
        alone = [run.run_id for run in runs if not self._alive(run.run_id)]
        if not alone:
            return []
        # One that ended between the two questions has another status by now.
        again = dg.RunsFilter(run_ids=alone, statuses=statuses)
        return [run.run_id for run in self._instance.get_runs(again)]

    def _again(self, run: dg.DagsterRun) -> None:
        """Run a failed run that a sensor asked for once more, as Dagster's own retries do."""
        number = int(run.tags.get(RETRY_NUMBER_TAG, 0)) + 1
        child = dg.RunsFilter(tags={PARENT_RUN_ID_TAG: run.run_id})
        asked = SENSOR_NAME_TAG in run.tags
        if not asked or number > MOST_RETRIES or self._instance.get_runs(child, limit=1):
            return
        kept = {
            name: value
            for name, value in run.tags.items()
            if not name.startswith(".") and name != RUN_KEY_TAG
        }
        tags = {
            **kept,
            RETRY_NUMBER_TAG: str(number),
            PARENT_RUN_ID_TAG: run.run_id,
            ROOT_RUN_ID_TAG: run.tags.get(ROOT_RUN_ID_TAG, run.run_id),
        }
        self._launch(self._record(run.job_name, run.asset_selection or (), tags))

    def execute(
        self,
        assets: Sequence[str],
        days: tuple[date, date] | None = None,
        *,
        checked: bool = True,
    ) -> dg.ExecuteInProcessResult:
        """Materialise some assets in this process.

        Args:
            assets: their keys.
            days: the first and the last partition.
            checked: whether their checks run too.
        """
        tags = {}
        if days is not None:
            tags[ASSET_PARTITION_RANGE_START_TAG] = days[0].isoformat()
            tags[ASSET_PARTITION_RANGE_END_TAG] = days[1].isoformat()
        job = self._whole().get_subset(
            asset_selection={dg.AssetKey(name) for name in assets},
            asset_check_selection=None if checked else set(),
        )
        return job.execute_in_process(
            instance=self._instance, run_config=_QUIET, tags=tags, raise_on_error=False
        )

    def perform(self, run_id: str) -> ExecutionResult:
        """Execute a recorded run to its end in this process."""
        run = self._instance.get_run_by_id(run_id)
        if run is None:
            message = f"no run {run_id}"
            raise LookupError(message)
        job = self._job(run.job_name, run.asset_selection or ())
        return execute_run(InMemoryJob(job), run, self._instance, raise_on_error=False)

    def status(self, run_id: str) -> str:
        """How a run stands, in Dagster's word."""
        run = self._instance.get_run_by_id(run_id)
        return run.status.value if run is not None else "unknown"

    def _evaluate(self, sensor: dg.SensorDefinition) -> Iterator[Asked]:
        key = f"{_CURSOR}/{sensor.name}"
        storage: Any = self._instance.daemon_cursor_storage
        with dg.build_sensor_context(
            instance=self._instance,
            cursor=storage.get_cursor_values({key}).get(key),
            sensor_name=sensor.name,
            repository_def=self._repository,
            repository_name=self._repository.name,
        ) as context:
            told = sensor.evaluate_tick(context)
        for request in told.run_requests or ():
            asked = self._answer(sensor, request)
            if asked is not None:
                yield asked
        if told.cursor is not None:
            storage.set_cursor_values({key: told.cursor})

    def _answer(self, sensor: dg.SensorDefinition, request: dg.RunRequest) -> Asked | None:
        """Record and launch what is asked for, unless that was done before."""
        own = {SENSOR_NAME_TAG: sensor.name}
        if request.run_key is not None:
            own[RUN_KEY_TAG] = request.run_key
            if self._instance.get_runs(dg.RunsFilter(tags=own), limit=1):
                return None
        if request.partition_key is not None:
            own[PARTITION_NAME_TAG] = request.partition_key
        job = request.job_name or sensor.job_name or IMPLICIT_ASSET_JOB_NAME
        run_id = self._record(job, request.asset_selection or (), {**request.tags, **own})
        self._launch(run_id)
        return Asked(sensor.name, job, request.run_key, run_id)

    def _record(self, job_name: str, assets: Iterable[dg.AssetKey], tags: Mapping[str, str]) -> str:
        selection = frozenset(assets) or None
        run = self._instance.create_run_for_job(
            self._job(job_name, selection or ()),
            run_config=_QUIET,
            tags=tags,
            asset_selection=selection,
        )
        return run.run_id

    def _job(self, name: str, assets: Iterable[dg.AssetKey]) -> dg.JobDefinition:
        job = self._whole() if name == IMPLICIT_ASSET_JOB_NAME else self._jobs(name)
        selection = frozenset(assets)
        return job.get_subset(asset_selection=selection) if selection else job


def _code_location() -> dg.Definitions:
    from cryptoml_assets.definitions import defs  # noqa: PLC0415  (reads settings when imported)

    return defs
