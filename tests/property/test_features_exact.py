"""Nothing looks ahead, and no way of asking changes a bit: over every feature of the catalog."""

from datetime import date

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoml_assets.features import engine, proofs
from cryptoml_assets.features.catalog import features_of
from cryptoml_assets.features.compute import price_features
from cryptoml_assets.features.feature import Feature
from cryptoml_assets.features.formulas import CLOSE
from cryptoml_assets.features.terms import Term, Values, apply
from cryptoml_assets.features.windows import window_mean
from tests.feature_data import BAR, make_bars, some_days

DAYS = some_days(4)
COUNT = 4 * 288
BARS = make_bars(4, ("BTC/USDT", "ETH/USDT", "SOL/USDT"))
WHOLE = price_features(BARS, DAYS, BAR)
EVERY = features_of("price_features")

cuts = st.integers(min_value=1, max_value=COUNT - 1)
seeds = st.integers(min_value=0, max_value=2**32 - 1)


def same_bits(left: pl.DataFrame, right: pl.DataFrame) -> bool:
    """Equality that tells -0.0 from 0.0 and null from NaN."""
    numbers = pl.col(pl.Float64).reinterpret(signed=True)
    return left.with_columns(numbers).equals(right.with_columns(numbers))


def next_bar(values: Values, out: Values) -> None:
    moved = np.roll(values, -1, axis=1)
    moved[:, -1] = np.nan
    out[:] = moved


def less_its_mean(values: Values, out: Values) -> None:
    np.subtract(values, np.nanmean(values), out=out)


def rank_in_time(values: Values, out: Values) -> None:
    out[:] = values.argsort(axis=1).argsort(axis=1)


def running_sum(values: Values, out: Values) -> None:
    np.cumsum(values, axis=1, out=out)


def one_feature(term: Term) -> tuple[Feature, ...]:
    return (Feature("suspect", "price_features", term, 1, "", ""),)


LEAKS = {
    "next bar": apply(next_bar, CLOSE),
    "centred window": apply(next_bar, apply(next_bar, window_mean(CLOSE, 5))),
    "demeaned": apply(less_its_mean, CLOSE),
    "ranked in time": apply(rank_in_time, CLOSE),
}


@settings(max_examples=25, deadline=None)
@given(cut=cuts, seed=seeds)
def test_what_comes_after_a_cut_changes_no_bit_before_it(cut: int, seed: int) -> None:
    moment = BARS["open_time"][cut]
    assert not proofs.look_ahead(BARS, moment.date(), BAR, cut=moment, seed=seed, expected=WHOLE)


@pytest.mark.parametrize("leak", LEAKS.values(), ids=LEAKS.keys())
def test_a_feature_that_leaks_is_caught_and_named(leak: Term) -> None:
    suspect, moment = one_feature(leak), BARS["open_time"][500]
    whole = price_features(BARS, DAYS, BAR, suspect)
    found = proofs.look_ahead(
        BARS, moment.date(), BAR, cut=moment, seed=1, expected=whole, features=suspect
    )
    assert str(found[0]).startswith("suspect of BTC/USDT at 2024-01-02 ")


def test_a_term_cannot_be_of_a_later_bar() -> None:
    with pytest.raises(ValueError, match="-1 steps"):
        CLOSE.lag(-1)


@pytest.mark.parametrize("day", DAYS[1:])
def test_an_earlier_start_changes_no_bit(day: date) -> None:
    alone = price_features(BARS, [day], BAR)
    assert not proofs.warm_up(BARS, day, BAR, expected=alone)


@settings(max_examples=25, deadline=None)
@given(begin=st.integers(min_value=0, max_value=288), seed=seeds)
def test_bars_older_than_a_features_own_warm_up_change_no_bit(begin: int, seed: int) -> None:
    """Of each feature alone: no other one's longer warm-up lends it older bars."""
    day, start = DAYS[2], BARS["open_time"][2 * 288 + begin]
    for feature in EVERY:
        older = pl.col("open_time") < start - feature.warmup * BAR
        noise = pl.Series(np.random.default_rng(seed).uniform(0.5, 2.0, BARS.height))
        bars = BARS.with_columns(
            pl.when(older).then(pl.col(name) * noise).otherwise(pl.col(name)).alias(name)
            for name in ("open", "high", "low", "close", "volume")
        )
        rows = price_features(bars, [day], BAR, (feature,))
        since = pl.col("event_timestamp") >= start + BAR
        wanted = WHOLE.filter(pl.col("date") == day, since).select(rows.columns)
        assert same_bits(rows.filter(since), wanted), feature.name


def test_a_feature_that_remembers_more_than_its_warm_up_is_caught() -> None:
    suspect = one_feature(apply(running_sum, CLOSE))
    alone = price_features(BARS, [DAYS[2]], BAR, suspect)
    for found in (
        proofs.warm_up(BARS, DAYS[2], BAR, expected=alone, features=suspect),
        proofs.partitions(
            BARS,
            DAYS,
            BAR,
            expected=price_features(BARS, DAYS, BAR, suspect),
            features=suspect,
        ),
    ):
        assert str(found[0]).startswith("suspect of BTC/USDT at 2024-01-0")


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(DAYS), gaps=seeds)
def test_days_alone_in_any_order_equal_the_range(order: list[date], gaps: int) -> None:
    bars = proofs.changed_after(BARS, BARS["open_time"][0], gaps, 0.9)
    assert not proofs.partitions(bars, order, BAR, expected=price_features(bars, DAYS, BAR))


@settings(max_examples=10, deadline=None)
@given(cut=cuts)
def test_a_day_in_progress_has_the_bits_it_will_have_when_complete(cut: int) -> None:
    moment = BARS["open_time"][cut]
    so_far = BARS.filter(pl.col("open_time") < moment)
    today = [moment.date()]
    complete = WHOLE.filter(pl.col("date").is_in(today), pl.col("event_timestamp") <= moment)
    assert same_bits(price_features(so_far, today, BAR), complete)


@settings(max_examples=5, deadline=None)
@given(seed=seeds)
def test_neither_the_order_of_rows_nor_other_symbols_matter(seed: int) -> None:
    shuffled = BARS.sample(fraction=1.0, shuffle=True, seed=seed)
    assert same_bits(price_features(shuffled, DAYS, BAR), WHOLE)
    own = tuple(feature for feature in EVERY if not feature.term.across)
    alone = price_features(BARS.filter(pl.col("symbol") == "ETH/USDT"), DAYS, BAR, own)
    assert same_bits(alone, WHOLE.filter(pl.col("symbol") == "ETH/USDT").select(alone.columns))
    assert {feature.name.partition("_")[0] for feature in EVERY if feature not in own} == {
        "beta",
        "correlation",
        "rank",
    }


@pytest.mark.parametrize("size", [1, 7_000, 40_000])
def test_the_size_of_a_block_changes_no_bit(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "BLOCK", size)
    assert same_bits(price_features(BARS, DAYS, BAR), WHOLE)


@settings(max_examples=10, deadline=None)
@given(at=st.integers(min_value=288, max_value=800), symbol=st.sampled_from([0, 1]))
def test_a_revised_bar_changes_only_the_windows_over_it(at: int, symbol: int) -> None:
    moment, name = BARS["open_time"][at], ("BTC/USDT", "ETH/USDT")[symbol]
    revised = BARS.with_columns(
        pl.when(pl.col("open_time") == moment, pl.col("symbol") == name)
        .then(pl.col(column) * 1.01)
        .otherwise(pl.col(column))
        .alias(column)
        for column in ("open", "high", "low", "close", "volume")
    )
    rows = price_features(revised, DAYS, BAR)
    for feature in EVERY:
        last = moment + (feature.warmup + 1) * BAR
        far = ~pl.col("event_timestamp").is_between(moment + BAR, last)
        if not feature.term.across:
            far |= pl.col("symbol") != name
        columns = ["symbol", "event_timestamp", feature.name]
        assert same_bits(rows.filter(far).select(columns), WHOLE.filter(far).select(columns))
    assert not rows.equals(WHOLE)
