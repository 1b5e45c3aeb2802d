"""How long a loader takes its time over a new champion."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from cryptoml_serving.runtime.device import Device
from cryptoml_serving.runtime.loader import Loader
from cryptoml_serving.runtime.processes import shortest_turns, take_short_turns
from cryptoml_serving.runtime.state import State
from cryptoml_serving.settings import ServingSettings
from cryptoml_serving.telemetry import Metrics


@pytest.fixture(autouse=True)
def own_turns() -> Iterator[None]:
    """Leave those of the other tests as they were."""
    before = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before)


class Successor:
    """A model to load, and what was done with it.

    Attributes:
        compiled: whether another model has its programs.
        warmed: numbers of rows it was warmed for.
        compiled_beside: how often another process was asked to.
        then: called after each number of rows.
    """

    def __init__(self, *, compiled: bool = False) -> None:
        self._compiled = compiled
        self.warmed: list[int] = []
        self.compiled_beside = 0
        self.then: Callable[[], None] = lambda: None

    def compiled(self, sizes: Iterable[int], _devices: Any) -> bool:
        assert tuple(sizes) == (8, 64, 512)
        return self._compiled

    def warm(self, sizes: list[int], _devices: Any) -> None:
        self.warmed.extend(sizes)
        self.then()

    def compile_beside(self, *_: Any) -> bool:
        self.compiled_beside += 1
        return True

    def load(self, state: State) -> None:
        record = SimpleNamespace(
            model_name="m", model_version="2", bundle_digest="", role="champion", decided_by="p"
        )
        registry: Any = SimpleNamespace(
            load=lambda *_, **__: SimpleNamespace(bundle=self, record=record),
            compile_beside=self.compile_beside,
        )
        settings = ServingSettings(serving_device="cpu", serving_batch_sizes=(8, 64, 512))
        placement: Any = SimpleNamespace(role="champion")
        loader = Loader(registry, Device(settings, Metrics("m")), state)
        loader.load(placement, kept=False)


@pytest.mark.parametrize("withdrawn_after", [None, 1])
def test_a_successor_is_loaded_gently_only_while_what_answers_may_go_on(
    withdrawn_after: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    state: Any = State()
    answering = SimpleNamespace(placement=SimpleNamespace(model_version="1"))
    state.snapshot, state.models = SimpleNamespace(model=answering), {"1": answering}
    successor = Successor()

    def warmed() -> None:
        if len(successor.warmed) == withdrawn_after:
            state.models = {}

    successor.then = warmed
    successor.load(state)
    assert successor.warmed == [8, 64, 512]
    assert successor.compiled_beside == 1
    assert [pause > 0 for pause in pauses] == [withdrawn_after is None] * 2


def test_a_successor_of_the_same_program_is_loaded_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    state: Any = State()
    answering = SimpleNamespace(placement=SimpleNamespace(model_version="1"))
    state.snapshot, state.models = SimpleNamespace(model=answering), {"1": answering}
    successor = Successor(compiled=True)
    successor.load(state)
    assert successor.warmed == [8, 64, 512]
    assert successor.compiled_beside == 0
    assert pauses == [0.0, 0.0]


@pytest.mark.parametrize("answering", [False, True])
def test_threads_take_shorter_turns_while_a_successor_is_loaded(answering: bool) -> None:
    state: Any = State()
    if answering:
        model = SimpleNamespace(placement=SimpleNamespace(model_version="1"))
        state.snapshot, state.models = SimpleNamespace(model=model), {"1": model}
    take_short_turns()
    usual, turns = sys.getswitchinterval(), []
    successor = Successor(compiled=True)
    successor.then = lambda: turns.append(sys.getswitchinterval())
    with shortest_turns():
        successor.load(state)
        # Another one is being loaded all the time.
        assert sys.getswitchinterval() < usual
    assert sys.getswitchinterval() == usual
    turns.clear()
    successor.load(state)
    assert len(turns) == 3
    assert all(each < usual if answering else each == usual for each in turns)
    assert sys.getswitchinterval() == usual
