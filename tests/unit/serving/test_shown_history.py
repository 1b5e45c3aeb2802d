"""The decisions that the page shows: verified one by one, and in their places."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cryptoml_serving.contract.approval import NO_RECORD, ApprovalRecord, Criterion, sign
from cryptoml_serving.contract.deployment import Deployment
from cryptoml_serving.runtime.history import History, verified

KEY = Ed25519PrivateKey.generate()
PASSED = Criterion(name="skill", passed=True, figure=0.6, threshold=0.5, rule="above")


def chain(length: int, key: Ed25519PrivateKey = KEY) -> list[dict[str, Any]]:
    previous, rows = NO_RECORD, []
    for sequence in range(length):
        record = ApprovalRecord(
            sequence=sequence,
            previous=previous,
            action="approve",
            role="champion",
            model_name="m",
            model_version=str(sequence + 1),
            bundle_digest=f"{sequence:064x}",
            run_id="run",
            claim="direction",
            source="simulated",
            data_versions={},
            git_commit="c",
            criteria=(PASSED,),
            decided_by="a person",
            reason="it passed",
            decided_at=datetime(2024, 3, 1, tzinfo=UTC),
        )
        signed = sign(record, key)
        previous = signed.digest
        rows.append({"sequence": sequence, **signed.model_dump(), "record": signed.record_json})
    return rows


def read(rows: list[dict[str, Any]]) -> History:
    return verified(rows, KEY.public_key())


def test_a_sound_chain_is_in_order_whatever_the_order_of_rows() -> None:
    history = read(list(reversed(chain(4))))
    assert history.faults == 0
    assert [each.record.sequence for each in history.decisions if each.record] == [0, 1, 2, 3]


def test_an_altered_record_is_not_shown_and_its_successor_stands() -> None:
    rows = chain(3)
    altered = json.loads(rows[1]["record"]) | {"reason": "because I say so"}
    rows[1]["record"] = json.dumps(altered, sort_keys=True, separators=(",", ":"))
    history = read(rows)
    assert history.decisions[1].record is None
    assert "signature" in history.decisions[1].fault
    # The row that names the genuine one does not follow what is there now.
    assert "does not follow" in history.decisions[2].fault
    assert not history.decisions[0].fault


def test_another_key_signs_nothing() -> None:
    history = read(chain(2, Ed25519PrivateKey.generate()))
    assert history.faults == 2
    assert all(each.record is None for each in history.decisions)


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_a_missing_row_shows(gone: int) -> None:
    rows = chain(4)
    del rows[gone]
    history = read(rows)
    assert history.faults == len(rows) - gone
    assert "rows are missing" in history.decisions[gone].fault


def test_rows_that_are_no_documents_are_faults() -> None:
    rows = [*chain(1), {"sequence": None, "record": None, "signature": "x", "key_id": "y"}]
    history = read(rows)
    assert [bool(each.fault) for each in history.decisions] == [False, True]


def test_a_decision_is_found_by_number_and_bundle() -> None:
    history = read(chain(3))
    found = history.record_of(1, f"{1:064x}")
    assert found is not None
    assert found.model_version == "2"
    assert history.record_of(1, f"{2:064x}") is None
    assert history.record_of(7, f"{1:064x}") is None


def test_a_faulty_decision_is_nobodys_lineage() -> None:
    rows = chain(3)
    del rows[0]
    assert read(rows).record_of(1, f"{1:064x}") is None


def test_cut_off_rows_show_beside_the_deployment() -> None:
    rows = chain(3)
    whole = read(rows)
    head = whole.decisions[2].digest
    deployment = Deployment(model_name="m", sequence=2, head=head, champion=None)
    assert not whole.lacks(deployment)
    assert read(rows[:2]).lacks(deployment)
    # As many rows, of which the last is another decision.
    assert whole.lacks(deployment.model_copy(update={"head": "e" * 64}))
    assert not read(rows[:2]).lacks(None)
