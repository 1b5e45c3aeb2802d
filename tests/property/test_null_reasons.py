"""Nulls have reasons, and missing bars never become numbers: over every feature of the catalog."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from datetime import date

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoml_assets.features import proofs
from cryptoml_assets.features.catalog import features_of
from cryptoml_assets.features.compute import bar_grid, halo_of, price_features, price_lacks
from cryptoml_assets.features.feature import METRICS, Feature
from cryptoml_assets.features.formulas import CLOSE
from cryptoml_assets.features.lacks import Others, needs, runs
from cryptoml_assets.features.nulls import null_counts, null_faults
from cryptoml_assets.features.onchain import day_grid, onchain_features, onchain_lacks
from cryptoml_assets.features.reasons import NULL_REASON, UNDEFINED, joined
from cryptoml_assets.features.remake import OfPrices
from cryptoml_assets.features.terms import cross_rank
from cryptoml_assets.features.windows import window_mean
from tests.feature_data import BAR, DAY, make_bars, make_blocks, make_metrics, midnight, some_days
from tests.feature_leaks import NULLS, leaks, suspect
from tests.feature_presence import KINDS, Walk

DAYS = some_days(3)
SYMBOLS = ("BTC/USDT", "ETH/USDT", "SOL/USDT")
BARS = make_bars(3, SYMBOLS)
EVERY = features_of("price_features")
NAMES = [feature.name for feature in EVERY]
WHOLE = price_features(BARS, DAYS, BAR)
KEY = ["symbol", "event_timestamp"]
STILL = {"open": 5.0, "high": 5.0, "low": 5.0, "close": 5.0, "volume": 0.0}
# A rank of a rank, and one of what was: no entry has such a term, but one may come to.
NESTED = (
    Feature("nested", "price_features", cross_rank(cross_rank(CLOSE).lag(3)), 1, "", ""),
    Feature("mean", "price_features", window_mean(cross_rank(CLOSE.lag(2)), 5), 1, "", ""),
)

FAULTS = ("not_finite", "null_without_reason", "reason_without_null")

seeds = st.integers(min_value=0, max_value=2**32 - 1)


def holed(seed: int, share: float) -> pl.DataFrame:
    """Bars of which a share is missing, with a symbol that begins late and prices that stand."""
    chance = np.random.default_rng(seed)
    late, still = (BARS["open_time"][int(chance.integers(0, 800))] for _ in range(2))
    flat = pl.col("open_time").is_between(still, still + 60 * BAR)
    return (
        BARS.filter(pl.Series(chance.random(BARS.height) >= share))
        .filter((pl.col("symbol") != SYMBOLS[seed % 3]) | (pl.col("open_time") >= late))
        .with_columns(
            pl.when(flat).then(number).otherwise(pl.col(name)).alias(name)
            for name, number in STILL.items()
        )
    )


def slowly(
    walk: Walk, features: Sequence[Feature], rows: pl.DataFrame, steps: Sequence[int]
) -> dict[str, list[set[str]]]:
    """The reasons of every value of ``rows``; each has its step."""
    found = {}
    for feature in features:
        null = rows[feature.name].is_null().to_list()
        found[feature.name] = [
            {kind for kind in KINDS if walk.lacks(feature.term, symbol, kind)[step]}
            or ({UNDEFINED} if missing else set())
            for symbol, step, missing in zip(rows["symbol"], steps, null, strict=True)
        ]
    return found


def assert_as_told(
    rows: pl.DataFrame, told: dict[str, list[set[str]]], counts: pl.DataFrame
) -> None:
    """Values are null just where there is a reason; rows and counts name just these."""
    for name, reasons in told.items():
        assert rows[name].is_null().to_list() == [bool(each) for each in reasons], name
    of_rows = [joined(set().union(*each)) for each in zip(*told.values(), strict=True)]
    assert rows[NULL_REASON].to_list() == of_rows
    counted = Counter(
        (name, reason) for name, each in told.items() for row in each for reason in row
    )
    assert {(name, reason): count for name, reason, count in counts.rows()} == counted


@settings(max_examples=4, deadline=None)
@given(seed=seeds, share=st.sampled_from([0.0, 0.001, 0.01, 0.2]))
def test_every_null_has_the_reasons_that_a_walk_over_its_formula_finds(
    seed: int, share: float
) -> None:
    features, bars, days = (*EVERY, *NESTED), holed(seed, share), DAYS[1:]
    rows = price_features(bars, days, BAR, features)
    counts = null_counts(rows, features, lambda: price_lacks(bars, days, BAR, features))
    # All bars are on the grid, so that nothing lies before it.
    grid, _ = bar_grid(bars, DAYS, BAR, features)
    first = midnight(DAYS[0]) - halo_of(features) * BAR
    steps = [(instant - BAR - first) // BAR for instant in rows["event_timestamp"]]
    assert_as_told(rows, slowly(Walk(grid), features, rows, steps), counts)


@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_chain_rows_name_what_was_not_published_and_not_final(seed: int) -> None:
    chance = np.random.default_rng(seed)
    days, features, symbols = some_days(20), features_of("onchain_features"), SYMBOLS[:2]
    known = make_metrics(20, assets=("btc", "eth"))
    metrics = known.with_columns(
        pl.when(pl.Series(chance.random(known.height) > 0.1)).then(pl.col(name)).alias(name)
        for name in METRICS
    ).filter(pl.Series(chance.random(known.height) > 0.1))
    no_gas = pl.col("date") == days[9]
    blocks = (
        make_blocks(20)
        .filter(~pl.col("date").is_in([day for day in days if chance.random() < 0.1]))
        .with_columns(
            pl.when(no_gas).then(0).otherwise(pl.col(name)).alias(name)
            for name in ("gas_limit", "gas_used")
        )
    )
    now = midnight(days[-1]) + 9 * DAY
    rows = onchain_features(metrics, blocks, symbols, days, delay=DAY, now=now)
    counts = null_counts(
        rows, features, lambda: onchain_lacks(metrics, blocks, symbols, days, features)
    )
    grid, _ = day_grid(metrics, blocks, symbols, days, features)
    steps = [(day - grid.span.start.date()).days for day in rows["date"]]
    assert_as_told(rows, slowly(Walk(grid), features, rows, steps), counts)


@settings(max_examples=8, deadline=None)
@given(seed=seeds, share=st.sampled_from([0.0005, 0.005, 0.1]))
def test_a_missing_bar_never_becomes_a_number(seed: int, share: float) -> None:
    """A value over holes is that of the whole data, to the bit, or null."""
    there = pl.Series(np.random.default_rng(seed).random(BARS.height) >= share)
    rows = price_features(BARS.filter(there), DAYS, BAR)
    whole = WHOLE.join(rows, on=KEY, how="semi", maintain_order="left")
    assert rows.height == whole.height == there.sum()
    bits = pl.col(NAMES).reinterpret(dtype=pl.Int64)
    left, right = rows.select(bits), whole.select(bits)
    for feature in EVERY:
        same = (left[feature.name] == right[feature.name]).fill_null(value=True)
        if any(isinstance(key, Others) for key in needs(feature.term)):
            # A rank is one among the symbols that are there.
            continue
        assert same.all(), feature.name
        assert rows[feature.name].null_count() >= whole[feature.name].null_count()
    assert null_faults(rows.lazy(), NAMES) == dict.fromkeys(FAULTS, 0)


@settings(max_examples=5, deadline=None)
@given(seed=seeds)
def test_a_rank_over_holes_is_that_among_the_symbols_that_are_there(seed: int) -> None:
    there = pl.Series(np.random.default_rng(seed).random(BARS.height) >= 0.01)
    plain = Feature("plain", "price_features", CLOSE / CLOSE.lag(2), 1, "", "")
    ranked = Feature("ranked", "price_features", cross_rank(plain.term), 1, "", "")
    rows = price_features(BARS.filter(there), DAYS, BAR, (plain, ranked))
    several = pl.col("plain").count().over("event_timestamp")
    expected = pl.when(several > 1).then(
        pl.col("plain").rank("average").over("event_timestamp") / several
    )
    assert rows["ranked"].to_list() == rows.select(expected).to_series().to_list()


def test_complete_bars_that_move_leave_nothing_to_say() -> None:
    rows = WHOLE.filter(pl.col("date") == DAYS[2])
    assert rows[NULL_REASON].null_count() == rows.height
    assert null_counts(rows, EVERY, lambda: pytest.fail("nothing is null")).is_empty()


@pytest.mark.parametrize("older", [True, False])
def test_only_what_is_older_tells_a_first_bar_from_a_gap(older: bool) -> None:
    """A day alone cannot see beyond its warm-up, so it asks the history."""
    begin = BARS["open_time"][600]
    eth = (pl.col("symbol") == "ETH/USDT") & (pl.col("open_time") < begin)
    bars = BARS.filter(~eth)
    history = BARS.filter(~eth | (pl.col("open_time") < BARS["open_time"][5])) if older else bars
    rows = price_features(bars, [DAYS[2]], BAR, history=history)
    reasons = set(rows.filter(pl.col("symbol") == "ETH/USDT")[NULL_REASON].drop_nulls())
    assert all(("before_history" in each) is not older for each in reasons)
    assert all(("missing_bar" in each) is older for each in reasons)


@settings(max_examples=5, deadline=None)
@given(order=st.permutations(DAYS), seed=seeds)
def test_reasons_of_days_alone_are_those_of_the_range(order: list[date], seed: int) -> None:
    bars = holed(seed, 0.01)
    alone = pl.concat(
        price_features(
            bars.filter(pl.col("date").is_between(day - DAY, day)), [day], BAR, history=bars
        )
        for day in order
    )
    whole = price_features(bars, DAYS, BAR)
    assert alone.sort(KEY)[NULL_REASON].to_list() == whole.sort(KEY)[NULL_REASON].to_list()


def case(recipe: OfPrices, rows: pl.DataFrame) -> proofs.Case:
    day = DAYS[1]
    rows = rows.filter(pl.col("date") == day)
    return proofs.Case(recipe, {"raw_prices": BARS}, rows, day, recipe.cuts(rows, day, 7), 1)


@pytest.mark.parametrize("told", ["undefined", None])
def test_a_row_that_names_another_reason_is_caught(told: str | None) -> None:
    at = (pl.col("symbol") == "ETH/USDT") & (pl.col("event_timestamp") == BARS["close_time"][300])
    # Nothing was known of the warm-up of the first day, and all is of the second.
    reason = pl.when(at).then(pl.lit("missing_bar" if told is None else told))
    rows = WHOLE.with_columns(reason.otherwise(NULL_REASON).alias(NULL_REASON))
    (found,) = proofs.proved([case(OfPrices(BAR), rows)])["nulls_have_reasons"]
    assert str(found).startswith("null_reason of ETH/USDT at 2024-01-02 01:05: ")


def test_a_function_that_makes_a_number_of_a_missing_bar_is_caught() -> None:
    term, _ = leaks("close")["silent zero"]
    features = suspect(term, "price_features")
    recipe = OfPrices(BAR, features)
    lost = BARS["open_time"][400]
    raw = {"raw_prices": BARS.filter(pl.col("open_time") != lost)}
    rows = recipe.make(raw, [DAYS[1]])
    made = proofs.Case(recipe, raw, rows, DAYS[1], recipe.cuts(rows, DAYS[1], 7), 1)
    found = proofs.proved([made])[NULLS]
    assert str(found[-1]) == "suspect of BTC/USDT at 2024-01-02 09:30: None before, 0.0 recomputed"


def test_faults_of_stored_rows_are_counted() -> None:
    rows = WHOLE.filter(pl.col("date") == DAYS[2])
    at = pl.int_range(pl.len())
    wrong = rows.with_columns(
        rsi=pl.when(at == 3).then(float("nan")).when(at == 4).then(float("inf")).otherwise("rsi"),
        macd=pl.when(at.is_in([7, 8])).then(None).otherwise("macd"),
        null_reason=pl.when(at.is_in([8, 9, 10, 11])).then(pl.lit("undefined")),
    )
    assert null_faults(wrong.lazy(), NAMES) == dict(zip(FAULTS, (2, 1, 3), strict=True))


@given(steps=st.integers(min_value=1, max_value=2**300))
def test_runs_are_the_unbroken_stretches_of_steps(steps: int) -> None:
    found = list(runs(steps))
    assert sum(sum(1 << lag for lag in range(a, b + 1)) for a, b in found) == steps
    assert all(b + 1 < c for (_, b), (c, _) in itertools.pairwise(found))


@pytest.mark.parametrize("feature", EVERY, ids=NAMES)
def test_a_term_needs_as_far_back_as_it_reaches(feature: Feature) -> None:
    inner = [key.term.reach for key in needs(feature.term) if isinstance(key, Others)]
    reach = max(steps.bit_length() - 1 for steps in needs(feature.term).values())
    assert max([reach, *inner]) == feature.warmup
