from datetime import timedelta

import polars as pl
import pytest

from cryptoml_assets.errors import LakeError
from cryptoml_assets.features.catalog import FEATURES, features_of, price_warmup
from cryptoml_assets.features.compute import days_before, feature_schema, price_features
from cryptoml_assets.features.feature import Feature
from tests.feature_data import BAR, FIRST, make_bars, some_days
from tests.feature_textbook import textbook

DAYS = some_days(3)
SYMBOLS = ("BTC/USDT", "ETH/USDT", "SOL/USDT")
NAMES = [feature.name for feature in features_of("price_features")]
RANKED = {
    "rank_log_return_12": "log_return_12",
    "rank_log_return_288": "log_return_288",
    "rank_volatility_48": "volatility_48",
    "rank_volume_zscore": "volume_zscore",
}


@pytest.fixture(scope="module")
def bars() -> pl.DataFrame:
    return make_bars(3, SYMBOLS)


@pytest.fixture(scope="module")
def features(bars: pl.DataFrame) -> pl.DataFrame:
    return price_features(bars, DAYS, BAR)


def of_symbol(frame: pl.DataFrame, symbol: str) -> pl.DataFrame:
    return frame.filter(pl.col("symbol") == symbol)


@pytest.mark.parametrize("symbol", SYMBOLS)
@pytest.mark.parametrize("at", [288, 300, 576, 700, 863])
def test_every_feature_equals_its_textbook_formula(
    bars: pl.DataFrame, features: pl.DataFrame, at: int, symbol: str
) -> None:
    row = of_symbol(features, symbol).row(at, named=True)
    expected = textbook(of_symbol(bars, symbol), of_symbol(bars, SYMBOLS[0]), at)
    assert {*expected, *RANKED} == set(NAMES)
    assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("rank", "ranked"), RANKED.items())
def test_a_rank_is_the_share_of_symbols_not_above(
    features: pl.DataFrame, rank: str, ranked: str
) -> None:
    several = features.drop_nulls(ranked).with_columns(
        expected=pl.col(ranked).rank("average").over("event_timestamp")
        / pl.len().over("event_timestamp")
    )
    assert several[rank].to_list() == several["expected"].to_list()
    assert set(several[rank]) == {1 / 3, 2 / 3, 1.0}


def test_equal_values_share_the_mean_of_their_ranks_and_one_alone_has_none() -> None:
    bars = make_bars(2, ["BTC/USDT"])
    twins = pl.concat(bars.with_columns(symbol=pl.lit(name)) for name in ("A/USDT", "B/USDT"))
    assert price_features(twins, DAYS[1:2], BAR)["rank_volatility_48"].unique().to_list() == [0.75]
    alone = price_features(bars, DAYS[1:2], BAR)
    assert alone["rank_volatility_48"].null_count() == alone.height


def test_without_bitcoin_there_is_neither_beta_nor_correlation() -> None:
    features = price_features(make_bars(2, ["ETH/USDT"]), DAYS[1:2], BAR)
    for name in ("beta_btc_48", "correlation_btc_288"):
        assert features[name].null_count() == features.height
    bitcoin = price_features(make_bars(2, ["BTC/USDT"]), DAYS[1:2], BAR)
    assert bitcoin["beta_btc_48"].unique().to_list() == [1.0]
    assert bitcoin["correlation_btc_48"].unique().to_list() == [1.0]


def test_a_row_is_dated_at_its_bars_close_and_belongs_to_the_day_the_bar_opened(
    bars: pl.DataFrame, features: pl.DataFrame
) -> None:
    assert features["event_timestamp"].to_list() == bars["close_time"].to_list()
    assert features["date"].to_list() == bars["date"].to_list()
    assert features.schema == feature_schema(features_of("price_features"))


@pytest.mark.parametrize("feature", features_of("price_features"), ids=lambda each: each.name)
def test_a_value_exists_exactly_from_its_declared_warm_up_on(
    features: pl.DataFrame, feature: Feature
) -> None:
    known = of_symbol(features, "ETH/USDT")[feature.name].is_not_null()
    assert known.arg_max() == feature.warmup
    assert known[feature.warmup :].all()


def test_bars_before_the_declared_warm_up_change_nothing(bars: pl.DataFrame) -> None:
    start = bars["open_time"][288] - price_warmup() * BAR
    day = [DAYS[1]]
    enough = bars.filter(pl.col("open_time") >= start)
    assert price_features(enough, day, BAR).equals(price_features(bars, day, BAR))
    assert enough.height < bars.height or price_warmup() == 288
    one_short = bars.filter(pl.col("open_time") > start)
    assert price_features(one_short, day, BAR)["volatility_288"].null_count() == len(SYMBOLS)


@pytest.mark.parametrize("feature", features_of("price_features"), ids=lambda each: each.name)
def test_a_missing_bar_makes_exactly_the_windows_over_it_null(
    bars: pl.DataFrame, feature: Feature
) -> None:
    gap = bars["open_time"][400]
    lost = (pl.col("symbol") == "ETH/USDT") & (pl.col("open_time") == gap)
    rows = of_symbol(price_features(bars.filter(~lost), DAYS, BAR, (feature,)), "ETH/USDT")
    assert rows.height == 3 * 288 - 1
    null = rows.filter(pl.col(feature.name).is_null(), pl.col("event_timestamp") > gap)
    # A return needs only its two ends; every other window needs all its bars. Lags have it later.
    ends = "return_" in feature.name or feature.name.startswith("momentum")
    later = feature.lag_of[1] if feature.lag_of else 0
    reach = feature.warmup - later
    over = {0, reach} if ends else range(reach + 1)
    after = [later + bar for bar in sorted(over) if later + bar]
    assert null["event_timestamp"].to_list() == [gap + (bar + 1) * BAR for bar in after]


def test_a_bar_without_bitcoin_has_no_beta(bars: pl.DataFrame) -> None:
    gap = bars["open_time"][400]
    lost = (pl.col("symbol") == "BTC/USDT") & (pl.col("open_time") == gap)
    rows = of_symbol(price_features(bars.filter(~lost), DAYS, BAR), "ETH/USDT")
    null = rows.filter(pl.col("beta_btc_48").is_null(), pl.col("event_timestamp") > gap)
    assert null["event_timestamp"].to_list() == [gap + (bar + 1) * BAR for bar in range(49)]


def test_a_price_that_never_moves_gives_null_where_the_formula_divides_by_zero() -> None:
    flat = make_bars(2, ["BTC/USDT"]).with_columns(
        pl.lit(5.0).alias(name) for name in ("open", "high", "low", "close", "volume")
    )
    features = price_features(flat, DAYS[:2], BAR)
    assert features["rsi"].null_count() == features.height
    assert features["volatility"].drop_nulls().unique().to_list() == [0.0]
    for name in ("skewness_48", "beta_btc_48", "volume_zscore", "bollinger_position_20"):
        assert features[name].null_count() == features.height
    assert not features.select(pl.col(pl.Float64).is_nan().any()).row(0).count(True)
    assert not features.select(pl.col(pl.Float64).is_infinite().any()).row(0).count(True)


def test_a_bar_that_traded_nothing_has_no_illiquidity() -> None:
    bars = make_bars(2, ["BTC/USDT"]).with_columns(
        volume=pl.when(pl.int_range(pl.len()) == 300).then(0.0).otherwise("volume")
    )
    features = price_features(bars, DAYS[:2], BAR)
    assert features["illiquidity_48"].is_null().arg_true().to_list() == [
        *range(48),
        *range(300, 348),
    ]
    assert not features["volume_zscore"][287:].null_count()


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
    with pytest.raises(LakeError, match="2592 bars do not open on a whole step of 0:05:00"):
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
