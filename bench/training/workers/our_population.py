"""Rows a second against the size of the population: ``our_population.py PLAN CACHE [SIZE ...]``.

All members of a population are one vectorised program over the rows of one fold. Without sizes,
nothing is measured where JAX sees no GPU. Says, for each size, the rows a second, the seconds of
compiling and, where the driver's tool says them, the mean utilisation and the most memory.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bench.training.ours import beginning, prepared
from cryptoml_assets.models.compilation import use_compilation_cache
from cryptoml_assets.models.layout import Runner

_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
#: A size is measured for as long, at least. No member stops by itself before the sixth epoch.
_SECONDS = 3.0
_EPOCHS = 5
_SMI = ["--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits", "-lms", "100"]


@contextlib.contextmanager
def sampled(found: dict[str, Any]) -> Iterator[None]:
    """Put the first GPU's utilisation (percent) and memory (MiB) meanwhile into ``found``."""
    command = shutil.which("nvidia-smi")
    if command is None:
        yield
        return
    sampler = subprocess.Popen([command, "--id=0", *_SMI], stdout=subprocess.PIPE, text=True)
    try:
        yield
    finally:
        sampler.terminate()
        lines, _ = sampler.communicate()
    samples = [
        [float(cell) for cell in line.split(",")]
        for line in lines.splitlines()
        if line.replace(",", "").replace(" ", "").isdigit()
    ]
    if samples:
        found["utilisation"] = float(np.mean([sample[0] for sample in samples]))
        found["memory_mib"] = max(sample[1] for sample in samples)


def measured(plan: dict[str, Any], size: int, precision: str, data: Any) -> dict[str, Any]:
    sized = {**plan, "members": [(plan["members"][0][0], seed) for seed in range(size)]}
    program, states, hypers = beginning(sized, data[0].inputs.shape[1], precision)
    runner = Runner(program, data, vectorised=True, log=print)
    runner.advance(states, hypers, 1)
    rows = size * _EPOCHS * (int(data[0].count) // plan["batch"]) * plan["batch"]
    found: dict[str, Any] = {"size": size, "precision": precision}
    with sampled(found):
        calls, began = 0, time.perf_counter()
        while (spent := time.perf_counter() - began) < _SECONDS:
            runner.advance(states, hypers, _EPOCHS)
            calls += 1
    fitted = runner.vectorised
    return {
        **found,
        "rows_per_s": calls * rows / spent,
        "compile_seconds": runner.compile_seconds,
        "fitted": fitted,
    }


def main() -> None:
    plan = json.loads(Path(sys.argv[1]).read_text())
    device = jax.devices()[0]
    sizes = tuple(map(int, sys.argv[3:])) or (() if device.platform == "cpu" else _SIZES)
    found = []
    if sizes:
        use_compilation_cache(Path(sys.argv[2]))
        folder = Path(sys.argv[1]).parent
        inputs, labels = np.load(folder / "inputs.npy"), np.load(folder / "labels.npy")
        data = prepared(inputs, labels, {**plan, "members": plan["members"][:1]})
        found = [measured(plan, size, "float32", data) for size in sizes]
        if device.platform != "cpu":
            found.append(measured(plan, sizes[-1], "bfloat16", data))
    kind = {"platform": device.platform, "kind": device.device_kind}
    print(json.dumps({**kind, "sizes": found}))


if __name__ == "__main__":
    main()
