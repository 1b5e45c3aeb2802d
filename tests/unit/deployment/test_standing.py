"""What decisions add up to."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from cryptoml_assets.deployment import standing as stands
from cryptoml_assets.deployment.history import Decision
from cryptoml_assets.deployment.standing import Standing, deployment, served_at, standing
from cryptoml_assets.resources.lake import Lake
from cryptoml_serving.contract.deployment import Deployment
from cryptoml_serving.contract.manifest import canonical_json
from tests.deployment_world import BEGAN, MODEL, decided, decision


def after(tmp_path: Path, *decisions: Decision) -> Standing:
    return standing(decided(Lake(str(tmp_path)), *decisions), MODEL)


def versions(now: Standing) -> tuple[str | None, list[str], list[str], str | None]:
    challengers = [each.record.model_version for each in now.challengers]
    before = now.before.record.model_version if now.before else None
    return now.champion_version, challengers, sorted(now.withdrawn), before


WITHDRAWN = {"action": "withdraw", "role": "none"}
BACK = {"action": "rollback"}


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ((decision(1),), ("1", [], [], None)),
        ((decision(1), decision(2)), ("2", [], [], "1")),
        ((decision(1), decision(2, role="shadow")), ("1", ["2"], [], None)),
        (
            (decision(1), decision(2, role="shadow"), decision(2, role="canary")),
            ("1", ["2"], [], None),
        ),
        ((decision(1), decision(2, role="shadow"), decision(2, "promote")), ("2", [], [], "1")),
        (
            (decision(1), decision(2, role="canary"), decision(2, **WITHDRAWN)),
            ("1", [], ["2"], None),
        ),
        ((decision(1), decision(2), decision(1, **BACK)), ("1", [], ["2"], None)),
        ((decision(1), decision(2), decision(3), decision(1, **BACK)), ("1", [], ["3"], "2")),
        ((decision(1), decision(2), decision(1, **BACK), decision(2)), ("2", [], [], "1")),
        ((decision(1), decision(2), decision(2, **WITHDRAWN)), ("1", [], ["2"], None)),
        ((decision(1), decision(1, **WITHDRAWN)), (None, [], ["1"], None)),
        ((decision(1, role="shadow"), decision(2)), ("2", ["1"], [], None)),
        ((decision(1), decision(2), decision(2, role="shadow")), ("1", ["2"], [], None)),
    ],
)
def test_decisions_add_up(
    tmp_path: Path, made: tuple[Decision, ...], expected: tuple[object, ...]
) -> None:
    assert versions(after(tmp_path, *made)) == expected


def test_what_stood_at_an_instant_is_what_was_decided_until_then(tmp_path: Path) -> None:
    entries = decided(Lake(str(tmp_path)), decision(1), decision(2), decision(3))
    for hours, champion in ((0.5, None), (1, "1"), (1.5, "1"), (2, "2"), (99, "3")):
        when = BEGAN + timedelta(hours=hours)
        assert served_at(entries, MODEL, when).champion_version == champion


def test_a_decision_never_counts_before_those_it_follows(tmp_path: Path) -> None:
    """The clock of who rolled back was an hour behind."""
    late = decision(1, **BACK, decided_at=BEGAN + timedelta(hours=1.5))
    entries = decided(Lake(str(tmp_path)), decision(1), decision(2), late)
    half_past = served_at(entries, MODEL, BEGAN + timedelta(hours=1.75))
    assert (half_past.champion_version, half_past.withdrawn) == ("1", ())
    after_all = served_at(entries, MODEL, BEGAN + timedelta(hours=2))
    assert (after_all.champion_version, after_all.withdrawn) == ("1", ("2",))


def test_the_deployment_says_what_stands_as_of_the_newest_decision(tmp_path: Path) -> None:
    entries = decided(
        Lake(str(tmp_path)), decision(1), decision(2, role="canary"), decision(3, role="shadow")
    )
    found = deployment(entries, MODEL)
    assert found is not None
    assert (found.sequence, found.head) == (2, entries[-1].digest)
    assert [(each.model_version, each.role, each.percent) for each in found.placements] == [
        ("1", "champion", 0.0),
        ("2", "canary", 10.0),
        ("3", "shadow", 0.0),
    ]
    assert deployment(entries, "another") is None


def test_the_deployment_names_what_was_taken_back_the_last_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = (
        *(decision(1), decision(2), decision(3, role="shadow"), decision(3, **WITHDRAWN)),
        *(decision(1, **BACK), decision(4, role="canary"), decision(4, **WITHDRAWN)),
    )
    entries = decided(Lake(str(tmp_path)), *made)
    found = deployment(entries, MODEL)
    assert found is not None
    assert found.withdrawn == ("3", "2", "4")
    monkeypatch.setattr(stands, "MOST_WITHDRAWN", 2)
    newest = deployment(entries, MODEL)
    assert newest is not None
    assert newest.withdrawn == ("2", "4")


def test_challengers_push_no_withdrawn_champion_out_of_the_deployment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [decision(1), decision(2), decision(2, **WITHDRAWN)]
    for version in (3, 4, 5):
        made += [decision(version, role="shadow"), decision(version, **WITHDRAWN)]
    made += [decision(6, role="canary"), decision(6, "promote"), decision(6, **WITHDRAWN)]
    entries = decided(Lake(str(tmp_path)), *made)
    for room, named in (
        (5, ("2", "3", "4", "5", "6")),
        (4, ("2", "4", "5", "6")),
        (3, ("2", "5", "6")),
        (2, ("2", "6")),
        (1, ("6",)),
    ):
        monkeypatch.setattr(stands, "MOST_WITHDRAWN", room)
        found = deployment(entries, MODEL)
        assert found is not None
        assert found.withdrawn == named


def test_a_deployment_that_names_none_is_spelt_as_before_there_were_any(tmp_path: Path) -> None:
    found = deployment(decided(Lake(str(tmp_path)), decision(1)), MODEL)
    assert found is not None
    assert b"withdrawn" not in canonical_json(found)
    with pytest.raises(ValueError, match="placed and withdrawn: 1"):
        Deployment.model_validate(found.model_dump() | {"withdrawn": ("1", "2")})


def test_other_models_do_not_count(tmp_path: Path) -> None:
    entries = decided(Lake(str(tmp_path)), decision(1))
    assert standing(entries, "another") == Standing()
