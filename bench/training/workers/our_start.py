"""A new process on its way to its first epoch: ``our_start.py PLAN CACHE BEGAN``.

``BEGAN`` is the reading of the monotonic clock at which the process was asked for. Says the seconds
since then at which everything is imported, the rows are on the device, the program is ready, and
the first epoch of the plan's members is done.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

# What a training of the product imports, the network's own modules included.
import cryptoml_assets.models.candidates  # noqa: F401
from bench.training.ours import beginning, prepared
from cryptoml_assets.models.compilation import use_compilation_cache
from cryptoml_assets.models.layout import Runner


def main() -> None:
    plan = json.loads(Path(sys.argv[1]).read_text())
    began = float(sys.argv[3])
    said = {"imported": time.monotonic() - began}
    use_compilation_cache(Path(sys.argv[2]))
    folder = Path(sys.argv[1]).parent
    inputs, labels = np.load(folder / "inputs.npy"), np.load(folder / "labels.npy")
    data = prepared(inputs, labels, plan)
    said["rows"] = time.monotonic() - began
    program, states, hypers = beginning(plan, inputs.shape[1])
    runner = Runner(program, data, vectorised=False, log=print)
    runner.advance(states, hypers, 0)
    said["ready"] = time.monotonic() - began
    runner.advance(states, hypers, 1)
    said["epoch"] = time.monotonic() - began
    print(json.dumps({**said, "compile_seconds": runner.compile_seconds}))


if __name__ == "__main__":
    main()
