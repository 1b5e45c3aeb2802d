"""A candidate trained for real before the whole gate, fetched from a folder of artifacts."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cryptoml_assets.deployment.gate import Verdict
from cryptoml_assets.deployment.judgement import Circumstances, judge_candidate, versions_used
from cryptoml_assets.deployment.options import CRITERIA
from cryptoml_assets.features.catalog import row_inputs
from cryptoml_assets.features.service import return_service_name
from cryptoml_assets.models.candidates import train_candidate
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import Settings
from cryptoml_serving.contract.registry import BUNDLE_FOLDER, PREDICTIONS_FILE
from tests import model_worlds

FRAME = model_worlds.training_set(signal=0.4)
TASK = replace(model_worlds.task_of("linear"), feature_service=return_service_name(row_inputs()))
#: What needs the tables a candidate was made of, which `test_causality` has.
BY_TABLES = ("parity", "no_look_ahead")
REQUIRED = tuple(name for name in CRITERIA if name not in BY_TABLES)


@dataclass(frozen=True)
class Version:
    model_version: str
    run_id: str
    bundle_digest: str


@dataclass
class Runs:
    """The tracker, as far as the gate asks it: a folder for each run, and its tags."""

    folder: Path
    tags: dict[str, str] = field(default_factory=dict)

    def download_artifacts(self, run_id: str, name: str, into: str) -> str:
        found, copy = self.folder / run_id / name, Path(into, name)
        copy.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if found.is_dir() else shutil.copy)(found, copy)
        return str(copy)

    def get_run(self, run_id: str) -> Any:
        assert (self.folder / run_id).exists()
        return SimpleNamespace(data=SimpleNamespace(tags=self.tags))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Runs, Version]:
    runs = tmp_path_factory.mktemp("runs")
    made = train_candidate(FRAME, TASK, runs / "one" / BUNDLE_FOLDER, log=lambda _: None)
    (runs / "one" / PREDICTIONS_FILE).parent.mkdir()
    made.predictions.write_parquet(runs / "one" / PREDICTIONS_FILE)
    # A run that kept its name and lost its artifacts.
    (runs / "empty").mkdir()
    return Runs(runs), Version("7", "one", made.digest)


def judged(
    runs: Runs, candidate: Version, *, required: tuple[str, ...] = REQUIRED, **given: Any
) -> tuple[Any, Verdict]:
    configured = Settings(gate_required=",".join(required))
    default = {"champion": None, "withdrawn": frozenset(), "trials": 4, "pins": lambda *_: {}}
    return judge_candidate(
        runs,
        Lake(os.fspath(runs.folder / "lake")),
        candidate,
        given.pop("rows", FRAME),
        configured=configured,
        given=Circumstances(**{**default, **given}),
    )


def failed(verdict: Verdict) -> set[str]:
    assert verdict.approved == all(criterion.passed for criterion in verdict.criteria)
    return {criterion.name for criterion in verdict.criteria if not criterion.passed}


def test_a_model_with_skill_passes_and_its_evidence_is_given(
    trained: tuple[Runs, Version],
) -> None:
    runs, candidate = trained
    evidence, verdict = judged(runs, candidate)
    assert failed(verdict) == set()
    assert [criterion.name for criterion in verdict.criteria] == list(REQUIRED)
    assert evidence.figures["served_symbols"] == len(Settings().symbols)
    assert versions_used(runs, candidate, evidence) == {"training_set": 3}


def test_without_the_tables_it_was_made_of_nothing_is_approved(
    trained: tuple[Runs, Version],
) -> None:
    _, verdict = judged(*trained, required=CRITERIA)
    assert failed(verdict) == set(BY_TABLES)
    assert "which version of price_features" in verdict.failures[0]


def test_a_run_that_says_no_instant_proves_nothing_of_its_labels(
    trained: tuple[Runs, Version],
) -> None:
    runs, candidate = trained
    told = replace(runs, tags={"cryptoml.as_of": "2024-03-01"})
    _, verdict = judged(told, candidate, required=("no_look_ahead",))
    assert failed(verdict) == {"no_look_ahead"}
    assert "an instant names its zone" in verdict.failures[0]


def test_what_was_taken_out_of_service_stays_out(trained: tuple[Runs, Version]) -> None:
    _, verdict = judged(*trained, withdrawn=frozenset({"7"}))
    assert failed(verdict) == {"not_withdrawn"}


def test_earlier_trials_make_the_same_p_value_worth_less(trained: tuple[Runs, Version]) -> None:
    few, many = (
        next(each for each in judged(*trained, trials=count)[1].criteria if "trials" in each.rule)
        for count in (1, 30)
    )
    assert many.figure > 10 * few.figure


def test_the_champion_is_fetched_by_its_digest_and_compared(trained: tuple[Runs, Version]) -> None:
    runs, candidate = trained
    _, same = judged(runs, candidate, champion=replace(candidate, model_version="6"))
    assert failed(same) == set()
    rule = {criterion.name: criterion for criterion in same.criteria}["no_worse_than_champion"]
    assert rule.figure == 0.0
    assert "champion 6" in rule.rule
    for champion in (
        replace(candidate, bundle_digest="0" * 64),
        replace(candidate, run_id="empty"),
    ):
        _, verdict = judged(runs, candidate, champion=champion)
        assert failed(verdict) == {"no_worse_than_champion"}


@pytest.mark.parametrize(
    "change", [{"bundle_digest": "0" * 64}, {"run_id": "empty"}], ids=["altered", "gone"]
)
def test_a_bundle_that_is_not_the_registered_one_fails_every_rule(
    change: dict[str, str], trained: tuple[Runs, Version]
) -> None:
    runs, candidate = trained
    evidence, verdict = judged(runs, replace(candidate, **change), required=CRITERIA)
    assert evidence is None
    assert failed(verdict) == set(CRITERIA)


def test_rows_that_changed_since_training_fail_every_rule(trained: tuple[Runs, Version]) -> None:
    evidence, verdict = judged(*trained, rows=FRAME.head(-40))
    assert evidence is None
    assert failed(verdict) == set(REQUIRED)
