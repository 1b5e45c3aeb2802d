"""How challengers are loaded for another role: in the place of what there is, never before it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cryptoml_serving.contract.deployment import Deployment, Placement
from cryptoml_serving.runtime.challengers import Challengers
from cryptoml_serving.runtime.errors import ModelRefusedError, RegistryUnavailableError
from cryptoml_serving.runtime.features import FeatureRows
from cryptoml_serving.runtime.registry import ApprovedModel
from cryptoml_serving.runtime.roster import Roster
from cryptoml_serving.runtime.snapshot import Snapshot
from cryptoml_serving.runtime.state import State
from cryptoml_serving.settings import ServingSettings
from cryptoml_serving.telemetry import Metrics

SYMBOLS = ("BTC/USDT", "ETH/USDT")


class Bundle:
    """What a challenger predicts with."""

    digest = "2" * 64
    manifest: Any = SimpleNamespace(model_name="m", horizon_seconds=3600, source="simulated")

    def predict(self, features: np.ndarray) -> dict[str, np.ndarray]:
        names = ("expected_return", "lower", "upper", "probability_up")
        return dict.fromkeys(names, np.full(len(features), 0.5, np.float32))


class World:
    """A loader and a feature store for version 2, which is placed beside no champion."""

    def __init__(self) -> None:
        self.state = State()
        self.loading: Callable[[], None] = lambda: None
        self.loads = 0
        self.announced: list[Snapshot] = []
        self.roster = Roster(self.state)
        self.challengers = Challengers(
            settings=ServingSettings(symbols=SYMBOLS),
            loader=self,  # type: ignore[arg-type]
            features=self,  # type: ignore[arg-type]
            metrics=Metrics("m"),
            state=self.state,
            roster=self.roster,
            announce=self.announced.append,
            log=None,
        )

    def load(self, placed: Placement, *, kept: bool) -> ApprovedModel:  # noqa: ARG002
        self.loads += 1
        self.loading()
        record: Any = SimpleNamespace(model_version="2")
        return ApprovedModel(placed, record, Bundle())  # type: ignore[arg-type]

    def read(self, symbols: tuple[str, ...], _manifest: Any, now: datetime) -> FeatureRows:
        return FeatureRows(symbols, np.zeros((len(symbols), 1)), (now,) * len(symbols))

    def place(self, role: Any, percent: float = 0.0) -> None:
        """Deploy version 2 so, and have the challengers take a turn."""
        placed = Placement(
            model_version="2", bundle_digest="2" * 64, run_id="r", role=role, percent=percent
        )
        self.follow(placed)

    def follow(self, *placed: Placement) -> None:
        deployment = Deployment(
            model_name="m", sequence=0, head="a" * 64, champion=None, challengers=placed
        )
        self.roster.follow(deployment)
        self.challengers.follow(deployment, kept=False)
        self.challengers.turn()

    @property
    def percents(self) -> list[float]:
        """Of the challengers that can predict."""
        return [each.model.placement.percent for each in self.state.challengers]


def test_what_there_is_serves_while_its_successor_is_loaded_and_is_dropped_then() -> None:
    world = World()
    seen: list[tuple[object, ...]] = []
    world.place("canary", 10)
    before = weakref.ref(world.state.models["2"])
    world.loading = lambda: seen.append((*world.percents, *world.state.models))
    world.place("canary", 20)
    assert seen == [(10, "2")]
    assert world.percents == [20]
    world.announced.clear()
    gc.collect()
    assert before() is None
    world.follow()
    assert (world.state.models, world.state.challengers) == ({}, ())
    assert world.challengers._models == {}


def test_where_nothing_can_be_read_what_there_is_stays_and_is_scored() -> None:
    world = World()
    world.place("canary", 10)

    def fail() -> None:
        raise RegistryUnavailableError

    world.loading = fail
    world.place("canary", 20)
    world.challengers.turn()
    assert world.percents == [10]
    assert world.state.models.keys() == {"2"}
    assert RegistryUnavailableError.summary in world.state.problems["challengers"]
    # Tried again at a look, and at no other turn.
    assert world.loads == 2
    # What is a shadow now is not told of as a canary.
    world.announced.clear()
    world.place("shadow")
    assert world.announced == []
    assert world.state.models["2"].placement.role == "shadow"
    world.loading = lambda: None
    world.place("shadow")
    assert [each.model.placement.role for each in world.announced] == ["shadow"]
    assert world.state.problems == {}


@pytest.mark.parametrize("error", [ModelRefusedError(), RuntimeError("nobody thought of this")])
def test_what_is_refused_for_its_new_placement_serves_no_more(error: Exception) -> None:
    world = World()
    world.place("canary", 10)

    def fail() -> None:
        raise error

    world.loading = fail
    world.place("canary", 20)
    assert (world.state.models, world.state.challengers) == ({}, ())
    # Nor as what it was before, unless it is loaded as that anew.
    world.place("canary", 10)
    assert world.state.models == {}


def test_each_snapshot_is_announced_before_it_can_answer_anybody() -> None:
    world, answerable = World(), []
    world.challengers._announce = lambda _: answerable.append(bool(world.state.challengers))
    world.place("canary", 10)
    assert answerable == [False]
    assert world.percents == [10]
