"""The memory asked for, against what a real training takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

REPOSITORY = Path(__file__).parents[2]
MIB = 2**20
PROGRAM = """
import dataclasses, json, pathlib, tempfile
import dagster, mlflow, numpy as np, polars as pl
from cryptoml_assets.models.candidates import train_candidate
from cryptoml_assets.models.resources import training_request, workload
from cryptoml_serving.contract.manifest import FeatureSpec
from tests.model_worlds import BAR, CONFIG, START, TASK
rows, columns = 500_000, 40
rng = np.random.default_rng(0)
events = pl.datetime_range(START, START + BAR * (rows - 1), BAR, time_zone="UTC", eager=True)
names = [f"f{number}" for number in range(columns)]
frame = pl.DataFrame({
    "symbol": ["BTC/USDT"] * rows, "event_timestamp": events, "label_timestamp": events + 12 * BAR,
    "label": rng.normal(size=rows), "source": ["simulated"] * rows,
    **{name: rng.normal(size=rows) for name in names},
})
config = dataclasses.replace(
    CONFIG, hidden_units=(16,), epochs=1, ensemble_size=1, batch_size=8192, layout="loop"
)
features = tuple(FeatureSpec(name=name, view="price_features") for name in names)
task = dataclasses.replace(TASK, features=features, training=config, folds=2)
with tempfile.TemporaryDirectory() as work:
    train_candidate(frame, task, pathlib.Path(work, "bundle"), log=lambda _: None)
# Not getrusage, whose peak is that of the process that started this one where it was larger.
status = pathlib.Path("/proc/self/status").read_text()
kibibytes = int(status.partition("VmHWM:")[2].split()[0])
print(json.dumps([kibibytes * 1024, training_request(workload(task, rows)).memory_bytes]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems tell no peak in /proc")
def test_the_request_is_more_than_a_training_takes_and_less_than_twice_as_much() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    peak, asked = json.loads(done.stdout.splitlines()[-1])
    told = f"peak {peak / MIB:.0f} MiB, asked for {asked / MIB:.0f} MiB"
    assert peak < asked < 2 * peak, told
