from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from cryptoml_assets.errors import TrainingDataError
from cryptoml_assets.models import student
from cryptoml_assets.models.comparison import (
    COMPARISON_COLUMNS,
    COMPARISON_TYPES,
    Contender,
    compare,
    contender,
    p_better,
)
from cryptoml_assets.models.evaluation import Answered, baseline
from cryptoml_assets.models.rows import Rows
from cryptoml_assets.models.strategy import Costs

START = np.datetime64("2024-01-01T00:00", "us")
BAR = np.timedelta64(5, "m")
HOUR = np.timedelta64(1, "h")
COSTS = Costs(fee_bps=1.0, slippage_bps=0.0)
COUNT, SYMBOLS = 1000, 2
WORLD = {"horizon": HOUR, "costs": COSTS, "seed": 1}


def fold(number: int, edge: float) -> Answered:
    """A fold of which a model knows ``edge`` of what can be known of the direction."""
    rng = np.random.default_rng(number)
    count = COUNT * SYMBOLS
    events = np.repeat(START + (number * COUNT + np.arange(COUNT)) * BAR, SYMBOLS)
    driver = rng.normal(size=count)
    labels = 0.01 * (0.4 * driver + rng.standard_t(4, count))
    own = np.random.default_rng(100 + number).normal(size=count)
    lean = 0.4 * (edge * driver + (1 - edge) * own)
    features = np.zeros((count, 1), np.float32)
    rows = Rows(np.array(["A", "B"] * COUNT), events, events + HOUR, features, labels)
    width = np.full(count, 0.01 * student.QUANTILE_95)
    answers = {
        "expected_return": 0.01 * lean,
        "lower": 0.01 * lean - width,
        "upper": 0.01 * lean + width,
        "probability_up": student.cdf(lean),
    }
    past = baseline(0.0108 * rng.standard_t(4, 4000))
    return Answered(rows, {name: np.float32(values) for name, values in answers.items()}, past)


def family(name: str, *edges: float, served: bool = True, **more: float) -> Contender:
    parts = [fold(number, edge) for number, edge in enumerate(edges)]
    return contender(name, parts, served=served, **WORLD, **more)


def table(*families: Contender, claim: str = "direction", leak: float = 0.99) -> pl.DataFrame:
    return compare(families, claim=claim, leak_accuracy=leak, **WORLD)


@pytest.fixture(scope="module")
def steady() -> Contender:
    return family("steady", 0.6, 0.6)


@pytest.mark.parametrize("claim", ["direction", "distribution"])
def test_the_newest_fold_has_no_say_in_the_choice(steady: Contender, claim: str) -> None:
    late, early = family("late", 0.3, 1.0), family("early", 1.0, 0.3)
    report = table(late, steady, early, claim=claim)
    assert report["family"].to_list() == ["early", "steady", "late"]
    assert report["chosen"].to_list() == [True, False, False]
    assert report["rank"].to_list() == [1, 2, 3]
    assert report["choice_score"].is_sorted(descending=True)


def test_benchmarks_are_ranked_and_never_chosen(steady: Contender) -> None:
    report = table(steady, family("trees", 1.0, 1.0, served=False))
    assert report["family"].to_list() == ["steady", "trees"]
    assert report["served"].to_list() == report["chosen"].to_list() == [True, False]
    assert report["choice_score"][1] > report["choice_score"][0]


def test_equals_are_chosen_by_name(steady: Contender) -> None:
    twins = [replace(steady, name=name) for name in ("c", "a", "b")]
    assert table(*twins)["family"].to_list() == ["a", "b", "c"]


def test_one_fold_is_chosen_by_what_training_gave() -> None:
    worse, better = family("worse", 1.0, choice_score=0.1), family("better", 0.1, choice_score=0.2)
    unknown = family("absent", 1.0)
    assert table(worse, better, unknown)["family"].to_list() == ["better", "worse", "absent"]
    with pytest.raises(TrainingDataError, match=r"score to be chosen by \(absent: nan\)"):
        table(unknown)


def test_there_is_no_choice_among_benchmarks_alone(steady: Contender) -> None:
    with pytest.raises(TrainingDataError, match=r"no family that can be served .*steady"):
        table(replace(steady, served=False))
    with pytest.raises(TrainingDataError, match="none at all"):
        table()


def test_only_answers_to_the_same_rows_compare(steady: Contender) -> None:
    first, second = steady.parts
    kept = np.arange(COUNT * SYMBOLS) > 0
    fewer = Answered(
        first.rows.take(kept), {n: v[kept] for n, v in first.answers.items()}, first.base
    )
    for parts in ((fewer, second), (first,), (second, first)):
        with pytest.raises(ValueError, match="steady and other answered other rows"):
            table(steady, replace(steady, name="other", parts=parts))
    with pytest.raises(ValueError, match="each has a name of its own"):
        table(steady, steady)


def test_a_better_family_is_told_from_linear_and_a_worse_one_is_not(steady: Contender) -> None:
    linear, better, worse = (
        replace(steady, name="linear"),
        *(family(name, edge, edge) for name, edge in (("mlp", 1.0), ("tcn", 0.0))),
    )
    for claim in ("direction", "distribution"):
        report = table(linear, better, worse, claim=claim)
        told = dict(report.select("family", "p_better_than_linear").rows())
        assert told["linear"] is None
        assert told["mlp"] < 0.01
        assert told["tcn"] > 0.99
    assert p_better(steady, linear, claim="direction", horizon=HOUR, seed=1) == 1.0
    assert table(better, worse)["p_better_than_linear"].null_count() == 2


def test_a_leak_in_any_fold_is_suspected(steady: Contender) -> None:
    leaky = replace(steady, name="leaky", folds=({"accuracy": 0.71}, steady.folds[1]))
    report = table(steady, leaky, leak=0.7)
    assert dict(report.select("family", "suspected_leak").rows()) == {
        "steady": False,
        "leaky": True,
    }


def test_what_others_tried_deflates_everyones_sharpe(steady: Contender) -> None:
    other = family("other", 0.2, 0.2)
    few = table(steady, other)
    many = table(steady, replace(other, trials=400))
    name = pl.col("family") == "steady"
    before, after = (report.filter(name)["deflated_sharpe"].item() for report in (few, many))
    assert after < before
    assert many["trials"].to_list() == [1, 400]


def test_every_column_has_a_type_and_a_meaning(steady: Contender) -> None:
    report = table(steady)
    assert report.schema == pl.Schema(COMPARISON_TYPES)
    assert report.columns == list(COMPARISON_COLUMNS)
    assert report["test_rows"].item() == 2 * COUNT * SYMBOLS
    assert report["log_loss_skill"].item() == steady.figures["log_loss_skill"]
