"""Faults of the inference service, a few beside the other tests; `make chaos-serving` plays all."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from tests.chaos.serving_faults import FAULTS
from tests.chaos.serving_fuzz import fuzz, server_errors
from tests.chaos.serving_stage import Stage
from tests.serving_world import build_templates

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(300)
#: Requests; `make chaos-serving` sends 10 000.
MALFORMED = 600
#: Each shows something that no test of one process does, and starts the service once at most.
FEW = ("swap", "corrupt_bundle", "half_written_cache", "feature_store_slow", "withdrawn")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    templates = build_templates(tmp_path_factory.getbasetemp())
    made = Stage(tmp_path_factory.mktemp("stage"), templates)
    made.start()
    yield made
    made.close()


@pytest.mark.parametrize("name", FEW)
def test_callers_are_answered_rightly_whatever_breaks(stage: Stage, name: str) -> None:
    counts = FAULTS[name](stage)
    assert counts.sound, counts.line()


def test_malformed_requests_are_answered_as_such(stage: Stage) -> None:
    statuses = fuzz(stage, MALFORMED)
    try:
        assert server_errors(statuses) == 0, statuses
        assert statuses.total() >= MALFORMED
        # They reached what they were meant for.
        assert statuses[200] > 0
        assert statuses[422] > MALFORMED / 4
        assert statuses[400] > 0
    finally:
        stage.start()


def test_answers_that_are_not_the_versions_own_are_noticed(stage: Stage) -> None:
    # As if the service mixed two models up.
    version = stage.champion
    assert version is not None
    may = stage.may[version]
    stage.may[version] = (may[0], may[0])
    try:
        with stage.load("nothing") as scene:
            time.sleep(1.0)
    finally:
        stage.may[version] = may
    lines = (stage.folder / "nothing.jsonl").read_text().splitlines()
    assert {json.loads(line)["way"] for line in lines} == {"symbol", "rows", "infer", "version"}
    assert scene.counts.wrong == scene.counts.answered > 0
    assert not scene.counts.sound
