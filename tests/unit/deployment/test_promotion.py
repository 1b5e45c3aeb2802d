"""Decisions taking effect in a real registry, from wherever a crash left it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cryptoml_assets.deployment import history, promotion
from cryptoml_assets.deployment.standing import Standing, deployment, standing
from cryptoml_assets.errors import ApprovalError
from cryptoml_assets.resources.lake import Lake
from cryptoml_serving.contract.approval import read_signed, verify
from cryptoml_serving.contract.deployment import read_deployment
from cryptoml_serving.contract.registry import CHAMPION_ALIAS, DEPLOYMENT_TAG, approval_file
from tests.deployment_world import KEY, MODEL, PASSED, decision, subject
from tests.serving_world import build_templates


class Registry:
    """A registry of three versions, each with a run of its own."""

    def __init__(self, folder: Path, template: Path) -> None:
        from mlflow import MlflowClient  # noqa: PLC0415 - seconds

        shutil.copy(template, folder / "mlflow.db")
        self.lake = Lake(str(folder / "lake"))
        address = f"sqlite:///{folder / 'mlflow.db'}"
        # The registry too: other tests leave theirs as the default.
        self.client = MlflowClient(address, address)
        experiment = self.client.create_experiment("e", str(folder / "artifacts"))
        self.client.create_registered_model(MODEL)
        self.runs = {}
        for version in (1, 2, 3):
            self.runs[version] = self.client.create_run(experiment).info.run_id
            self.client.create_model_version(MODEL, "bundle", self.runs[version])

    def decision(self, version: int, *how: str, **other: Any) -> history.Decision:
        about = subject(version, run_id=self.runs[version])
        return decision(version, *how, subject=about, **other)

    def decide(self, version: int, *how: str, **other: Any) -> history.Entry:
        made = self.decision(version, *how)
        return promotion.decide(self.client, self.lake, KEY, made, **other)

    def reconcile(self, **other: Any) -> promotion.Reconciled:
        return promotion.reconcile(self.client, self.lake, KEY, MODEL, **other)

    @property
    def standing(self) -> Standing:
        return standing(history.read(self.lake, KEY.public_key()), MODEL)

    @property
    def model(self) -> Any:
        return self.client.get_registered_model(MODEL)

    @property
    def alias(self) -> str | None:
        found = self.model.aliases.get(CHAMPION_ALIAS)
        return None if found is None else str(found)

    def check_in_step(self) -> None:
        entries = history.read(self.lake, KEY.public_key())
        now = standing(entries, MODEL)
        assert self.alias == now.champion_version
        told = read_deployment(self.model.tags[DEPLOYMENT_TAG], KEY.public_key())
        assert told == deployment(entries, MODEL)
        for entry in now.entries:
            record = entry.record
            file = self.client.download_artifacts(
                record.run_id, approval_file(record.model_version)
            )
            assert verify(read_signed(Path(file).read_bytes()), KEY.public_key()) == record


@pytest.fixture
def registry(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return Registry(tmp_path, build_templates(tmp_path_factory.getbasetemp()).mlflow)


def test_the_registry_follows_every_decision(registry: Registry) -> None:
    for made in (
        (1,),
        (2, "approve", "canary"),
        (2, "promote"),
        (1, "rollback"),
        (3, "approve", "shadow"),
    ):
        registry.decide(*made)
        registry.check_in_step()
    assert registry.alias == "1"
    assert registry.lake.row_count(history.TABLE) == 5
    registry.decide(3, "withdraw", "none")
    registry.decide(1, "withdraw", "none")
    registry.check_in_step()
    assert registry.alias is None


def test_a_decision_that_stands_is_not_made_again(registry: Registry) -> None:
    first = registry.decide(1)
    assert registry.decide(1) == first
    assert registry.lake.row_count(history.TABLE) == 1


def test_a_verdict_against_a_champion_that_has_changed_is_refused(registry: Registry) -> None:
    registry.decide(1, seen=Standing())
    with pytest.raises(ApprovalError, match="held against champion None, which is 1 by now"):
        registry.decide(2, seen=Standing())
    assert registry.alias == "1"


def test_a_role_that_is_none_cannot_be_taken_away(registry: Registry) -> None:
    with pytest.raises(ApprovalError, match="version 2 has no role"):
        registry.decide(2, "withdraw", "none")


def test_nothing_is_decided_on_a_history_whose_newest_rows_were_cut_off(
    registry: Registry,
) -> None:
    registry.decide(1)
    registry.decide(2)
    registry.decide(1, "rollback")
    tag = registry.model.tags[DEPLOYMENT_TAG]
    registry.lake.overwrite(history.TABLE, history.rows(registry.lake).head(2))
    for attempt in (registry.reconcile, lambda: registry.decide(3)):
        with pytest.raises(ApprovalError, match=r"follows decision 2 .*rows are missing"):
            attempt()
    assert registry.model.tags[DEPLOYMENT_TAG] == tag
    assert registry.alias == "1"
    shutil.rmtree(registry.lake.address(history.TABLE))
    with pytest.raises(ApprovalError, match="rows are missing"):
        registry.reconcile()


def test_a_deployment_that_is_not_genuine_is_written_again(registry: Registry) -> None:
    registry.decide(1)
    registry.client.set_registered_model_tag(MODEL, DEPLOYMENT_TAG, "{}")
    assert registry.reconcile().changed
    registry.check_in_step()


def test_canaries_never_take_all_requests(registry: Registry) -> None:
    registry.decide(1)
    half = {"role": "canary", "percent": 60.0}
    promotion.decide(registry.client, registry.lake, KEY, registry.decision(2, **half))
    with pytest.raises(ApprovalError, match="other canaries answer 60 %"):
        promotion.decide(
            registry.client, registry.lake, KEY, registry.decision(3, **half | {"percent": 40.0})
        )
    # Its own share may change.
    promotion.decide(
        registry.client, registry.lake, KEY, registry.decision(2, **half | {"percent": 99.0})
    )
    registry.check_in_step()


def test_a_withdrawal_that_was_recorded_is_finished_when_asked_again(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.decide(1)
    registry.decide(2, "approve", "shadow")
    with monkeypatch.context() as patched:
        patched.setattr(registry.client, "set_registered_model_tag", None)
        with pytest.raises(TypeError):
            registry.decide(2, "withdraw", "none")
    registry.decide(2, "withdraw", "none")
    registry.check_in_step()
    assert registry.lake.row_count(history.TABLE) == 3


def test_what_answers_is_made_no_challenger(registry: Registry) -> None:
    registry.decide(1)
    with pytest.raises(ApprovalError, match="version 1 is the champion"):
        registry.decide(1, "approve", "shadow")
    registry.check_in_step()


def test_a_challenger_withdrawn_while_it_was_reviewed_is_not_promoted(registry: Registry) -> None:
    registry.decide(1)
    registry.decide(2, "approve", "shadow")
    reviewed = registry.standing
    registry.decide(2, "withdraw", "none")
    with pytest.raises(ApprovalError, match="version 2 is no challenger by now"):
        registry.decide(2, "promote", seen=reviewed)
    with pytest.raises(ApprovalError, match="version 3 is no challenger by now"):
        registry.decide(3, "promote")
    other = replace(registry.decision(2, "promote"), subject=subject(2))
    registry.decide(2, "approve", "shadow")
    with pytest.raises(ApprovalError, match="no challenger"):
        promotion.decide(registry.client, registry.lake, KEY, other)
    assert registry.standing.champion_version == "1"
    registry.check_in_step()


@pytest.mark.parametrize("rules", [(), ("not_withdrawn",)])
def test_a_version_withdrawn_since_its_verdict_is_not_approved(
    registry: Registry, rules: tuple[str, ...]
) -> None:
    registry.decide(1)
    registry.decide(2, "approve", "shadow")
    judged = registry.standing
    registry.decide(2, "withdraw", "none")
    passed = (PASSED.model_copy(update={"name": name}) for name in rules)
    made = replace(registry.decision(2), criteria=(PASSED, *passed))
    with pytest.raises(ApprovalError, match="version 2 was rolled back or withdrawn since"):
        promotion.decide(registry.client, registry.lake, KEY, made, seen=judged)
    # A rule that nobody asks for stands in no way of a verdict newer than the withdrawal.
    again = replace(made, criteria=(PASSED,))
    promotion.decide(registry.client, registry.lake, KEY, again, seen=registry.standing)
    assert registry.alias == "2"


@pytest.mark.parametrize(
    "step", ["log_artifact", "set_registered_model_alias", "set_registered_model_tag"]
)
def test_whoever_comes_next_finishes_what_a_crash_left(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    registry.decide(1)

    class KilledError(BaseException):
        pass

    def killed(*_: Any, **__: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(registry.client, step, killed)
        with pytest.raises(KilledError):
            registry.decide(2)
    found = registry.reconcile()
    assert (found.moved_by_hand, found.changed, found.alias_now) == (False, True, "2")
    registry.check_in_step()
    assert registry.reconcile().changed is False
    assert registry.lake.row_count(history.TABLE) == 2


@pytest.mark.parametrize("moved_to", ["1", "3", None])
def test_an_alias_moved_by_hand_is_told_and_put_back(
    registry: Registry, moved_to: str | None
) -> None:
    registry.decide(1)
    registry.decide(2)
    if moved_to is None:
        registry.client.delete_registered_model_alias(MODEL, CHAMPION_ALIAS)
    else:
        registry.client.set_registered_model_alias(MODEL, CHAMPION_ALIAS, moved_to)
    told: list[promotion.Reconciled] = []
    found = registry.reconcile(tell=told.append)
    assert told == [found]
    assert found.moved_by_hand
    assert (found.alias_before, found.alias_now) == (moved_to, "2")
    registry.check_in_step()
    registry.reconcile(tell=told.append)
    assert told == [found]


@pytest.mark.parametrize("made", [(3,), (2,), (3, "approve", "shadow"), (1, "rollback")])
def test_a_decision_that_finds_a_moved_alias_tells_of_it(
    registry: Registry, made: tuple[Any, ...]
) -> None:
    registry.decide(1)
    registry.decide(2)
    registry.client.delete_registered_model_alias(MODEL, CHAMPION_ALIAS)
    told: list[promotion.Reconciled] = []
    registry.decide(*made, tell=told.append)
    assert [(each.alias_before, each.alias_now) for each in told] == [(None, registry.alias)]
    registry.check_in_step()


def test_a_moved_alias_is_told_of_though_serving_cannot_be(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.decide(1)
    registry.client.set_registered_model_alias(MODEL, CHAMPION_ALIAS, "3")
    told: list[promotion.Reconciled] = []
    monkeypatch.setattr(registry.client, "set_registered_model_tag", None)
    with pytest.raises(TypeError):
        registry.decide(2, tell=told.append)
    assert [(each.alias_before, each.alias_now) for each in told] == [("3", "2")]


def test_an_alias_before_any_decision_is_by_hand(registry: Registry) -> None:
    registry.client.set_registered_model_alias(MODEL, CHAMPION_ALIAS, "3")
    assert registry.reconcile().moved_by_hand
    assert registry.alias is None
