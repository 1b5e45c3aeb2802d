"""The policy's newest challenger takes the place of its one before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cryptoml_assets.deployment.standing import standing
from cryptoml_assets.deployment.superseding import POLICY, superseded
from cryptoml_assets.resources.lake import Lake
from tests.deployment_world import MODEL, decided, decision


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
