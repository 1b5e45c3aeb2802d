"""Nothing looks ahead, and no way of asking changes a bit."""

from datetime import date, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoml_assets.features.catalog import Feature, features_of
from cryptoml_assets.features.compute import price_features
from tests.feature_data import BAR, make_bars, some_days

DAYS = some_days(4)
COUNT = 4 * 288
BARS = make_bars(4)
WHOLE = price_features(BARS, DAYS, BAR)

cuts = st.integers(min_value=1, max_value=COUNT - 1)
seeds = st.integers(min_value=0, max_value=2**32 - 1)


def same_bits(left: pl.DataFrame, right: pl.DataFrame) -> bool:
    """Equality that tells -0.0 from 0.0 and null from NaN."""
    numbers = pl.col(pl.Float64).reinterpret(signed=True)
    return left.with_columns(numbers).equals(right.with_columns(numbers))


def disturbed(bars: pl.DataFrame, first_open: pl.Expr, seed: int, kept: float) -> pl.DataFrame:
    """Other values from ``first_open`` on, and only a share of the bars."""
    after = pl.col("open_time") >= first_open
    noise = (
        pl.Series("noise", range(bars.height)).sample(bars.height, shuffle=True, seed=seed)
        / bars.height
    )
    return (
        bars.with_columns(noise.alias("noise"))
        .filter(~after | (pl.col("noise") < kept))
        .with_columns(
            pl.when(after)
            .then(pl.col(name) * (1 + pl.col("noise") * 9))
            .otherwise(pl.col(name))
            .alias(name)
            for name in ("open", "high", "low", "close", "volume")
        )
        .drop("noise")
    )


def values_until(
    bars: pl.DataFrame, moment: pl.Expr, features: tuple[Feature, ...]
) -> pl.DataFrame:
    rows = price_features(bars, DAYS, BAR, features)
    return rows.filter(pl.col("event_timestamp") <= moment)


def assert_nothing_looks_ahead(
    features: tuple[Feature, ...], cut: int, seed: int, kept: float
) -> None:
    moment = pl.lit(BARS["open_time"][cut])
    changed = disturbed(BARS, moment, seed, kept)
    assert same_bits(values_until(changed, moment, features), values_until(BARS, moment, features))


@settings(max_examples=20, deadline=None)
@given(cut=cuts, seed=seeds, kept=st.sampled_from([0.0, 0.5, 1.0]))
def test_what_comes_after_a_cut_changes_no_bit_before_it(cut: int, seed: int, kept: float) -> None:
    assert_nothing_looks_ahead(features_of("price_features"), cut, seed, kept)


@pytest.mark.parametrize(
    "leak",
    [
        pl.col("close").shift(-1),
        pl.col("close").rolling_mean(5, center=True),
        pl.col("close") - pl.col("close").mean(),
        pl.col("close").rank(),
    ],
    ids=["next bar", "centred window", "demeaned", "ranked"],
)
def test_a_feature_that_leaks_is_caught(leak: pl.Expr) -> None:
    leaking = Feature("leaking", "price_features", leak.cast(pl.Float64), 0, "", "")
    with pytest.raises(AssertionError):
        assert_nothing_looks_ahead((leaking,), cut=500, seed=1, kept=0.5)


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(DAYS), gaps=seeds)
def test_days_alone_in_any_order_equal_the_range(order: list[date], gaps: int) -> None:
    bars = disturbed(BARS, pl.lit(BARS["open_time"][0]), gaps, 0.9)
    whole = price_features(bars, DAYS, BAR)
    alone = pl.concat(price_features(bars, [day], BAR) for day in order)
    assert same_bits(alone.sort("symbol", "event_timestamp"), whole)


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
    alone = price_features(BARS.filter(pl.col("symbol") == "ETH/USDT"), DAYS, BAR)
    assert same_bits(alone, WHOLE.filter(pl.col("symbol") == "ETH/USDT"))


def test_a_revised_bar_changes_only_the_windows_over_it() -> None:
    at = 500
    revised = BARS.with_columns(
        pl.when(pl.col("open_time") == BARS["open_time"][at])
        .then(pl.col("close") * 1.01)
        .otherwise(pl.col("close"))
        .alias("close")
    )
    rows = price_features(revised, DAYS, BAR)
    longest = max(feature.warmup for feature in features_of("price_features"))
    for far in (
        pl.col("event_timestamp") <= BARS["open_time"][at],
        pl.col("date") >= BARS["date"][at] + timedelta(days=2),
    ):
        assert same_bits(rows.filter(far), WHOLE.filter(far))
    assert not rows.equals(WHOLE)
    assert longest * BAR <= timedelta(days=1)
