"""The daemon's part: nothing asked for is lost or done twice, wherever a process was killed."""

from collections.abc import Iterator

import dagster as dg
import pytest

from cryptoml_assets.operations.loop_watch import MOST_RETRIES, Watch

done: list[str] = []


@dg.op
def work(context: dg.OpExecutionContext) -> None:
    done.append(context.run.run_id)


@dg.job(executor_def=dg.in_process_executor)
def retrain() -> None:
    work()


@dg.sensor(job=retrain)
def alarm(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    count = int(context.cursor or 0)
    if count >= 2:
        return dg.SensorResult(skip_reason="calm")
    requests = [dg.RunRequest(run_key="the same alarm", tags={"cause": "drift"})]
    return dg.SensorResult(run_requests=requests, cursor=str(count + 1))


DEFINITIONS = dg.Definitions(jobs=[retrain], sensors=[alarm])


class KilledError(Exception):
    """The process ends here."""


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    done.clear()
    with dg.instance_for_test() as instance:
        yield instance


def watch(instance: dg.DagsterInstance, **others: object) -> Watch:
    return Watch(instance, definitions=DEFINITIONS, **others)  # type: ignore[arg-type]


def test_what_is_asked_for_twice_runs_once(instance: dg.DagsterInstance) -> None:
    first = watch(instance).tick()
    assert [(each.sensor, each.job) for each in first] == [("alarm", "retrain")]
    assert watch(instance).tick() == []
    assert done == [first[0].run_id]


def test_a_daemon_killed_before_its_cursor_moved_asks_for_nothing_twice(
    instance: dg.DagsterInstance,
) -> None:
    def killed(_: str) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        watch(instance, launch=killed).tick()
    (recorded,) = instance.get_runs()
    assert done == []
    restarted = watch(instance)
    restarted.recover()
    restarted.tick()
    restarted.recover()
    assert done == [recorded.run_id]


def test_a_killed_run_is_run_again_as_often_as_dagster_would(instance: dg.DagsterInstance) -> None:
    def killed(run_id: str) -> None:
        run = instance.get_run_by_id(run_id)
        assert run is not None
        instance.report_run_canceling(run)  # begun, and then gone without a word

    watch(instance, launch=killed).tick()
    living = watch(instance, launch=killed, alive=lambda _: True)
    living.recover()
    assert len(instance.get_runs()) == 1
    for _ in range(MOST_RETRIES + 2):
        watch(instance, launch=killed).recover()
    runs = instance.get_runs()
    assert len(runs) == 1 + MOST_RETRIES
    assert {run.tags["cause"] for run in runs} == {"drift"}
    assert all(run.status is dg.DagsterRunStatus.FAILURE for run in runs)
