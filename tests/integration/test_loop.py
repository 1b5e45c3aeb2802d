"""The loop in small: the market changes, the platform notices, retrains, and recovers."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from cryptoml_assets.deployment import history
from cryptoml_assets.operations.loop import FULL
from cryptoml_assets.resources.lake import Lake
from cryptoml_serving.contract.approval import load_public_key

REPOSITORY = Path(__file__).parents[2]
SMALL = dataclasses.replace(
    FULL,
    calm=timedelta(days=3),
    longest=timedelta(days=10),
    recovery=timedelta(days=3),
    step=timedelta(days=1),
    watch=timedelta(days=3),
    settings={**FULL.settings, "CRYPTOML_RETRAIN_REPORTS": "1"},
)
#: The gate judges what can be served; trees take most of a training here, and never can.
RUN = """
import sys
from pathlib import Path
from cryptoml_assets.operations import loop
from tests.integration.test_loop import SMALL
opened = loop.opened
def quicker(plan, home, narrator):
    loop.set_environment(plan.environment(home))
    loop.move_clock(home, plan.begins)
    from cryptoml_assets.models import comparison_assets
    comparison_assets.benchmarks = lambda: ()
    return opened(plan, home, narrator)
loop.opened = quicker
loop.loop(Path(sys.argv[1]), SMALL)
"""

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


def test_the_loop_closes(tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CRYPTOML_")}
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
        env=kept,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    proof = json.loads(done.stdout.splitlines()[-1])
    assert proof["rejected"]
    assert proof["approved"] not in {*proof["rejected"], proof["first"]}
    assert {each["sensor"] for each in proof["asked"]} == {"retrain_on_alarm"}
    changed, recovered = (proof["live"][name] for name in ("changed", "recovered"))
    assert changed["log_loss"] > recovered["log_loss"]
    assert (changed["version"], recovered["version"]) == (proof["first"], proof["approved"])

    world = tmp_path / "simulated"
    lake = Lake(str(world / "lake"))
    entries = history.read(lake, load_public_key(world / "keys" / "approval.pub"))
    assert [entry.record.model_version for entry in entries] == [proof["first"], proof["approved"]]
    judged = lake.scan("gate_verdicts").filter(pl.col("approved").not_()).collect()
    assert set(proof["rejected"]) == set(judged["model_version"])
