"""The bench of the inference service runs: each part without peers, one round of a second."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench" / "results" / "serving.json"


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed: apt install wrk")
def test_the_quick_bench_compares_ours_with_the_empty_route() -> None:
    kept = RESULTS.read_bytes() if RESULTS.exists() else None
    command = [sys.executable, "-m", "bench.run", "serving", "--quick"]
    command += ["--only", "symbol", "start", "device", "--device", "cpu"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rates = re.search(r"empty route +(\d+)[.\d]* +(\d+)", done.stdout)
    assert rates, done.stdout
    assert all(int(rate) > 0 for rate in rates.groups())
    starts = re.search(r"start to a prediction, .*limit +([\d.]+) +6 ", done.stdout)
    assert starts, done.stdout
    for size in ("1 row a request", "512 rows a request"):
        rates = rf"on cpu, {size}: raw executable +[\d.e+]+ +[\d.e+]+ +rows/s"
        assert re.search(rates, done.stdout), done.stdout
    assert (RESULTS.read_bytes() if RESULTS.exists() else None) == kept
