"""Every family trained in one simulated world as the graph does it, and judged as the gate does.

A world is a market of the sandbox, whose bars go through the features we compute, or an invented
training set; see `World`.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import polars as pl

from cryptoml_assets.deployment.criteria import P_VALUE, SKILL, beats_base_rate, significance
from cryptoml_assets.features.catalog import model_features
from cryptoml_assets.models.candidates import folds_of, train_candidate
from cryptoml_assets.models.comparison import Contender, compare, contender
from cryptoml_assets.models.evaluation import Answered, Claim, baseline
from cryptoml_assets.models.options import FAMILIES
from cryptoml_assets.models.rows import rows_from_frame
from cryptoml_assets.models.strategy import DEFAULT_COSTS
from cryptoml_assets.models.trees import tree_answers
from tests import model_worlds
from tests.honesty.markets import HORIZON, market_set
from tests.honesty.power import LEVEL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptoml_assets.models.rows import Rows
    from cryptoml_assets.models.splits import Split

CLAIMS: tuple[Claim, ...] = ("direction", "distribution")
_HORIZON = np.timedelta64(HORIZON)
CONFIG = replace(model_worlds.CONFIG, epochs=20, batch_size=64)


@dataclass(frozen=True)
class World:
    """What a training set is made from.

    Attributes:
        kind: "market" is a simulated market, through the features we compute; "leaking" the same
            with a feature that knows the label; "flat" an invented world whose volatility never
            changes; others are invented worlds of that shape.
        seed: of everything.
        signal: strength of what is planted, 0 for nothing.
        days: of rows.
    """

    kind: Literal["market", "leaking", "flat", "linear", "folded", "windowed"]
    seed: int
    signal: float
    days: int

    def frame(self) -> pl.DataFrame:
        """The training set."""
        if self.kind == "market":
            return market_set(seed=self.seed, signal=self.signal, days=self.days)
        if self.kind == "leaking":
            # As if a feature were computed over the bars to come.
            market = market_set(seed=self.seed, signal=self.signal, days=self.days)
            return market.with_columns(rsi=pl.col("label") + 3 * pl.col("log_return_12"))
        if self.kind == "flat":
            return model_worlds.training_set(
                signal=self.signal, days=self.days, seed=self.seed, clusters=0.0
            )
        return model_worlds.training_set(
            signal=self.signal, days=self.days, seed=self.seed, shape=self.kind
        )


@dataclass(frozen=True)
class Finding:
    """What became of one family in one world.

    Attributes:
        figures: of the newest fold, which the gate judges.
        ranks: by claim, its place in the comparison, 1 is chosen.
        scores: by claim, what the comparison ranked it by.
    """

    figures: dict[str, float]
    ranks: dict[Claim, int]
    scores: dict[Claim, float]

    def passes(self, claim: Claim) -> bool:
        """Whether the gate would believe the claim."""
        return (
            beats_base_rate(claim, self.figures[SKILL[claim]]).passed
            and significance(claim, self.figures[P_VALUE[claim]], LEVEL).passed
        )


def contest(world: World, families: tuple[str, ...]) -> dict[str, Finding]:
    """Train every family on the folds of a world, and compare them.

    Args:
        world: where.
        families: names of families, and of benchmarks that are installed.

    Returns:
        By family.
    """
    frame = world.frame()
    contenders = [entered(name, frame) for name in families]
    places = {
        claim: {row["family"]: row for row in compared(contenders, claim).iter_rows(named=True)}
        for claim in CLAIMS
    }
    return {
        each.name: Finding(
            dict(each.folds[-1]),
            {claim: places[claim][each.name]["rank"] for claim in CLAIMS},
            {claim: places[claim][each.name]["choice_score"] for claim in CLAIMS},
        )
        for each in contenders
    }


def compared(contenders: Sequence[Contender], claim: Claim) -> pl.DataFrame:
    """The comparison of families by one claim."""
    return compare(
        contenders,
        claim=claim,
        leak_accuracy=1.0,
        horizon=_HORIZON,
        costs=DEFAULT_COSTS,
        seed=CONFIG.seed,
    )


def entered(name: str, frame: pl.DataFrame) -> Contender:
    """A family trained on every fold, or a benchmark on all the inputs there are."""
    task = replace(model_worlds.task_of(name), training=CONFIG)
    enter = partial(contender, name, horizon=_HORIZON, seed=CONFIG.seed, costs=task.costs, trials=1)
    if name in FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            trained = train_candidate(frame, task, Path(folder, "bundle"), log=lambda _: None)
        return enter(trained.folds, served=True)
    rows = rows_from_frame(frame, model_features())
    return enter([_benchmark(name, rows, split) for split in folds_of(rows, task)], served=False)


def _benchmark(name: str, rows: Rows, split: Split) -> Answered:
    answers = tree_answers(name, rows, split, seed=CONFIG.seed)
    return Answered(rows.take(split.test), answers, baseline(rows.labels[split.training]))
