"""The policy's newest challenger takes the place of its one before."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cryptoml_assets.deployment import history
from cryptoml_assets.deployment.standing import standing
from cryptoml_assets.deployment.superseding import (
    LEAST_STAY,
    POLICY,
    place,
    superseded,
    too_young,
)
from cryptoml_assets.errors import ApprovalError
from cryptoml_assets.resources.lake import Lake
from cryptoml_serving.contract.approval import ApprovalInvalidError
from tests.deployment_world import BEGAN, FAILED, KEY, MODEL, decided, decision


def asked(role: str) -> Any:
    return decision(9, role=role, decided_by=POLICY)


@pytest.mark.parametrize(
    ("role", "gone"), [("shadow", ["2", "3"]), ("canary", ["5"]), ("champion", [])]
)
def test_the_policys_own_of_the_same_role_go(tmp_path: Path, role: str, gone: list[str]) -> None:
    lake = Lake(str(tmp_path))
    entries = decided(
        lake,
        decision(1, decided_by=POLICY),
        decision(2, role="shadow", decided_by=POLICY),
        decision(3, role="shadow", decided_by=POLICY),
        decision(4, role="shadow", decided_by="os:anna"),
        decision(5, role="canary", decided_by=POLICY),
    )
    made = superseded(standing(entries, MODEL), asked(role))
    assert [each.subject.model_version for each in made] == gone
    for each in made:
        assert (each.decided_by, each.reason) == (POLICY, "superseded by version 9")
        assert each.decided_at == asked(role).decided_at
    after = standing(decided(lake, *made), MODEL) if made else standing(entries, MODEL)
    left = {entry.record.model_version for entry in after.challengers}
    assert left == {"2", "3", "4", "5"} - set(gone)
    assert (after.champion_version, after.withdrawn) == ("1", tuple(gone))


@pytest.mark.parametrize(
    ("champion", "challenger", "waits"),
    [
        (timedelta(0), timedelta(0), ()),
        (timedelta(0), timedelta(seconds=1), ("2",)),
        # Compared with another champion before, so that nothing it was seen to do counts.
        (timedelta(seconds=1), timedelta(0), ("2",)),
    ],
)
def test_a_challenger_stays_until_its_looks_could_decide(
    tmp_path: Path, champion: timedelta, challenger: timedelta, waits: tuple[str, ...]
) -> None:
    entries = decided(
        Lake(str(tmp_path)),
        decision(1, decided_by=POLICY, decided_at=BEGAN + champion),
        decision(2, role="shadow", decided_by=POLICY, decided_at=BEGAN + challenger),
        decision(3, role="shadow", decided_by="os:anna", decided_at=BEGAN + timedelta(days=1)),
        decision(4, role="canary", decided_by=POLICY, decided_at=BEGAN + timedelta(days=1)),
    )
    asked = decision(9, role="shadow", decided_by=POLICY, decided_at=BEGAN + LEAST_STAY)
    young = too_young(standing(entries, MODEL), asked)
    assert tuple(entry.record.model_version for entry in young) == waits
    first = decision(9, role="champion", decided_by=POLICY, decided_at=BEGAN)
    assert too_young(standing(entries, MODEL), first) == []


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"percent": 60.0}, "other canaries answer 50 %"),
        ({"criteria": (FAILED,)}, "criteria not passed"),
        ({}, "held against champion None, which is 1 by now"),
    ],
)
def test_nothing_is_withdrawn_for_a_decision_that_is_refused(
    tmp_path: Path, other: dict[str, Any], why: str
) -> None:
    lake = Lake(str(tmp_path))
    entries = decided(
        lake,
        decision(1, decided_by=POLICY),
        decision(2, role="canary", percent=30.0, decided_by=POLICY),
        decision(3, role="canary", percent=50.0, decided_by="os:anna"),
    )
    seen = standing(entries if other else [], MODEL)
    refused = decision(9, role="canary", decided_by=POLICY, **other)
    with pytest.raises((ApprovalError, ApprovalInvalidError), match=why):
        place(None, lake, KEY, refused, seen=seen)
    assert len(history.read(lake, KEY.public_key())) == len(entries)
