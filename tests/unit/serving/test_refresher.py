"""What the refresher does when its sources fail; the sources themselves are tested for real."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cryptoml_serving.contract.deployment import Deployment, Placement
from cryptoml_serving.runtime import roster
from cryptoml_serving.runtime.errors import (
    FeatureStoreError,
    NoChampionError,
    RegistryUnavailableError,
)
from cryptoml_serving.runtime.features import FeatureRows
from cryptoml_serving.runtime.refresher import Refresher
from cryptoml_serving.runtime.registry import ApprovedModel, Found
from cryptoml_serving.settings import ServingSettings
from cryptoml_serving.telemetry import JsonFormatter, Metrics
from tests.serving_client import wait


class Registry:
    """One that has kept nothing."""

    problem = ""

    def prepare(self) -> None:
        pass

    def kept(self) -> None:
        """Nothing."""

    def stand_in(self, _: Deployment) -> None:
        """Nothing."""

    def keep_later(self, _: Placement) -> None:
        """Nothing."""

    def compile_beside(self, *_: Any) -> bool:
        return False


class Failing(Registry):
    """Raises one error after another, then the last for ever."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    def deployment(self) -> None:
        raise self.errors.pop(0) if len(self.errors) > 1 else self.errors[0]


def source(features: Any) -> Any:
    """What gives a reader of features to each thread."""
    return lambda: features


def refresher(registry: Any) -> tuple[Refresher, Metrics]:
    metrics = Metrics("m")
    return Refresher(ServingSettings(), registry, source(None), metrics), metrics


def turns(made: Refresher, count: int) -> None:
    for _ in range(count):
        made.look()
        made.turn()


def test_a_lasting_failure_is_counted_each_time_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made, metrics = refresher(Failing(RegistryUnavailableError("/secret/path is gone")))
    turns(made, 3)
    count = metrics.registry.get_sample_value(
        "refresh_errors_total", {"error_type": "registry_unavailable"}
    )
    assert count == 3
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert made.state.not_ready == RegistryUnavailableError.summary
    assert not made.state.ready


def test_another_failure_is_logged_again(caplog: pytest.LogCaptureFixture) -> None:
    made, _ = refresher(Failing(RegistryUnavailableError("gone"), NoChampionError("none")))
    turns(made, 2)
    assert [record.getMessage() for record in caplog.records] == ["gone", "none"]


def test_an_unexpected_failure_is_survived_and_logged_whole(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made, _ = refresher(Failing(RuntimeError("nobody thought of this")))
    turns(made, 1)
    (record,) = caplog.records
    line = json.loads(JsonFormatter().format(record))
    assert line["event"] == "error"
    assert line["error_type"] == "internal"
    assert "RuntimeError: nobody thought of this" in line["traceback"]
    assert "nobody" not in made.state.not_ready


class Model:
    """A bundle of one version that answers its number, by formulas of its own."""

    def __init__(self, version: str) -> None:
        self.manifest: Any = SimpleNamespace(
            model_name="m", horizon_seconds=3600, source="simulated", formulas=version
        )
        self.digest = version * 64

    def compiled(self, *_: Any) -> bool:
        return False

    def warm(self, sizes: Any, devices: Any) -> None:
        pass

    def predict(self, features: NDArray[np.float64]) -> dict[str, NDArray[np.float32]]:
        names = ("expected_return", "lower", "upper", "probability_up")
        return dict.fromkeys(names, np.full(len(features), 0.5, np.float32))


class World(Registry):
    """Registry and feature store: what is deployed, and by which formulas features are."""

    def __init__(self) -> None:
        self.formulas = {"1", "2", "3"}
        self.sequence = -1
        self.unreadable: set[str] = set()
        self.loading: Callable[[str], None] = lambda _: None
        self.reading: Callable[[], None] = lambda: None

    def deploy(self, version: str, *withdrawn: str) -> None:
        self.sequence += 1
        champion = Placement(
            model_version=version, bundle_digest=version * 64, run_id="r", role="champion"
        )
        self.found = Found(
            Deployment(
                model_name="m",
                sequence=self.sequence,
                head="a" * 64,
                champion=champion,
                withdrawn=withdrawn,
            ),
            alias=version,
        )

    def deployment(self) -> Found:
        return self.found

    def load(self, placement: Placement, *, kept: bool) -> ApprovedModel:  # noqa: ARG002
        self.loading(placement.model_version)
        if placement.model_version in self.unreadable:
            raise RegistryUnavailableError
        record: Any = SimpleNamespace(
            model_name="m",
            decided_by="policy",
            role="champion",
            **placement.model_dump(include={"model_version", "bundle_digest"}),
        )
        return ApprovedModel(placement, record, Model(placement.model_version))  # type: ignore[arg-type]

    def read(self, symbols: tuple[str, ...], manifest: Any, now: datetime) -> FeatureRows:
        self.reading()
        if manifest.formulas not in self.formulas:
            raise FeatureStoreError
        return FeatureRows(symbols, np.zeros((len(symbols), 1)), (now,) * len(symbols))


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def made(world: World) -> Refresher:
    settings, metrics = ServingSettings(), Metrics("m")
    made = Refresher(settings, world, source(world), metrics)  # type: ignore[arg-type]
    metrics.observe(made.state, settings.clock)
    return made


def answering(made: Refresher) -> str | None:
    """The version that answers after a look and a reading."""
    turns(made, 1)
    snapshot = made.state.snapshot
    return None if snapshot is None else snapshot.model.record.model_version


def gauge(made: Refresher, name: str) -> float | None:
    return made._metrics.registry.get_sample_value(name)


def test_a_champion_that_cannot_predict_yet_is_waited_for(made: Refresher, world: World) -> None:
    state = made.state
    world.deploy("2")
    assert answering(made) == "2"
    world.formulas = {"2", "3"}
    world.deploy("1")
    assert answering(made) == "2"
    assert gauge(made, "champion_not_served") == 1
    assert state.troubles["champion"] == "the version that answers is not the deployed champion"
    # Rows that callers send are for the one that answers; the other may be asked for by its name.
    assert state.champion is not None
    assert state.champion.placement.model_version == "2"
    assert state.models.keys() == {"1", "2"}
    world.formulas = {"1", "3"}
    assert answering(made) == "1"
    assert (state.troubles, gauge(made, "champion_not_served")) == ({}, 0)
    assert state.models.keys() == {"1"}
    # A champion that answers goes on with what it has.
    world.formulas = set()
    assert answering(made) == "1"


@pytest.mark.parametrize("broken", ["features", "artifacts"])
def test_what_a_rollback_withdrew_does_not_answer_for_want_of_a_successor(
    made: Refresher, world: World, broken: str
) -> None:
    state = made.state
    world.deploy("2")
    assert answering(made) == "2"
    if broken == "features":
        world.formulas = {"2", "3"}
        why = FeatureStoreError.summary
    else:
        world.unreadable = {"1"}
        why = RegistryUnavailableError.summary
    world.deploy("1", "2")
    # Nothing answers rather than what was found unfit.
    assert answering(made) is None
    assert (state.ready, state.not_ready) == (False, why)
    assert "champion" not in state.troubles
    assert "2" not in state.models
    assert state.champion is None or state.champion.placement.model_version == "1"
    world.formulas, world.unreadable = {"1", "2", "3"}, set()
    assert answering(made) == "1"
    # And what comes after a rollback may be waited for like any other.
    world.formulas = {"1"}
    world.deploy("3", "2")
    assert answering(made) == "1"


def test_what_a_rollback_withdrew_answers_until_its_successor_does_but_not_for_long(
    made: Refresher, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roster, "_GRACE_SECONDS", 0.2)
    world.deploy("2")
    assert answering(made) == "2"
    world.deploy("1", "2")
    made.look()
    # Loaded, and without a snapshot yet: no request fails.
    state = made.state
    assert state.snapshot is not None
    assert state.snapshot.model.placement.model_version == "2"
    # By its own name it is not to be had any more.
    assert made.state.models.keys() == {"1"}
    time.sleep(0.4)
    assert not made.state.ready
    assert answering(made) == "1"


def test_what_was_read_for_a_model_that_was_withdrawn_meanwhile_is_thrown_away(
    made: Refresher, world: World
) -> None:
    world.deploy("1")
    assert answering(made) == "1"
    world.found = Found(
        Deployment(model_name="m", sequence=9, head="b" * 64, champion=None, withdrawn=("1",)),
        alias="",
    )
    world.reading = made.look
    made.turn()
    assert made.state.snapshot is None
    assert "features" not in made.state.problems
    assert (made.state.models, made.state.champion) == ({}, None)
    assert made.state.not_ready == NoChampionError.summary


def version_of(made: Refresher) -> str | None:
    snapshot = made.state.snapshot
    return None if snapshot is None else snapshot.model.placement.model_version


def test_a_withdrawal_is_seen_while_a_model_is_loaded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roster, "_GRACE_SECONDS", 0.1)
    brief = timedelta(milliseconds=10)
    settings = ServingSettings(serving_registry_poll=brief, serving_refresh=brief)
    made = Refresher(settings, world, source(world), Metrics("m"))  # type: ignore[arg-type]
    began, goes_on, answered = threading.Event(), threading.Event(), set()

    def load(version: str) -> None:
        if version == "2":
            began.set()
            assert goes_on.wait(20)

    world.loading = load
    made.tell(lambda snapshot: answered.add(snapshot.model.placement.model_version))
    world.deploy("1")
    made.start()
    try:
        wait(lambda: version_of(made) == "1")
        world.deploy("2")
        assert began.wait(20)
        world.deploy("3", "1", "2")
        wait(lambda: version_of(made) is None)
        assert made.state.models == {}
        # Nor is what was being loaded put to use, now that another one is deployed.
        goes_on.set()
        wait(lambda: version_of(made) == "3")
        assert answered == {"1", "3"}
        wait(lambda: made.state.troubles == {})
    finally:
        goes_on.set()
        made.stop()


def test_a_failure_to_load_is_told_on_while_looks_succeed(made: Refresher, world: World) -> None:
    world.unreadable = {"1"}
    world.deploy("1")
    turns(made, 1)
    current = made.state.refreshed["model"]
    made._follower.look()
    assert made.state.problems == {"model": RegistryUnavailableError.summary}
    assert made.state.refreshed["model"] == current
    world.unreadable = set()
    turns(made, 2)
    assert made.state.problems == {}
    assert made.state.refreshed["model"] > current


class Counting(Registry):
    """Counts the looks at it."""

    def __init__(self) -> None:
        self.looks: list[float] = []

    def deployment(self) -> None:
        self.looks.append(time.monotonic())
        raise NoChampionError


def test_looks_that_are_asked_for_are_a_second_apart() -> None:
    registry = Counting()
    settings = ServingSettings(serving_registry_poll=timedelta(hours=1))
    made = Refresher(settings, registry, Counting, Metrics("m"))  # type: ignore[arg-type]
    made.start()
    try:
        while len(registry.looks) < 3:
            made.ask()
            time.sleep(0.01)
    finally:
        made.stop()
    assert min(np.diff(registry.looks)) >= 1


class Hanging(World):
    """A registry that never answers, once it hangs."""

    def __init__(self) -> None:
        super().__init__()
        self.hangs = threading.Event()

    def deployment(self) -> Found:
        if self.hangs.is_set():
            threading.Event().wait()
        return super().deployment()


def test_features_are_read_on_while_the_registry_hangs() -> None:
    world = Hanging()
    world.deploy("1")
    brief = timedelta(milliseconds=10)
    settings = ServingSettings(serving_registry_poll=brief, serving_refresh=brief)
    made = Refresher(settings, world, source(world), Metrics("m"))  # type: ignore[arg-type]
    made.start()
    try:
        wait(lambda: made.state.snapshot is not None)
        world.hangs.set()
        wait(lambda: (made.state.age("model") or 0) > 0.3)
        assert (made.state.age("features") or 9) < 0.3
    finally:
        made._follower._stop.set()
        made._stop.set()
