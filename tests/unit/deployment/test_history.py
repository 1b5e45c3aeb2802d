"""The table of decisions: what can be done to it, and that every edit shows."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cryptoml_assets.deployment import history
from cryptoml_assets.deployment.standing import deployment
from cryptoml_assets.errors import ApprovalError
from cryptoml_assets.resources.lake import Lake
from cryptoml_serving.contract.approval import ApprovalInvalidError, sign
from tests.deployment_world import FAILED, KEY, MODEL, decided, decision

PUBLIC = KEY.public_key()


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path))


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    """Four decisions as they are stored."""
    lake = Lake(str(tmp_path_factory.mktemp("four")))
    decided(
        lake,
        decision(1),
        decision(2, role="canary"),
        decision(2, action="promote"),
        decision(1, action="rollback"),
    )
    return history.rows(lake)


def edited(stored: pl.DataFrame, place: int, **columns: Any) -> pl.DataFrame:
    rows = stored.to_dicts()
    rows[place].update(columns)
    return pl.DataFrame(rows, schema=stored.schema)


def rewritten(stored: pl.DataFrame, place: int, key: Ed25519PrivateKey, **fields: Any) -> Any:
    """One record with other contents, signed anew."""
    record = history._entries(stored, PUBLIC)[place].record.model_copy(update=fields)
    entry = history.Entry(record, sign(record, key))
    return edited(stored, place, **history._row(entry))


def test_a_sound_history_has_no_fault_and_reads_as_it_was_written(four: pl.DataFrame) -> None:
    assert history.faults(four, PUBLIC) == []
    entries = history._entries(four, PUBLIC)
    assert [each.record.action for each in entries] == ["approve", "approve", "promote", "rollback"]
    assert [each.record.sequence for each in entries] == [0, 1, 2, 3]
    assert [each.record.previous for each in entries[1:]] == [e.digest for e in entries[:-1]]
    head = deployment(entries, MODEL)
    assert head is not None
    assert history.faults(four, PUBLIC, head) == []


@pytest.mark.parametrize("column", [name for name in history.SCHEMA if name != "sequence"])
def test_an_edit_of_any_column_of_any_row_shows(four: pl.DataFrame, column: str) -> None:
    for place in range(four.height):
        value = four[column][place]
        other = (
            value + "x"
            if isinstance(value, str)
            else value * 2 + 1
            if isinstance(value, float)
            else value.replace(year=2020)
        )
        found = history.faults(edited(four, place, **{column: other}), PUBLIC)
        assert any(told.startswith(f"row {place} ") for told in found)


@pytest.mark.parametrize("column", [name for name in history.SCHEMA if name != "sequence"])
def test_a_value_that_is_gone_shows(four: pl.DataFrame, column: str) -> None:
    found = history.faults(edited(four, 1, **{column: None}), PUBLIC)
    assert any(told.startswith("row 1 ") for told in found)


def test_a_table_of_other_columns_is_no_history(lake: Lake, four: pl.DataFrame) -> None:
    lake.append(history.TABLE, four.drop("sequence", "percent"))
    with pytest.raises(ApprovalError, match="has no sequence, percent as this code writes them"):
        history.rows(lake)


def test_another_order_shows(four: pl.DataFrame) -> None:
    swapped = four.with_columns(sequence=pl.Series([1, 0, 2, 3]))
    assert history.faults(swapped, PUBLIC)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_row_left_out_shows(four: pl.DataFrame, place: int) -> None:
    left = four.filter(pl.col("sequence") != place)
    assert history.faults(left, PUBLIC)
    # Nor does it help to number the rest anew.
    assert history.faults(left.with_columns(sequence=pl.int_range(pl.len())), PUBLIC)


def test_a_row_twice_shows(four: pl.DataFrame) -> None:
    assert history.faults(pl.concat([four, four.tail(1)]), PUBLIC)


def test_missing_newest_rows_show_against_the_signed_deployment(four: pl.DataFrame) -> None:
    head = deployment(history._entries(four, PUBLIC), MODEL)
    assert history.faults(four.head(3), PUBLIC) == []
    assert any("missing" in told for told in history.faults(four.head(3), PUBLIC, head))


def test_a_record_signed_anew_with_the_same_key_breaks_the_chain(four: pl.DataFrame) -> None:
    forged = rewritten(four, 1, KEY, reason="I say so")
    (told,) = history.faults(forged, PUBLIC)
    assert told.startswith("row 2 ")
    assert "the row before is" in told


def test_a_record_of_a_foreign_key_shows(four: pl.DataFrame) -> None:
    foreign = rewritten(four, 3, Ed25519PrivateKey.generate())
    assert any("trusted is" in told for told in history.faults(foreign, PUBLIC))


def test_nothing_is_read_from_or_added_to_a_history_that_is_not_sound(
    lake: Lake, four: pl.DataFrame
) -> None:
    lake.append(history.TABLE, edited(four, 1, reason="better"))
    with pytest.raises(ApprovalError, match="not sound: row 1"):
        history.read(lake, PUBLIC)
    with pytest.raises(ApprovalError, match="not sound: row 1"):
        decided(lake, decision(3))
    assert lake.row_count(history.TABLE) == four.height


def test_a_role_is_never_given_on_a_criterion_that_failed(lake: Lake) -> None:
    with pytest.raises(ApprovalInvalidError, match="not passed: significance"):
        decided(lake, decision(1, criteria=(FAILED,)))
    assert not lake.exists(history.TABLE)
    entries = decided(lake, decision(1, action="withdraw", role="none", criteria=(FAILED,)))
    assert json.loads(entries[0].signed.record_json)["criteria"][0]["passed"] is False


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"role": "canary", "percent": 0.0}, "answers 0 %"),
        ({"role": "champion", "percent": 10.0}, "answers 10 %"),
        ({"action": "withdraw", "role": "champion"}, "cannot give"),
        ({"action": "rollback", "role": "shadow"}, "makes a champion"),
    ],
)
def test_a_decision_that_means_nothing_is_refused(
    lake: Lake, wrong: dict[str, Any], why: str
) -> None:
    with pytest.raises(ApprovalError, match=why):
        decided(lake, decision(1, **wrong))


def test_writers_at_the_same_time_make_one_chain(lake: Lake) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda version: decided(lake, decision(version)), range(1, 9)))
    entries = history.read(lake, PUBLIC)
    assert sorted(int(each.record.model_version) for each in entries) == list(range(1, 9))
