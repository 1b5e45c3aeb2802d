"""The commands about deployments, over a real lake and a real registry."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake
from typer.testing import CliRunner

from cryptoml_assets.cli import app
from cryptoml_assets.deployment import champion, history, promotion
from cryptoml_assets.deployment.identity import os_identity
from cryptoml_assets.deployment.options import CRITERIA, NOT_WITHDRAWN
from cryptoml_assets.errors import ApprovalError, IdentityError, TrainingRecordError
from cryptoml_assets.operations import approve as approval
from cryptoml_assets.operations.lineage import UnknownPredictionError
from cryptoml_assets.settings import settings
from cryptoml_serving.contract.approval import (
    ApprovalRecord,
    SignedDocument,
    generate_keys,
    load_private_key,
    load_public_key,
    sign,
)
from cryptoml_serving.contract.deployment import read_deployment
from cryptoml_serving.contract.registry import CHAMPION_ALIAS, DEPLOYMENT_TAG
from cryptoml_serving.contract.served import SERVED_PREDICTIONS
from cryptoml_serving.contract.settings import SettingsError
from cryptoml_serving.runtime.served_table import append_new
from tests.decided_home import AT, DecidedHome, passed
from tests.feature_data import BAR
from tests.serving_world import MODEL, NOW, build_templates

WHY = ("--reason", "looked at by hand")


@pytest.fixture
def home(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> DecidedHome:
    made = DecidedHome(tmp_path, build_templates(tmp_path_factory.getbasetemp()))
    made.enter(monkeypatch)
    return made


def ask(*words: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, list(words))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


def answer(*words: str) -> dict[str, Any]:
    status, out, _ = ask(*words, "--json")
    assert status == 0
    found: dict[str, Any] = json.loads(out)
    return found


def refused(why: str, *words: str) -> None:
    with pytest.raises(ApprovalError, match=why):
        ask(*words)


def approved(home: DecidedHome, count: int) -> list[str]:
    """Versions approved by a person, each after the gate compared it with the one before."""
    versions: list[str] = []
    for _ in range(count):
        versions.append(home.judged(versions[-1] if versions else None))
        answer("approve", versions[-1], *WHY)
    return versions


def deployed(home: DecidedHome) -> str | None:
    """The version that serving would follow to."""
    text = home.world.client.get_registered_model(MODEL).tags.get(DEPLOYMENT_TAG)
    if text is None:
        return None
    found = read_deployment(text, load_public_key(home.world.home / "keys" / "approval.pub"))
    return found.champion.model_version if found.champion else None


def placed(home: DecidedHome) -> dict[str, str]:
    """The versions that serving knows, and what each may do."""
    text = home.world.client.get_registered_model(MODEL).tags[DEPLOYMENT_TAG]
    found = read_deployment(text, load_public_key(home.world.home / "keys" / "approval.pub"))
    return {each.model_version: each.role for each in found.placements}


def test_a_person_approves_what_passed_and_a_rollback_undoes_it(
    home: DecidedHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = approved(home, 2)
    third = home.judged(second)
    told = answer("approve", third, *WHY, "--as", "canary", "--percent", "20")
    assert (told["action"], told["role"], told["percent"]) == ("approve", "canary", 20)
    assert told["decided_by"] == os_identity()
    assert told["reason"] == WHY[1]
    assert {each["name"] for each in told["criteria"]} == set(CRITERIA)
    assert deployed(home) == second
    # A rollback a minute later: the instants before and after tell different champions.
    later = NOW + timedelta(minutes=1)
    monkeypatch.setenv("CRYPTOML_NOW", later.isoformat())
    back = answer("rollback", *WHY)
    assert (back["action"], back["model_version"], deployed(home)) == ("rollback", first, first)
    before, after = (answer("served-at", at.isoformat()) for at in (NOW, later))
    assert before["champion"]["model_version"] == second
    assert after["champion"] == back
    assert (before["withdrawn"], after["withdrawn"]) == ([], [second])
    assert [each["model_version"] for each in after["challengers"]] == [third]
    assert before["predictions"] is None
    refused("no champion before version 1 that was not withdrawn; .*: 2, 3", "rollback", *WHY)
    assert answer("rollback", "--to", second, *WHY)["model_version"] == second
    assert deployed(home) == second
    listed = answer("history")["decisions"]
    assert [each["action"] for each in listed] == [*["approve"] * 3, *["rollback"] * 2]
    status, out, _ = ask("history", "--verify")
    assert status == 0
    assert out.splitlines()[-1].startswith("sound: 5 decisions")
    assert "canary 20 %" in out
    nothing = answer("served-at", "2024-03-01T12:59:59+01:00")
    assert (nothing["champion"], nothing["challengers"]) == (None, [])


def test_what_may_not_serve_is_refused_with_what_to_do(
    home: DecidedHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused("no champion to roll back from", "rollback", *WHY)
    (first,) = approved(home, 1)
    second = home.judged(first)
    refused("it has: 2, 1", "approve", "7", *WHY)
    refused("needs a reason", "approve", second, "--reason", " ")
    refused("is the champion, not its challenger", "approve", first, *WHY, "--as", "shadow")
    refused("version 1 is the champion already", "rollback", "--to", first, *WHY)
    refused("version 2 was never approved; .*: none", "rollback", "--to", second, *WHY)
    with pytest.raises(SettingsError, match="--percent 20 is for --as canary"):
        ask("approve", second, *WHY, "--percent", "20")
    failed = (passed("coverage", so=False), *(passed(name) for name in CRITERIA[1:]))
    home.judge(second, first, approved=False, criteria=failed)
    refused(r"did not pass the gate .* \(coverage\)", "approve", second, *WHY)
    home.judge(second, first, criteria=failed)
    refused("did not pass the gate", "approve", second, *WHY)
    home.judge(second, first, criteria=failed[2:])
    refused("says nothing of minimum_rows, beats_base_rate", "approve", second, *WHY)
    home.judge(second, None)
    refused("compared it with champion none, which is 1 now", "approve", second, *WHY)
    home.judge(second, first)
    home.world.client.set_model_version_tag(MODEL, second, "cryptoml.bundle_digest", "f" * 64)
    refused("registered is ffffffffffff: materialise validated_deployment", "approve", second, *WHY)
    third = home.judged(first)
    monkeypatch.setenv("CRYPTOML_OIDC_ISSUER", "https://issuer.example")
    with pytest.raises(IdentityError, match="CRYPTOML_IDENTITY_TOKEN"):
        ask("approve", third, *WHY)
    monkeypatch.setenv("CRYPTOML_GATE_CLAIM", "distribution")
    monkeypatch.delenv("CRYPTOML_OIDC_ISSUER")
    refused("is about direction, CRYPTOML_GATE_CLAIM=distribution", "approve", third, *WHY)
    monkeypatch.delenv("CRYPTOML_GATE_CLAIM")
    answer("approve", third, *WHY)
    # The bundle to go back to was altered, so nothing is recorded.
    run = home.subjects[first].run_id
    with (home.world.home / "artifacts" / run / "artifacts/bundle/model.stablehlo").open("ab") as f:
        f.write(b" ")
    refused("version 1 cannot serve: .* gone or altered .* --to VERSION", "rollback", *WHY)
    assert len(answer("history")["decisions"]) == 2
    assert deployed(home) == third
    monkeypatch.setenv("CRYPTOML_HOME", str(home.folder / "nobody"))
    with pytest.raises(TrainingRecordError, match="no training run has been tracked yet"):
        ask("approve", first, *WHY)


def test_what_reads_what_is_computed_no_more_is_not_put_back(home: DecidedHome) -> None:
    old = home.judged(service="cryptoml_return_0123456789ab")
    refused("version 1 cannot serve: .* other formulas; train another", "approve", old, *WHY)
    # It was approved when the formulas were those.
    with pytest.MonkeyPatch.context() as then:
        then.setattr(champion, "incomparable", lambda *_: None)
        answer("approve", old, *WHY)
    second = home.judged(old)
    answer("approve", second, *WHY)
    refused("version 1 cannot serve: .* other formulas; .* --to VERSION", "rollback", *WHY)
    assert deployed(home) == second
    assert len(answer("history")["decisions"]) == 2


def test_a_verdict_holds_under_its_limits_and_until_the_next_decision(
    home: DecidedHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = approved(home, 2)
    third = home.judged(second)
    # A challenger is given another role on the verdict it came in with.
    answer("approve", third, *WHY, "--as", "shadow")
    answer("approve", third, *WHY, "--as", "canary")
    for name, before in (("GATE_SIGNIFICANCE", "0.05"), ("GATE_DIRECTION_SIGNIFICANCE", "0.025")):
        with monkeypatch.context() as stricter:
            stricter.setenv(f"CRYPTOML_{name}", "0.001")
            refused(f"_{name} of {before}, which is 0.001 now", "approve", third, *WHY)
    for name, value in (("GATE_LATENCY_BUDGET", "40ms"), ("FEE_BPS", "9")):
        with monkeypatch.context() as stricter:
            stricter.setenv(f"CRYPTOML_{name}", value)
            refused(f"CRYPTOML_{name} of .* now: materialise", "approve", third, *WHY)
    answer("rollback", *WHY)
    assert deployed(home) == first
    # Its verdict is about the champion of today, and says that it was never withdrawn.
    refused("withdrawn since its verdict: `cryptoml rollback --to 2`", "approve", second, *WHY)
    without = tuple(name for name in CRITERIA if name != "not_withdrawn")
    monkeypatch.setenv("CRYPTOML_GATE_REQUIRED", ",".join(without))
    criteria = tuple(passed(name) for name in without)
    home.judge(second, first, criteria=criteria, decisions=1)
    refused("is older than decision 1 about it .approve.: materialise", "approve", second, *WHY)
    home.judge(second, first, criteria=criteria)
    told = answer("approve", second, *WHY)
    assert (told["sequence"], deployed(home)) == (5, second)


def test_a_challenger_is_withdrawn_and_a_champion_is_not(
    home: DecidedHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused("version 1 is no challenger; challengers are: none", "withdraw", home.judged(), *WHY)
    first, second = "1", home.judged("1")
    answer("approve", first, *WHY)
    home.judge(second, first)
    answer("approve", second, *WHY, "--as", "canary", "--percent", "20")
    refused("version 1 is the champion, .* `cryptoml rollback`", "withdraw", first, *WHY)
    refused("version 7 is no challenger; challengers are: 2", "withdraw", "7", *WHY)
    refused("needs a reason", "withdraw", second, "--reason", " ")

    def die(*_: Any, **__: Any) -> None:
        raise ConnectionResetError

    with monkeypatch.context() as dying:
        dying.setattr(promotion, "reconcile", die)
        with pytest.raises(ConnectionResetError):
            ask("withdraw", second, *WHY)
    assert placed(home) == {first: "champion", second: "canary"}
    told = answer("withdraw", second, *WHY)
    assert placed(home) == {first: "champion"}
    assert (told["sequence"], told["action"], told["role"]) == (2, "withdraw", "none")
    assert (told["percent"], told["decided_by"], told["reason"]) == (0, os_identity(), WHY[1])
    assert "decision 2: withdraw version 2 as none" in ask("withdraw", second, *WHY)[1]
    assert len(answer("history")["decisions"]) == 3
    refused("withdrawn since its verdict", "approve", second, *WHY)


def test_a_command_that_died_after_deciding_is_finished_and_not_done_twice(
    home: DecidedHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = approved(home, 3)

    def die(*_: Any, **__: Any) -> None:
        raise ConnectionResetError

    with monkeypatch.context() as dying:
        dying.setattr(promotion, "reconcile", die)
        with pytest.raises(ConnectionResetError):
            ask("rollback", *WHY)
    assert deployed(home) == third
    status, _, said = ask("history", "--verify")
    assert status == 1
    assert "the registry follows decision 2, the newest is 3: a run died in between" in said
    refused("decision 3: rollback version 2 .* it is now", "rollback", *WHY)
    assert deployed(home) == second
    assert len(answer("history")["decisions"]) == 4
    fourth = home.judged(second)
    with monkeypatch.context() as dying:
        dying.setattr(promotion, "reconcile", die)
        with pytest.raises(ConnectionResetError):
            ask("approve", fourth, *WHY)
    assert answer("approve", fourth, *WHY)["sequence"] == 4
    assert deployed(home) == fourth
    assert answer("rollback", "--to", first, *WHY)["model_version"] == deployed(home) == first


def moved_by_hand(home: DecidedHome, version: str) -> None:
    home.world.client.set_registered_model_alias(MODEL, CHAMPION_ALIAS, version)


def alias_notices() -> list[str]:
    """Key of each notice of a moved alias that the daemon is to send."""
    with closing(sqlite3.connect(settings().home_path / "notices.db")) as database:
        kept = "SELECT key FROM notices WHERE kind = 'alias_moved' AND repeats IS NULL ORDER BY id"
        return [key for (key,) in database.execute(kept)]


def test_each_command_that_finds_a_moved_alias_tells_of_it(
    home: DecidedHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it decides something, or finishes what was decided before."""
    monkeypatch.setenv("CRYPTOML_NOTIFY_QUIET", "0s")
    first, second = approved(home, 2)
    third = home.judged(second)
    by_first, by_third = (f"alias_moved:{MODEL}:{version}" for version in (first, third))
    for count, words in enumerate(
        [
            ("approve", third, *WHY, "--as", "shadow"),
            ("approve", third, *WHY, "--as", "shadow"),
            ("withdraw", third, *WHY),
            ("withdraw", third, *WHY),
        ],
        start=1,
    ):
        moved_by_hand(home, first)
        answer(*words)
        assert alias_notices() == [by_first] * count
    moved_by_hand(home, third)
    answer("rollback", *WHY)
    assert alias_notices()[4:] == [by_third]

    def die(*_: Any, **__: Any) -> None:
        raise ConnectionResetError

    with monkeypatch.context() as dying:
        dying.setattr(promotion, "reconcile", die)
        with pytest.raises(ConnectionResetError):
            ask("rollback", "--to", second, *WHY)
    moved_by_hand(home, third)
    refused("it is now", "rollback", *WHY)
    assert alias_notices()[4:] == [by_third] * 2
    assert (deployed(home), ask("history", "--verify")[0]) == (second, 0)


def test_a_record_of_notices_that_is_broken_stops_no_decision(home: DecidedHome) -> None:
    first, _ = approved(home, 2)
    (settings().home_path / "notices.db").mkdir()
    home.world.client.delete_registered_model_alias(MODEL, CHAMPION_ALIAS)
    assert answer("rollback", *WHY)["model_version"] == deployed(home) == first


@pytest.mark.parametrize("judged_by", [CRITERIA, tuple(n for n in CRITERIA if n != NOT_WITHDRAWN)])
def test_what_is_withdrawn_while_it_is_being_approved_stays_withdrawn(
    home: DecidedHome, monkeypatch: pytest.MonkeyPatch, judged_by: tuple[str, ...]
) -> None:
    monkeypatch.setenv("CRYPTOML_GATE_REQUIRED", ",".join(judged_by))
    (first,) = approved(home, 1)
    second = home.judged(first)
    answer("approve", second, *WHY, "--as", "shadow")
    home.judge(second, first, criteria=tuple(passed(name) for name in judged_by))

    def meanwhile(*_: Any) -> None:
        answer("withdraw", second, *WHY)

    monkeypatch.setattr(approval, "check_can_serve", meanwhile)
    refused("version 2 was rolled back or withdrawn since", "approve", second, *WHY)
    assert placed(home) == {first: "champion"}


def rewrite(home: DecidedHome, rows: pl.DataFrame) -> None:
    write_deltalake(home.lake.address(history.TABLE), rows, mode="overwrite")


def resigned(home: DecidedHome, rows: pl.DataFrame) -> pl.DataFrame:
    """The first decision as somebody with a key of his own would have it."""
    generate_keys(home.folder / "theirs.key", home.folder / "theirs.pub")
    record = ApprovalRecord.model_validate_json(rows["record"][0])
    theirs = sign(
        record.model_copy(update={"reason": "trust me"}),
        load_private_key(home.folder / "theirs.key"),
    )
    changes = {"reason": "trust me", "record": theirs.record_json}
    changes |= {"signature": theirs.signature, "key_id": theirs.key_id}
    return replaced(rows, **changes)


def replaced(rows: pl.DataFrame, **changes: str) -> pl.DataFrame:
    first = pl.col("sequence") == 0
    return rows.with_columns(
        pl.when(first).then(pl.lit(value)).otherwise(name).alias(name)
        for name, value in changes.items()
    )


def test_every_way_to_tamper_with_the_history_shows(home: DecidedHome) -> None:
    approved(home, 3)
    stored = history.rows(home.lake)
    without = [name for name in stored.columns if name != "sequence"]
    tampered = {
        "the column reason says 'better', signed is": replaced(stored, reason="better"),
        "the signature is not that of this record": replaced(
            stored, record=stored["record"][0].replace("by hand", "by foot")
        ),
        "rows are missing, double or replaced": stored.filter(pl.col("sequence") != 1),
        "follows decision 2": stored.head(2),
        "signed by key": resigned(home, stored),
        "the registry's deployment follows": stored.clear(),
        **{
            f"row 2 (sequence 2, version {version}): ": stored.with_columns(
                pl.when(pl.col("sequence") != 2).then(name).alias(name) for name in names
            )
            for version, names in ((3, ["record"]), (None, without))
        },
    }
    for why, rows in tampered.items():
        rewrite(home, rows)
        status, out, _ = ask("history", "--verify", "--json")
        told = json.loads(out)
        assert (status, told["sound"]) == (1, False), why
        assert any(why in fault for fault in told["faults"]), told["faults"]
        status, _, said = ask("history", "--verify")
        assert status == 1
        assert f"FAULT {told['faults'][0]}" in said
        # Without proof the table is still listed, and nothing is decided or concluded from it.
        assert ask("history")[0] == 0
        if why.startswith("the registry") or "follows" in why:
            continue
        refused("not sound", "served-at", "2024-03-02")
        refused("not sound", "rollback", *WHY)
    rewrite(home, stored)
    assert ask("history", "--verify")[0] == 0
    home.world.client.delete_registered_model_tag(MODEL, DEPLOYMENT_TAG)
    status, _, said = ask("history", "--verify")
    assert status == 1
    assert "the registry holds no signed deployment" in said
    signed = SignedDocument(record_json="{}", signature="", key_id="0" * 16)
    home.world.client.set_registered_model_tag(MODEL, DEPLOYMENT_TAG, signed.model_dump_json())
    assert "the deployment in the registry is not to be trusted" in ask("history", "--verify")[2]
    shutil.rmtree(home.lake.address(history.TABLE))
    assert "the deployment in the registry is not to be trusted" in ask("history", "--verify")[2]
    rewrite(home, stored)
    shutil.rmtree(home.world.home / "keys")
    assert "nothing can be verified" in ask("history", "--verify")[2]


def test_a_prediction_is_walked_back_to_bars_and_blocks(home: DecidedHome) -> None:
    with pytest.raises(UnknownPredictionError, match="no prediction has been logged yet"):
        ask("lineage", "x")
    first, second = approved(home, 2)
    home.log(first, sequence=0, at=AT - BAR)
    made = home.log(second, sequence=1)
    told = answer("lineage", made.prediction_id, "--verify")
    assert told["problems"] == []
    assert (told["known_in_time"], told["answers_again"], told["revised"]) == (True, True, False)
    assert told["same_inputs"]
    assert told["prediction"]["expected_return"] == made.expected_return
    assert (told["approval"]["sequence"], told["approval"]["model_version"]) == (1, second)
    assert told["run"]["run_id"] == home.subjects[second].run_id
    assert told["training_data"] == {"training_set": 1}
    values = {name: v for each in told["inputs"] for name, v in each["values"].items()}
    assert values == home.inputs(AT)
    assert [each["event_timestamp"] for each in told["inputs"]] == [
        AT.isoformat(),
        f"{NOW.date()}T04:00:00+00:00",
    ]
    bars, metrics = told["sources"]
    # sma_gap_5 is over five bars: the newest closed at the prediction's instant.
    assert (bars["first"], bars["last"]) == ((AT - 5 * BAR).isoformat(), AT.isoformat())
    assert (bars["rows"], bars["expected"], bars["newest"]["close_time"]) == (5, 5, bars["last"])
    assert (metrics["table"], metrics["asset"], metrics["rows"]) == ("network_metrics", "btc", 1)
    around = answer("served-at", made.computed_at.isoformat())
    assert around["champion"] is None
    assert {each["model_version"]: each["predictions"] for each in around["predictions"]} == {
        first: 1,
        second: 1,
    }
    # A bar is revised that closed two bars before.
    home.revise(AT - 3 * BAR)
    told = answer("lineage", made.prediction_id[:13], "--verify")
    assert (told["revised"], told["answers_again"], told["problems"]) == (True, True, [])
    (price, chain), now = told["inputs"], home.inputs(AT)
    assert price["values"]["sma_gap_5"] == values["sma_gap_5"]
    assert price["revised"] == {"sma_gap_5": now["sma_gap_5"]}
    assert chain["revised"] == {}
    assert [each["revised"] for each in told["sources"]] == [True, False]
    status, lines, _ = ask("lineage", made.prediction_id)
    assert status == 0
    assert "sma_gap_5" in lines
    assert "\nrevised since" in lines
    near = made.prediction_id[:-1] + ("0" if made.prediction_id[-1] != "0" else "1")
    with pytest.raises(UnknownPredictionError, match=f"close: {made.prediction_id}"):
        ask("lineage", near)


def test_the_inputs_told_of_are_those_that_the_id_is_made_of(home: DecidedHome) -> None:
    (version,) = approved(home, 1)
    # A minute before the chain's row of the day is known, and answered again once it is.
    dawn = datetime.combine(NOW.date(), time(4), UTC) - timedelta(minutes=5)
    before, after = (home.log(version, 0, dawn, timedelta(minutes=m)) for m in (4, 6))
    assert before.prediction_id != after.prediction_id
    for made, day in ((before, 1), (after, 0)):
        told = answer("lineage", made.prediction_id, "--verify")
        assert (told["problems"], told["same_inputs"], told["answers_again"]) == ([], True, True)
        known = datetime.fromisoformat(told["inputs"][1]["event_timestamp"])
        assert known == dawn + timedelta(minutes=5) - timedelta(days=day)
        # Metrics of the day before.
        assert told["sources"][1]["first"].startswith(str(known.date() - timedelta(days=1)))
    # The same answer, told to have been made of something else.
    name = str(uuid4())
    append_new(home.lake.uri, [after.model_copy(update={"prediction_id": name})])
    status, lines, _ = ask("lineage", name, "--verify")
    assert status == 1
    assert f"of them it would be called {after.prediction_id}" in lines
    assert "from the same inputs the bundle gives the same answer" in lines


def test_what_is_missing_on_the_way_back_is_told(home: DecidedHome) -> None:
    (first,) = approved(home, 1)
    second = home.judged(first)
    stray = home.log(second, sequence=0)
    told = answer("lineage", stray.prediction_id)
    assert told["approval"] is None
    assert told["problems"][0].startswith("by decision 0 version 2 had no role for bundle")
    made = home.log(first, sequence=0)
    shutil.rmtree(home.world.home / "artifacts" / home.subjects[first].run_id)
    told = answer("lineage", made.prediction_id)
    assert told["approval"]["model_version"] == first
    assert "cannot be read any more" in told["problems"][0]
    assert ask("lineage", made.prediction_id, "--verify")[0] == 1
    # A table without a row, as before the first prediction, says as little as none.
    DeltaTable(home.lake.address(SERVED_PREDICTIONS)).delete()
    with pytest.raises(UnknownPredictionError, match="no prediction has been logged yet"):
        ask("lineage", made.prediction_id)
