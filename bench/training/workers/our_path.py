"""The product's own way to its first step: ``our_path.py PARQUET CACHE BEGAN``.

``BEGAN`` is the reading of the monotonic clock at which the process was asked for.
`train_candidate` runs over the training set of the file until its program is ready to do the first
step, and no further. Says the seconds since then at which everything is imported, the rows of every
fold are standardised, and the program is ready.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import polars as pl

from cryptoml_assets.features.catalog import row_inputs
from cryptoml_assets.models.candidates import train_candidate
from cryptoml_assets.models.compilation import use_compilation_cache
from cryptoml_assets.models.layout import Runner
from cryptoml_assets.models.task import Task, TrainingConfig
from cryptoml_assets.settings import settings
from cryptoml_serving.contract.bundle import FeatureSpec

advance = Runner.advance


class Started(Exception):  # noqa: N818 - no error
    """The first step would be next."""


def task() -> Task:
    """The network as the settings have it by default."""
    demo = settings()
    training = TrainingConfig(
        hidden_units=demo.hidden_units,
        epochs=demo.epochs,
        batch_size=demo.batch_size,
        learning_rate=demo.learning_rate,
        weight_decay=demo.weight_decay,
        ensemble_size=demo.ensemble_size,
        seed=demo.seed,
    )
    return Task(
        model_name="bench",
        family="mlp",
        horizon=demo.horizon,
        bar=demo.bar,
        features=tuple(FeatureSpec(name=each.name, view=each.table) for each in row_inputs()),
        feature_service="bench",
        test_share=demo.test_share,
        embargo=demo.embargo,
        training=training,
        lake_versions={},
        git_commit="unknown",
        folds=demo.folds,
    )


def main() -> None:
    began = float(sys.argv[3])
    said = {"imported": time.monotonic() - began}

    def ready(runner: Runner, states: Any, hypers: Any, _: int) -> None:
        said["rows"] = time.monotonic() - began
        advance(runner, states, hypers, 0)
        said["ready"] = time.monotonic() - began
        raise Started

    use_compilation_cache(Path(sys.argv[2]))
    frame, folder = pl.read_parquet(sys.argv[1]), Path(sys.argv[1]).with_suffix(".bundle")
    with patch.object(Runner, "advance", ready):
        try:
            train_candidate(frame, task(), folder, log=print)
        except Started:
            print(json.dumps(said))


if __name__ == "__main__":
    main()
