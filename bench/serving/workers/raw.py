"""Seconds that a program takes for some rows: raw.py PROGRAM COLUMNS DEVICE SIZES SECONDS.

Numbers go in and come out as NumPy's; compiling is done before. The last line is JSON: by size the
calls a second, and what half and 99 of 100 of them took at most, in seconds.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import jax
import numpy as np
from jax import export


def main(program: str, columns: str, device: str, sizes: str, seconds: str) -> None:
    """Call it for that long with each number of rows."""
    exported = export.deserialize(bytearray(Path(program).read_bytes()))
    rng = np.random.default_rng(3)
    said = {}
    with jax.default_device(jax.devices(device)[0]):
        for size in sizes.split(","):
            rows = rng.normal(size=(int(size), int(columns))).astype(np.float32)
            run = jax.jit(exported.call).lower(rows).compile()
            jax.device_get(run(rows))
            spent, until = [], time.perf_counter() + float(seconds)
            while (began := time.perf_counter()) < until:
                jax.device_get(run(rows))
                spent.append(time.perf_counter() - began)
            p50, p99 = np.quantile(spent, (0.5, 0.99))
            said[size] = {"rate": len(spent) / sum(spent), "p50": float(p50), "p99": float(p99)}
    print(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
