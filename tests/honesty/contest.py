"""Every family trained in one simulated world as the graph does it, and judged as the gate does.

A world is a market of the sandbox, whose bars go through the features we compute, or an invented
training set; see `World`.

The gate is the real one with its default settings, less the criteria that these worlds cannot have:
`LUCKLESS`. None of those looks at luck, and each can but reject.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import polars as pl

from cryptoml_assets.deployment.criteria import P_VALUE, SKILL, beats_base_rate
from cryptoml_assets.deployment.evidence import net_result
from cryptoml_assets.deployment.gate import REQUIRED, Verdict, judge, rules
from cryptoml_assets.deployment.options import GateSettings
from cryptoml_assets.deployment.trials import trials_of
from cryptoml_assets.features.catalog import model_features
from cryptoml_assets.models.candidates import folds_of, train_candidate
from cryptoml_assets.models.comparison import Contender, compare, contender
from cryptoml_assets.models.evaluation import Answered, Claim, baseline
from cryptoml_assets.models.options import FAMILIES
from cryptoml_assets.models.rows import rows_from_frame
from cryptoml_assets.models.strategy import DEFAULT_COSTS as COSTS
from cryptoml_assets.models.trees import tree_answers
from tests import model_worlds
from tests.honesty.markets import HORIZON, market_set
from tests.honesty.power import LEVELS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cryptoml_assets.models.rows import Rows
    from cryptoml_assets.models.splits import Split

CLAIMS: tuple[Claim, ...] = ("direction", "distribution")
#: What a world without a lake, a registry and a champion cannot show.
LUCKLESS = (
    "no_worse_than_champion",
    "parity",
    "no_look_ahead",
    "same_answers",
    "latency",
    "not_withdrawn",
)
#: Of the gate's criteria those that are asked for here.
ASKED = tuple(name for name in REQUIRED if name not in LUCKLESS)
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
        trials: what the gate deflates its p-value by.
        ranks: by claim, its place in the comparison, 1 is chosen.
        scores: by claim, what the comparison ranked it by.
    """

    figures: dict[str, float]
    trials: int
    ranks: dict[Claim, int]
    scores: dict[Claim, float]

    def passes(self, claim: Claim) -> bool:
        """Whether its skill alone would be believed, had nothing else been tried."""
        return (
            beats_base_rate(claim, self.figures[SKILL[claim]]).passed
            and self.figures[P_VALUE[claim]] <= LEVELS[claim]
        )

    def verdict(self, claim: Claim) -> Verdict:
        """What the gate says of it, as by default and with no verdict before."""
        # Its defaults alone: no setting of the process's environment.
        limits = GateSettings.model_construct()
        return judge(lambda: self.figures, rules(claim, limits, trials=self.trials), ASKED)


def approved(found: Mapping[str, Finding], claim: Claim) -> bool:
    """Whether the gate approves what the comparison chose in a world."""
    (chosen,) = (each for each in found.values() if each.ranks[claim] == 1)
    return chosen.verdict(claim).approved


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
    tables = {claim: compared(contenders, claim) for claim in CLAIMS}
    places = {
        claim: {row["family"]: row for row in table.iter_rows(named=True)}
        for claim, table in tables.items()
    }
    served = tables[CLAIMS[0]].filter("served")["family"]
    trials = trials_of(dict.fromkeys(served, CONFIG.search_trials))
    return {
        each.name: Finding(
            {**each.folds[-1], **net_result(each.parts[-1:], horizon=_HORIZON, costs=COSTS)},
            trials,
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
        costs=COSTS,
        seed=CONFIG.seed,
    )


def entered(name: str, frame: pl.DataFrame) -> Contender:
    """A family trained on every fold, or a benchmark on all the inputs there are."""
    task = replace(model_worlds.task_of(name), training=CONFIG)
    enter = partial(contender, name, horizon=_HORIZON, seed=CONFIG.seed, costs=task.costs)
    if name in FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            trained = train_candidate(frame, task, Path(folder, "bundle"), log=lambda _: None)
        return enter(trained.folds, served=True, trials=int(trained.hyper["trials"]))
    rows = rows_from_frame(frame, model_features())
    return enter([_benchmark(name, rows, split) for split in folds_of(rows, task)], served=False)


def _benchmark(name: str, rows: Rows, split: Split) -> Answered:
    answers = tree_answers(name, rows, split, seed=CONFIG.seed)
    return Answered(rows.take(split.test), answers, baseline(rows.labels[split.training]))
