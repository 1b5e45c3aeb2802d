"""A new process on its way to its first step, with nothing compiled yet and with all of it.

The clock starts when the process is asked for. It counts the start of Python, the imports of the
product's training, reading the rows of every fold, standardised before, and bringing them to the
device, tracing, and compiling or reading what was compiled before, up to a call of the training
program that is told to do no epoch yet; then one step of the mean length that the first epochs'
steps have.

The last line is the product's own path, as long as a demo's: from a training set in a file, through
cutting it into folds and standardising them, to the same call.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl

from bench.processes import worker
from bench.report import Claim
from bench.training.sides import ON_CPU, WORKERS, Sides
from bench.training.world import BAR, HORIZON, Config
from cryptoml_assets.features.catalog import row_inputs

LIMIT_S = 3.0
#: Rows of a demo: five symbols over 60 days of 5-minute bars.
_SYMBOLS, _INSTANTS = 5, 17_200
_STAGES = {
    "imported": "imported",
    "rows": "rows on the device",
    "ready": "program ready",
    "step": "first step done",
    "epoch": "first epochs done",
}


def claims(options: argparse.Namespace, sides: Sides) -> list[Claim]:
    config = Config(options.most_epochs)
    cache = sides.world.folder / "start"
    cold, *runs = (_stages(config, sides, cache) for _ in range(1 + options.runs))
    warm = {stage: statistics.median(run[stage] for run in runs) for stage in cold}
    for name, found in {"cold": cold, "warm": warm}.items():
        told = ", ".join(f"{text} at {found[stage]:.2f} s" for stage, text in _STAGES.items())
        print(f"  {name}: {told}; compiling {found['compile_seconds']:.2f} s")
    return [
        Claim.of_seconds(
            "new process, programs kept, rows standardised before, to its first step: limit",
            warm["step"],
            LIMIT_S,
            1.0,
        ),
        Claim.of_seconds("the same: with nothing kept", warm["step"], cold["step"], None),
        Claim.of_seconds(
            "compiling, programs kept: nothing kept",
            warm["compile_seconds"],
            cold["compile_seconds"],
            None,
        ),
        _path(options, sides, cache),
    ]


def _stages(config: Config, sides: Sides, cache: Path) -> dict[str, float]:
    """Seconds to each stage, the end of the first step reckoned from the mean one."""
    said = sides.start(config, cache)
    members = [(fold, 0) for fold in range(len(sides.world.folds))]
    steps = sides.world.steps(replace(config, epochs=1), members)
    each = (said["epoch"] - said["ready"]) * sides.cores / steps
    return {**said, "step": said["ready"] + each}


def _path(options: argparse.Namespace, sides: Sides, cache: Path) -> Claim:
    """From a training set as long as a demo's to a program that is ready for its first step."""
    file = sides.world.folder / "training_set.parquet"
    _training_set().write_parquet(file)
    script = WORKERS / "our_path.py"
    cold, *warm = (
        worker(script, file, cache, time.monotonic(), variables=ON_CPU).said
        for _ in range(1 + options.runs)
    )
    found = {stage: statistics.median(run[stage] for run in warm) for stage in cold}
    told = ", ".join(f"{stage} at {seconds:.2f} s" for stage, seconds in found.items())
    print(f"  the product's own path: {told}; with nothing kept ready at {cold['ready']:.2f} s")
    return Claim.of_seconds(
        f"training set of {_SYMBOLS * _INSTANTS} rows x {len(row_inputs())} to its first step, "
        "programs kept: nothing kept",
        found["ready"],
        cold["ready"],
        None,
    )


def _training_set() -> pl.DataFrame:
    """Rows as the product joins them, of noise."""
    rng, rows = np.random.default_rng(5), _SYMBOLS * _INSTANTS
    events = pl.Series([datetime(2024, 1, 1, tzinfo=UTC)]).dt.cast_time_unit("us")
    instants = pl.select(events.first() + pl.int_range(_INSTANTS) * pl.lit(BAR)).to_series()
    frame = pl.DataFrame(
        {
            "event_timestamp": instants.repeat_by(_SYMBOLS).explode(),
            "symbol": [f"S{number}/USDT" for number in range(_SYMBOLS)] * _INSTANTS,
            "label": 0.005 * rng.standard_t(4.0, rows),
            **{each.name: rng.normal(size=rows) for each in row_inputs()},
            "source": ["simulated"] * rows,
        }
    )
    return frame.with_columns(label_timestamp=pl.col("event_timestamp") + HORIZON)
