import itertools
import math
import statistics
from datetime import timedelta

import polars as pl
import pytest

from cryptoml_assets.errors import LakeError
from cryptoml_assets.features.catalog import FEATURES, features_of, price_warmup
from cryptoml_assets.features.compute import days_before, feature_schema, price_features
from tests.feature_data import BAR, FIRST, make_bars, some_days

DAYS = some_days(3)
NAMES = [feature.name for feature in features_of("price_features")]


@pytest.fixture(scope="module")
def bars() -> pl.DataFrame:
    return make_bars(3, ["BTC/USDT"])


@pytest.fixture(scope="module")
def features(bars: pl.DataFrame) -> pl.DataFrame:
    return price_features(bars, DAYS, BAR)


def reference(bars: pl.DataFrame, at: int) -> dict[str, float]:
    """Every price feature of one bar by the textbook, in plain Python."""
    close = bars["close"].to_list()
    returns = [math.log(now / then) for then, now in itertools.pairwise(close)]

    def last(values: list[float], count: int) -> list[float]:
        offset = 1 if values is not returns else 0
        return values[at + offset - count : at + offset]

    changes = [now - then for then, now in zip(last(close, 15), last(close, 14), strict=False)]
    gains = sum(max(change, 0) for change in changes)
    losses = sum(max(-change, 0) for change in changes)
    volumes = [math.log1p(volume) for volume in last(bars["volume"].to_list(), 288)]
    bar = bars.row(at, named=True)
    phase = 2 * math.pi * (bar["close_time"].hour * 60 + bar["close_time"].minute) / (24 * 60)
    return {
        "price": close[at],
        "volume": bar["volume"],
        "sma_5": statistics.fmean(last(close, 5)),
        "sma_20": statistics.fmean(last(close, 20)),
        "rsi": 100 * gains / (gains + losses),
        "volatility": statistics.stdev(last(returns, 20)),
        "momentum": close[at] / close[at - 12] - 1,
        "log_return_1": math.log(close[at] / close[at - 1]),
        "log_return_3": math.log(close[at] / close[at - 3]),
        "log_return_12": math.log(close[at] / close[at - 12]),
        "sma_gap_5": close[at] / statistics.fmean(last(close, 5)) - 1,
        "sma_gap_20": close[at] / statistics.fmean(last(close, 20)) - 1,
        "volatility_288": statistics.stdev(last(returns, 288)),
        "high_low_range": math.log(bar["high"] / bar["low"]),
        "volume_zscore": (volumes[-1] - statistics.fmean(volumes)) / statistics.stdev(volumes),
        "hour_sin": math.sin(phase),
        "hour_cos": math.cos(phase),
    }


@pytest.mark.parametrize("at", [288, 300, 576, 700, 863])
def test_every_feature_equals_its_textbook_formula(
    bars: pl.DataFrame, features: pl.DataFrame, at: int
) -> None:
    row = features.row(at, named=True)
    expected = reference(bars, at)
    assert set(expected) == set(NAMES)
    assert {name: row[name] for name in NAMES} == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_a_row_is_dated_at_its_bars_close_and_belongs_to_the_day_the_bar_opened(
    bars: pl.DataFrame, features: pl.DataFrame
) -> None:
    assert features["event_timestamp"].to_list() == bars["close_time"].to_list()
    assert features["date"].to_list() == bars["date"].to_list()
    assert features.schema == feature_schema(features_of("price_features"))


@pytest.mark.parametrize("feature", features_of("price_features"), ids=lambda each: each.name)
def test_a_value_exists_exactly_from_its_declared_warm_up_on(
    features: pl.DataFrame, feature: object
) -> None:
    known = features[feature.name].is_not_null()
    assert known.arg_max() == feature.warmup
    assert known[feature.warmup :].all()


def test_bars_before_the_declared_warm_up_change_nothing(bars: pl.DataFrame) -> None:
    start = bars["open_time"][288] - price_warmup() * BAR
    day = [DAYS[1]]
    enough = bars.filter(pl.col("open_time") >= start)
    assert price_features(enough, day, BAR).equals(price_features(bars, day, BAR))
    assert enough.height < bars.height or price_warmup() == 288
    one_short = bars.filter(pl.col("open_time") > start)
    assert price_features(one_short, day, BAR)["volatility_288"].null_count() == 1


def test_a_missing_bar_makes_exactly_the_windows_over_it_null(bars: pl.DataFrame) -> None:
    gap = 400
    features = price_features(bars.filter(pl.int_range(pl.len()) != gap), DAYS, BAR)
    assert features.height == bars.height - 1
    around = features.with_columns(
        at=(pl.col("event_timestamp") - pl.col("event_timestamp").min()).dt.total_minutes() // 5
    )
    for feature in features_of("price_features"):
        null = around.filter(pl.col(feature.name).is_null(), pl.col("at") >= feature.warmup)
        # A return needs only its two ends; every other window needs all its bars.
        ends = {"log_return_3": [403], "log_return_12": [412], "momentum": [412]}
        every = list(range(gap + 1, gap + feature.warmup + 1))
        assert null["at"].to_list() == ends.get(feature.name, every)


def test_a_price_that_never_moves_gives_null_where_the_formula_divides_by_zero() -> None:
    flat = make_bars(2, ["BTC/USDT"]).with_columns(
        pl.lit(5.0).alias(name) for name in ("open", "high", "low", "close", "volume")
    )
    features = price_features(flat, DAYS[:2], BAR)
    assert features["rsi"].null_count() == features.height
    assert features["volatility"].drop_nulls().unique().to_list() == [0.0]
    assert not features.select(pl.col(pl.Float64).is_nan().any()).row(0).count(True)


def test_no_bars_give_an_empty_frame_of_the_same_schema(bars: pl.DataFrame) -> None:
    schema = feature_schema(features_of("price_features"))
    for empty in (price_features(bars.clear(), DAYS, BAR), price_features(bars, (), BAR)):
        assert empty.is_empty()
        assert empty.schema == schema
    assert price_features(bars, [FIRST + timedelta(days=30)], BAR).is_empty()


def test_a_bar_given_twice_is_refused(bars: pl.DataFrame) -> None:
    with pytest.raises(LakeError, match="1 bars are there more than once"):
        price_features(pl.concat([bars, bars[7]]), DAYS, BAR)


def test_a_bar_off_the_grid_is_refused(bars: pl.DataFrame) -> None:
    late = bars.with_columns(pl.col("open_time") + timedelta(seconds=1))
    with pytest.raises(LakeError, match="864 bars do not open on a whole step of 0:05:00"):
        price_features(late, DAYS, BAR)


@pytest.mark.parametrize(("minutes", "days"), [(1, 1), (5, 1), (15, 3), (60, 12), (1440, 288)])
def test_days_before_cover_the_warm_up(minutes: int, days: int) -> None:
    assert days_before(timedelta(minutes=minutes), warmup=288) == days


def test_hourly_bars_read_as_many_days_as_their_warm_up_needs() -> None:
    hour = timedelta(hours=1)
    days = some_days(14)
    bars = make_bars(14, ["BTC/USDT"], bar=hour)
    features = price_features(bars, days[-1:], hour)
    assert features.height == 24
    assert features["volatility_288"].null_count() == 0


def test_names_are_unique_and_the_required_ones_are_there() -> None:
    names = [feature.name for feature in FEATURES]
    assert len(set(names)) == len(names)
    required = {
        "price_features": "price volume sma_5 sma_20 rsi volatility momentum",
        "onchain_features": "active_addresses transaction_count network_hash_rate nvt_ratio "
        "mvrv_ratio",
    }
    for table, wanted in required.items():
        assert set(wanted.split()) <= {f.name for f in FEATURES if f.table == table}
