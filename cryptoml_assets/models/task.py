"""What is to be learnt, from what, and how; light to import, so that asking costs nothing."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from cryptoml_assets.models.options import (
    Family,
    FoldWindow,
    Layout,
    Precision,
    SearchMethod,
)
from cryptoml_assets.models.provenance import code_digest, library_versions
from cryptoml_assets.models.rows import rows_from_frame
from cryptoml_assets.models.strategy import DEFAULT_COSTS, Costs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    import polars as pl

    from cryptoml_serving.contract.manifest import FeatureSpec


@dataclass(frozen=True)
class TrainingConfig:
    """How an ensemble is trained; the settings of the same names explain each."""

    hidden_units: tuple[int, ...]
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    ensemble_size: int
    seed: int
    search_trials: int = 1
    search_method: SearchMethod = "halving"
    layout: Layout = "loop"
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        if not self.hidden_units or min(self.hidden_units) < 1:
            message = (
                f"hidden_units={self.hidden_units}: at least one layer, each of width 1 or more"
            )
            raise ValueError(message)


@dataclass(frozen=True)
class Task:
    """What is to be learnt, from what, and how.

    Attributes:
        model_name: registered model the candidate is for.
        family: kind of model.
        horizon: reach of a label.
        bar: length of a bar.
        features: input columns, in order.
        feature_service: Feast service that holds them.
        test_share: newest share of the rows held out of sample.
        embargo: gap between the parts of the split.
        training: how the networks are trained.
        lake_versions: version of each table read.
        git_commit: of the code.
        channels: names of the steps of each channel of a window, oldest first; empty for a family
            that sees one row.
        folds: walk-forward folds; the newest one's model is the bundle.
        fold_window: where the training part of a fold begins.
        costs: what a trade costs in the figures of the strategy.
    """

    model_name: str
    family: Family
    horizon: timedelta
    bar: timedelta
    features: tuple[FeatureSpec, ...]
    feature_service: str
    test_share: float
    embargo: timedelta
    training: TrainingConfig
    lake_versions: Mapping[str, int]
    git_commit: str
    channels: tuple[tuple[str, ...], ...] = ()
    folds: int = 3
    fold_window: FoldWindow = "expanding"
    costs: Costs = DEFAULT_COSTS


def input_digest(frame: pl.DataFrame, task: Task) -> str:
    """SHA-256 of all that decides a candidate's numbers: rows, task, code and library versions.

    The code counts by content and the rows by value: neither the commit nor the table version that
    name them does, which change without changing what they name.

    Args:
        frame: a training set, with a column ``source`` beside those of the task.
        task: what to learn.

    Raises:
        TrainingDataError: rows that cannot be learnt from.
    """
    names = tuple(feature.name for feature in task.features)
    decides = asdict(task) | {
        "features": [feature.model_dump() for feature in task.features],
        "rows": rows_from_frame(frame, names).digest(),
        "sources": sorted(set(frame["source"])),
        "code": code_digest(),
        "libraries": library_versions(),
    }
    del decides["lake_versions"], decides["git_commit"]
    return hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()
