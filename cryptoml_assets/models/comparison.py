"""Families of models side by side on the same out-of-sample rows, and the one that is chosen.

The choice looks at the earlier folds alone. The newest fold, on which the gate judges the chosen
model, takes no part in it, so its p-value needs no correction for having chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from cryptoml_assets.errors import TrainingDataError
from cryptoml_assets.models.evaluation import claim_losses, claim_skill, evaluate
from cryptoml_assets.models.significance import (
    bootstrap_p_value,
    deflated_sharpe,
    overlap_block,
    regime_block,
    sharpe,
)
from cryptoml_assets.models.strategy import trade

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cryptoml_assets.models.evaluation import Answered, Claim
    from cryptoml_assets.models.strategy import Costs, Track
    from cryptoml_assets.models.training import Epoch

#: The family that more complicated ones have to beat.
REFERENCE = "linear"

#: Meaning of each column of the comparison, in order.
COMPARISON_COLUMNS = {
    "rank": "1 is the chosen one; the others follow by their score",
    "family": "kind of model",
    "chosen": "whether it is the one that asks to be approved",
    "served": "whether it can be served; others are benchmarks and never chosen",
    "suspected_leak": "whether its accuracy, pooled or in any fold, is too good to be true",
    "choice_score": "share of the claim's base loss saved over all folds but the newest; with one "
    "fold, what its training gave instead, larger is better",
    "trials": "configurations tried to find it",
    "test_rows": "rows out of sample, all folds pooled as in every figure below",
    "log_loss": "mean log loss of the chance of an up move, nats",
    "log_loss_skill": "share of the base rate's log loss saved",
    "direction_p_value": "chance of so much directional skill by luck",
    "brier": "mean squared error of the chance of an up move",
    "brier_skill": "share of the base rate's Brier score saved",
    "accuracy": "share of directions told right",
    "accuracy_lower": "lower end of its 95 % block-bootstrap interval",
    "accuracy_upper": "upper end of its 95 % block-bootstrap interval",
    "auc": "chance that a row that went up was given the higher chance of it",
    "information_coefficient": "correlation of expected return and label",
    "r2": "share of the squared error of the training mean saved",
    "mse": "mean squared error of the expected return, squared log return",
    "crps": "mean CRPS of the predicted distribution, log return",
    "crps_skill": "share of the past distribution's CRPS saved",
    "crps_p_value": "chance of so much distributional skill by luck",
    "coverage": "share of labels inside the 90 % interval",
    "interval_width": "mean width of that interval, log return",
    "p_better_than_linear": "chance of so much smaller a loss of the claim than linear's by luck; "
    "null for linear itself, and where it is not compared",
    "sharpe_net": "Sharpe ratio a year of the threshold strategy's daily returns after costs",
    "sharpe_gross": "the same before costs",
    "deflated_sharpe": "confidence that the strategy earns anything after costs, given the trials "
    "of all families together",
    "max_drawdown": "largest share of the strategy's capital lost since its height, 0 to 1",
    "turnover": "amount the strategy trades a day, in multiples of its capital",
    "trades": "times the strategy opened or changed a position",
    "days": "days the strategy ran",
}
#: Type of each column of the comparison.
COMPARISON_TYPES: dict[str, pl.DataType] = (
    dict.fromkeys(COMPARISON_COLUMNS, pl.Float64())
    | {"family": pl.String()}
    | dict.fromkeys(("chosen", "served", "suspected_leak"), pl.Boolean())
    | dict.fromkeys(("rank", "trials"), pl.Int64())
)


@dataclass(frozen=True)
class Contender:
    """A family that was trained on every fold.

    Attributes:
        name: of the family.
        served: whether it can become a bundle.
        parts: out-of-sample rows of each fold with its answers, oldest fold first.
        figures: over all folds pooled.
        folds: figures of each fold, as ``parts``.
        history: learning curves; empty where nothing is learnt in steps.
        trials: configurations tried, 1 or more.
        choice_score: what chooses where there is but one fold, such as the skill in its validation
            part; larger is better, NaN is never chosen.
    """

    name: str
    served: bool
    parts: tuple[Answered, ...]
    figures: Mapping[str, float]
    folds: tuple[Mapping[str, float], ...]
    history: Sequence[Epoch]
    trials: int
    choice_score: float


def contender(
    name: str,
    parts: Sequence[Answered],
    *,
    served: bool,
    horizon: np.timedelta64,
    seed: int,
    costs: Costs,
    history: Sequence[Epoch] = (),
    trials: int = 1,
    choice_score: float = np.nan,
) -> Contender:
    """Measure a family in each fold and over all of them; arguments as of `Contender`."""
    measure = partial(evaluate, horizon=horizon, seed=seed, costs=costs)
    folds = tuple(measure([part]) for part in parts)
    figures = folds[0] if len(folds) == 1 else measure(parts)
    return Contender(
        name, served, tuple(parts), figures, folds, tuple(history), trials, choice_score
    )


def compare(
    contenders: Sequence[Contender],
    *,
    claim: Claim,
    leak_accuracy: float,
    horizon: np.timedelta64,
    costs: Costs,
    seed: int,
) -> pl.DataFrame:
    """Rank families, and choose one of those that can be served.

    The chosen one saves the largest share of the claim's base loss over the rows of all folds but
    the newest; the first by name where two are equal.

    Args:
        contenders: families answering the same rows; at least one that can be served.
        claim: what a model is to be better at than the base rate.
        leak_accuracy: directional accuracy above which a leak is suspected.
        horizon: reach of a label.
        costs: of the strategy's trades.
        seed: of the bootstrap.

    Returns:
        The columns of `COMPARISON_COLUMNS`, one row a family, the chosen one first.

    Raises:
        TrainingDataError: no served family has a score to be chosen by.
        ValueError: two families of one name, or that answered other rows.
    """
    _check_same_rows(contenders)
    ordered = _ranked(contenders, claim)
    daily = [track.net for track in tracks(ordered, horizon=horizon, costs=costs).values()]
    sharpes = [sharpe(returns) for returns in daily]
    trials = sum(each.trials for each in ordered)
    reference = [each for each in ordered if each.name == REFERENCE]
    better = partial(p_better, claim=claim, horizon=horizon, seed=seed)
    columns: dict[str, list[Any]] = {
        "rank": list(range(1, len(ordered) + 1)),
        "family": [each.name for each in ordered],
        "chosen": [each is ordered[0] for each in ordered],
        "served": [each.served for each in ordered],
        "suspected_leak": [_suspected_leak(each, leak_accuracy) for each in ordered],
        "choice_score": [score(each, claim) for each in ordered],
        "trials": [each.trials for each in ordered],
        "deflated_sharpe": [deflated_sharpe(returns, trials, sharpes) for returns in daily],
        "p_better_than_linear": [
            better(each, reference[0]) if reference and each is not reference[0] else None
            for each in ordered
        ],
    }
    measured = {
        name: [each.figures[name] for each in ordered]
        for name in COMPARISON_COLUMNS
        if name not in columns
    }
    table = pl.DataFrame(columns | measured, schema_overrides=COMPARISON_TYPES)
    return table.select(*COMPARISON_COLUMNS)


def score(each: Contender, claim: Claim) -> float:
    """What a family is chosen by: skill over the rows of the earlier folds, larger is better."""
    earlier = each.parts[:-1]
    return claim_skill(earlier, claim) if earlier else each.choice_score


def p_better(
    each: Contender, other: Contender, *, claim: Claim, horizon: np.timedelta64, seed: int
) -> float:
    """One-sided p-value of "the loss is no smaller than the other's", paired row by row.

    Block bootstrap of the differences between the two losses, over the rows of all folds (Diebold
    and Mariano, *Comparing predictive accuracy*, 1995, with the bootstrap in place of their
    asymptotic variance).

    Args:
        each: the family that may be better.
        other: the one to be better than; has answered the same rows.
        claim: whose loss is compared.
        horizon: reach of a label.
        seed: of the bootstrap.
    """
    block = overlap_block(horizon) if claim == "direction" else regime_block(horizon)
    events = np.concatenate([part.rows.events for part in each.parts])
    own, others = (claim_losses(one.parts, claim) for one in (each, other))
    return bootstrap_p_value(events, others - own, block, seed)


def tracks(
    contenders: Sequence[Contender], *, horizon: np.timedelta64, costs: Costs
) -> dict[str, Track]:
    """The strategy's daily record of each family, by name."""
    return {each.name: trade(each.parts, horizon=horizon, costs=costs) for each in contenders}


def _ranked(contenders: Sequence[Contender], claim: Claim) -> list[Contender]:
    scores = {each.name: score(each, claim) for each in contenders}

    def place(each: Contender) -> tuple[float, str]:
        known = scores[each.name]
        return (-known if np.isfinite(known) else np.inf, each.name)

    eligible = [each for each in contenders if each.served and np.isfinite(scores[each.name])]
    if not eligible:
        told = ", ".join(f"{name}: {value:g}" for name, value in scores.items()) or "none at all"
        message = f"no family that can be served has a score to be chosen by ({told})"
        raise TrainingDataError(message)
    chosen = min(eligible, key=place)
    return [chosen, *sorted((each for each in contenders if each is not chosen), key=place)]


def _suspected_leak(each: Contender, limit: float) -> bool:
    return max(figures["accuracy"] for figures in (each.figures, *each.folds)) > limit


def _check_same_rows(contenders: Sequence[Contender]) -> None:
    names = [each.name for each in contenders]
    if len(set(names)) < len(names):
        message = f"families {', '.join(names)}: each has a name of its own"
        raise ValueError(message)
    for one, other in pairwise(contenders):
        same = len(one.parts) == len(other.parts) and all(
            np.array_equal(getattr(left.rows, name), getattr(right.rows, name))
            for left, right in zip(one.parts, other.parts, strict=True)
            for name in ("symbols", "events", "labels")
        )
        if not same:
            message = f"{one.name} and {other.name} answered other rows: only the same compare"
            raise ValueError(message)
