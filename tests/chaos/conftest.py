"""The stage on which the schedules of one file play, and how each is judged."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from tests.chaos.draw import first_that_strikes, numbers
from tests.chaos.plugin import PROPERTY
from tests.chaos.stage import Stage, open_stage

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.chaos.draw import Outcome

    Play = Callable[[str, random.Random, Path], Outcome]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each schedule of the room that the test's module names."""
    if "number" in metafunc.fixturenames:
        schedules = metafunc.config.getoption("--schedules")
        metafunc.parametrize("number", numbers(metafunc.module.ROOM, schedules))


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with open_stage() as stage:
        yield stage


@pytest.fixture
def judge(
    number: int,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> Callable[[Play], None]:
    """Plays schedule ``number``, puts its outcome on record and fails where a lake differs."""
    seed, attempts = request.config.getoption("--seed"), itertools.count()

    def judge(play: Play) -> None:
        outcome = first_that_strikes(
            seed, number, lambda kind, draw: play(kind, draw, tmp_path / f"{next(attempts)}")
        )
        record_property(PROPERTY, outcome.told())
        assert not outcome.difference, f"seed {seed}, schedule {number}: {outcome}"

    return judge
