"""Prices: whatever disturbs a run, a re-run leaves what an undisturbed run leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.chaos.price_schedules import play
from tests.chaos.price_worlds import References
from tests.chaos.stage import Stage

pytestmark = pytest.mark.long

if TYPE_CHECKING:
    from collections.abc import Callable

ROOM = "prices"


@pytest.fixture(scope="module")
def references(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> References:
    return References(stage, tmp_path_factory.mktemp("undisturbed"))


def test_a_re_run_leaves_what_an_undisturbed_run_leaves(
    judge: Callable[[Any], None], stage: Stage, references: References
) -> None:
    judge(lambda kind, draw, folder: play(kind, draw, stage, references, folder))
