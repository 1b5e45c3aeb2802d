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
from cryptoml_assets.features.lacks import Others, needs
from cryptoml_assets.features.remake import OfPrices
from cryptoml_assets.features.terms import Term, apply, columns_of
from tests.feature_data import BAR, make_bars, some_days
from tests.feature_leaks import AHEAD, ALONE, EARLY, leaks, running_sum, suspect

DAYS = some_days(4)
COUNT = 4 * 288
SYMBOLS = ("BTC/USDT", "ETH/USDT", "SOL/USDT")
BARS = make_bars(4, SYMBOLS)
RAW = {"raw_prices": BARS}
WHOLE = price_features(BARS, DAYS, BAR)
EVERY = features_of("price_features")
PRICES = OfPrices(BAR)
NUMBERS = ("open", "high", "low", "close", "volume")

cuts = st.integers(min_value=1, max_value=COUNT - 1)
seeds = st.integers(min_value=0, max_value=2**32 - 1)


def same_bits(left: pl.DataFrame, right: pl.DataFrame) -> bool:
    """Equality that tells -0.0 from 0.0 and null from NaN."""
    numbers = pl.col(pl.Float64).reinterpret(dtype=pl.Int64)
    return left.with_columns(numbers).equals(right.with_columns(numbers))


def one_bar(moment: object, symbol: str) -> pl.Expr:
    return (pl.col("open_time") == moment) & (pl.col("symbol") == symbol)


@settings(max_examples=25, deadline=None)
@given(cut=cuts, seed=seeds)
def test_what_comes_after_a_cut_changes_no_bit_before_it(cut: int, seed: int) -> None:
    moment = BARS["open_time"][cut]
    assert not proofs.look_ahead(
        PRICES, RAW, moment.date(), cuts=(moment, moment), seed=seed, expected=WHOLE
    )


LEAKS = {name: each for name, each in leaks("close").items() if each[1] in {AHEAD, ALONE, EARLY}}


@pytest.mark.parametrize(("leak", "proof"), LEAKS.values(), ids=LEAKS.keys())
def test_a_feature_that_leaks_is_caught_and_named(leak: Term, proof: str) -> None:
    recipe, day = OfPrices(BAR, suspect(leak, "price_features")), DAYS[2]
    rows = recipe.make(RAW, DAYS).filter(pl.col("date") == day)
    cases = [
        proofs.Case(recipe, RAW, rows, day, recipe.cuts(rows, day, second), seed=1)
        for second in (1, 100, 200)
    ]
    found = proofs.proved(cases)[proof]
    assert str(found[0]).startswith("suspect of ")


def test_a_term_cannot_be_of_a_later_bar() -> None:
    with pytest.raises(ValueError, match="-1 steps"):
        CLOSE.lag(-1)


@settings(max_examples=5, deadline=None)
@given(gaps=seeds)
def test_a_lag_is_the_feature_that_many_bars_before_to_the_bit(gaps: int) -> None:
    """Null where that is, and where its bar has no row; over holes and the first days' edge."""
    raw = PRICES.changed_after(RAW, BARS["open_time"][0], gaps, 0.9)
    before, rows = PRICES.make(raw, DAYS), PRICES.make(raw, DAYS[1:])
    lags = [(feature.name, *feature.lag_of) for feature in EVERY if feature.lag_of is not None]
    assert len(lags) == 30
    for name, of, steps in lags:
        then = before.select(
            "symbol", (pl.col("event_timestamp") + steps * BAR).alias("event_timestamp"), then=of
        )
        pairs = rows.select("symbol", "event_timestamp", name).join(
            then, on=["symbol", "event_timestamp"], how="left", maintain_order="left"
        )
        assert same_bits(pairs.select(pl.col(name)), pairs.select(pl.col("then").alias(name)))
        assert 0 < pairs[name].null_count() < pairs.height / 2


@pytest.mark.parametrize("day", DAYS[1:])
def test_an_earlier_start_changes_no_bit(day: date) -> None:
    alone = price_features(BARS, [day], BAR)
    assert not proofs.warm_up(PRICES, RAW, day, expected=alone)


@settings(max_examples=10, deadline=None)
@given(begin=st.integers(min_value=0, max_value=288), seed=seeds)
def test_bars_older_than_a_features_own_warm_up_change_no_bit(begin: int, seed: int) -> None:
    """Of each feature alone: no other one's longer warm-up lends it older bars."""
    day, start = DAYS[2], BARS["open_time"][2 * 288 + begin]
    noise = pl.Series(np.random.default_rng(seed).uniform(0.5, 2.0, BARS.height))
    for warmup in {feature.warmup for feature in EVERY}:
        alike = tuple(feature for feature in EVERY if feature.warmup == warmup)
        older = pl.col("open_time") < start - warmup * BAR
        bars = BARS.with_columns(
            pl.when(older).then(pl.col(name) * noise).otherwise(pl.col(name)).alias(name)
            for name in NUMBERS
        )
        rows = price_features(bars, [day], BAR, alike).drop("null_reason")
        since = pl.col("event_timestamp") >= start + BAR
        wanted = WHOLE.filter(pl.col("date") == day, since).select(rows.columns)
        assert same_bits(rows.filter(since), wanted), warmup


def test_a_feature_that_remembers_more_than_its_warm_up_is_caught() -> None:
    recipe = OfPrices(BAR, suspect(apply(running_sum, CLOSE), "price_features"))
    alone = recipe.make(RAW, [DAYS[2]])
    for found in (
        proofs.warm_up(recipe, RAW, DAYS[2], expected=alone),
        proofs.partitions(recipe, RAW, DAYS, expected=recipe.make(RAW, DAYS)),
    ):
        assert str(found[0]).startswith("suspect of BTC/USDT at 2024-01-0")


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(DAYS), gaps=seeds)
def test_days_alone_in_any_order_equal_the_range(order: list[date], gaps: int) -> None:
    raw = PRICES.changed_after(RAW, BARS["open_time"][0], gaps, 0.9)
    assert not proofs.partitions(PRICES, raw, order, expected=PRICES.make(raw, DAYS))


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
    whole = price_features(BARS, DAYS, BAR, own)
    assert same_bits(alone, whole.filter(pl.col("symbol") == "ETH/USDT"))
    assert {feature.name.partition("_")[0] for feature in EVERY if feature not in own} == {
        "beta",
        "correlation",
        "rank",
    }


@pytest.mark.parametrize("size", [1, 7_000, 40_000])
def test_the_size_of_a_block_changes_no_bit(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "BLOCK", size)
    assert same_bits(price_features(BARS, DAYS, BAR), WHOLE)


def revised(symbol: str, at: int, how: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Bars before and after one of them was changed, deleted, or came late."""
    bar = one_bar(BARS["open_time"][at], symbol)
    without = BARS.filter(~bar)
    other = BARS.with_columns(
        pl.when(bar).then(pl.col(name) * factor).otherwise(pl.col(name)).alias(name)
        for name, factor in zip(NUMBERS, (1.02, 1.03, 0.97, 1.01, 3.0), strict=True)
    )
    return {"changed": (BARS, other), "deleted": (BARS, without), "late": (without, BARS)}[how]


def changes(before: pl.DataFrame, after: pl.DataFrame, feature: Feature) -> set[tuple[str, int]]:
    """Symbol and step of every row whose value has other bits, is gone, or is new."""
    bits = pl.col(feature.name).reinterpret(dtype=pl.Int64).alias("bits")
    columns = ("symbol", "event_timestamp", bits, pl.lit(value=True).alias("there"))
    both = before.select(columns).join(
        after.select(columns), on=["symbol", "event_timestamp"], how="full", coalesce=True
    )
    apart = both.filter(
        pl.col("bits").ne_missing(pl.col("bits_right"))
        | pl.col("there").ne_missing(pl.col("there_right"))
    )
    first = BARS["close_time"][0]
    return {(name, (at - first) // BAR) for name, at, *_ in apart.iter_rows()}


def reached(feature: Feature, symbol: str, at: int) -> set[tuple[str, int]]:
    """Every place whose value the bar of ``symbol`` at step ``at`` goes into, or that it dates."""
    places = {(symbol, at)}
    for column, steps in needs(feature.term).items():
        lags = [lag for lag in range(steps.bit_length()) if steps >> lag & 1]
        if isinstance(column, Others):
            places |= {(name, at + lag) for name in SYMBOLS for lag in range(feature.warmup + 1)}
        elif column.symbol == symbol:
            places |= {(name, at + lag) for name in SYMBOLS for lag in lags}
        elif not column.symbol and column.name in NUMBERS:
            places |= {(symbol, at + lag) for lag in lags}
    return places


@settings(max_examples=12, deadline=None)
@given(
    at=st.integers(min_value=300, max_value=COUNT - 300),
    symbol=st.sampled_from(SYMBOLS),
    how=st.sampled_from(["changed", "deleted", "late"]),
)
def test_a_revised_bar_changes_the_windows_over_it_and_nothing_else(
    at: int, symbol: str, how: str
) -> None:
    before, after = (price_features(bars, DAYS, BAR) for bars in revised(symbol, at, how))
    moved = 0
    for feature in EVERY:
        found = changes(before, after, feature)
        assert found <= reached(feature, symbol, at), feature.name
        assert all(at <= step <= at + feature.warmup for _, step in found), feature.name
        assert feature.term.across or {name for name, _ in found} <= {symbol}, feature.name
        moved += bool({step for _, step in found} - ({at} if how != "changed" else set()))
    # All but those of the bar alone, or of no bar at all, move beyond the row that came or went.
    assert moved >= 0.75 * len(EVERY)


def test_a_revised_bar_changes_every_feature_that_is_made_of_bars() -> None:
    # One alone may leave the order of the symbols as it was.
    pairs = [
        [price_features(bars, DAYS, BAR) for bars in revised("BTC/USDT", at, "changed")]
        for at in (400, 500, 600)
    ]
    for feature in EVERY:
        found = set().union(*(changes(*pair, feature) for pair in pairs))
        assert bool(found) is bool(feature.sources), feature.name
        of_others = {name for name, _ in found} - {"BTC/USDT"}
        if any(column.symbol for column in columns_of([feature.term])):
            assert of_others, feature.name


def test_a_row_that_only_one_side_has_differs_even_where_it_is_null() -> None:
    without = WHOLE.filter(pl.col("event_timestamp") != BARS["close_time"][0])
    (found,) = proofs.differences(WHOLE, without, ["rsi"])
    assert str(found) == "rsi of BTC/USDT at 2024-01-01 00:05: None before, None recomputed"
