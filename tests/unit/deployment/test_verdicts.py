"""The table of verdicts."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from cryptoml_assets.deployment import verdicts
from cryptoml_assets.deployment.options import GateSettings
from cryptoml_assets.deployment.verdicts import Judged
from cryptoml_assets.errors import ApprovalError
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import Settings
from tests.deployment_world import BEGAN, FAILED, KEY, MODEL, PASSED, subject

PASS = Judged(
    subject=subject(1),
    judged_at=BEGAN,
    approved=True,
    criteria=(PASSED,),
    champion_version=None,
    limits={"gate_significance": 0.05},
    decisions=0,
    source="simulated",
    data_versions={"price_features": 3},
    git_commit="abc",
    test=(BEGAN - timedelta(days=2), BEGAN - timedelta(days=1)),
)
FAIL = replace(
    PASS, approved=False, criteria=(FAILED,), champion_version="4", test=None, data_versions={}
)


def stored(tmp_path: Path, *judged: Judged) -> Lake:
    lake = Lake(str(tmp_path / "lake"))
    for each in judged:
        verdicts.record(lake, each, KEY)
    return lake


def newest(lake: Lake, version: str = "1", model: str = MODEL) -> Judged | None:
    return verdicts.newest(lake, model, version, KEY.public_key())


def test_a_verdict_reads_as_it_was_given_and_others_are_others(tmp_path: Path) -> None:
    assert newest(Lake(str(tmp_path))) is None
    lake = stored(tmp_path, PASS, replace(FAIL, subject=subject(2)))
    assert newest(lake) == PASS
    assert newest(lake, "2") == replace(FAIL, subject=subject(2))
    assert newest(lake, model="another") is None


def test_the_newest_of_one_instant_is_the_one_given_last(tmp_path: Path) -> None:
    lake = stored(tmp_path, PASS, FAIL, PASS, FAIL)
    assert newest(lake) == FAIL
    assert verdicts.stored(lake, MODEL)["approved"].to_list() == [True, False, True, False]


LAST = pl.col("number") == 2
TAMPERED: dict[str, tuple[pl.Expr | None, str]] = {
    "an old pass says it is the newest": (
        pl.when(LAST).then(pl.lit(0)).otherwise(pl.lit(9)).cast(pl.Int64).alias("number"),
        "",
    ),
    "the rejection is about another version": (
        pl.when(LAST).then(pl.lit("7")).otherwise("model_version").alias("model_version"),
        "",
    ),
    "the rejection reads as a pass": (LAST.or_(LAST.not_()).alias("approved"), ""),
    "so does the signed text": (
        pl.col("record").str.replace_all("false", "true"),
        "verdict 2 of the gate is not to be trusted: the signature is not that of this record",
    ),
    "the rejection is signed no more": (
        pl.when(LAST).then(None).otherwise("signature").alias("signature"),
        "verdict 2 of the gate was never signed: restore the lake table gate_verdicts",
    ),
    "another key": (pl.lit("0" * 16).alias("key_id"), "verdict 0 .* signed by key 0000"),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_only_what_is_signed_counts(tmp_path: Path, how: str) -> None:
    lake = stored(tmp_path, PASS, PASS, FAIL)
    change, why = TAMPERED[how]
    lake.overwrite(verdicts.TABLE, lake.scan(verdicts.TABLE).with_columns(change).collect())
    if why:
        with pytest.raises(ApprovalError, match=why):
            newest(lake)
    else:
        assert newest(lake) == FAIL


def test_a_verdict_that_is_missing_or_double_shows(tmp_path: Path) -> None:
    lake = stored(tmp_path, PASS, FAIL, replace(PASS, subject=subject(2)))
    rows = lake.scan(verdicts.TABLE).sort("number").collect()
    for changed in (rows.filter(pl.col("number") != 1), pl.concat([rows, rows.head(1)])):
        lake.overwrite(verdicts.TABLE, changed)
        with pytest.raises(ApprovalError, match="missing or double: restore the lake table"):
            newest(lake)
    lake.overwrite(verdicts.TABLE, rows.drop("record", "signature", "key_id"))
    with pytest.raises(ApprovalError, match="verdict 0 of the gate was never signed"):
        newest(lake)
    # Counting, and adding to such a table, goes on.
    verdicts.record(lake, PASS, KEY)
    assert verdicts.stored(lake, MODEL)["number"].to_list() == [0, 1, 2, 3]


def test_limits_are_all_that_the_gate_and_its_costs_ask_for() -> None:
    limits = verdicts.limits_of(Settings())
    of_gate = {name for name, value in vars(GateSettings()).items() if type(value) is not str}
    chosen = {"gate_required", "gate_canary_percent"}
    assert set(limits) == of_gate - chosen | {"fee_bps", "slippage_bps"}
    assert limits["gate_latency_budget"] == 0.05
