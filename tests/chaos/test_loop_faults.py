"""The loop: whatever is killed, it closes after a restart, and nothing unapproved ever answers."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.chaos.loop_schedules import TARGETS, Shot, Theatre, play

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

#: Each target once, in a moment that surely comes; `make chaos-loop` plays fifty that are drawn.
SCHEDULES = (
    (Shot("daemon", "run recorded", 0.0), Shot("run", "training set", 0.0)),
    (Shot("tracker", "candidates", 0.0), Shot("serving", "decision", 0.0)),
)
assert {shot.target for shots in SCHEDULES for shot in shots} == set(TARGETS)


@pytest.fixture(scope="module")
def theatre(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theatre]:
    theatre = Theatre(tmp_path_factory.mktemp("loop"))
    theatre.prepare()
    with theatre.opened():
        yield theatre


@pytest.mark.parametrize("shots", SCHEDULES, ids=lambda shots: "-".join(s.target for s in shots))
def test_the_loop_closes_whatever_is_killed(theatre: Theatre, shots: tuple[Shot, ...]) -> None:
    outcome = play(theatre, shots)
    # A tracker counts only where it was seen to be written to; here a run writes hundreds of times.
    assert outcome.kills == Counter(shot.target for shot in shots), outcome
    assert outcome.sound, outcome
    assert outcome.answers
