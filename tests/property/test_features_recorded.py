"""The proofs of exactness on recorded bars, the crash of 2024-08-05 among them."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cryptoml_assets.features import proofs
from cryptoml_assets.features.catalog import features_of
from cryptoml_assets.features.compute import price_features
from cryptoml_assets.features.remake import OfChain, OfPrices
from tests.feature_data import make_blocks
from tests.feature_textbook import textbook

pytestmark = pytest.mark.realdata
BAR = timedelta(minutes=5)
DAYS = tuple(date(2024, 8, 1) + timedelta(days=offset) for offset in range(8))
PRICES = OfPrices(BAR)
CHAIN_DAYS = tuple(date(2021, 3, 1) + timedelta(days=offset) for offset in range(40))
CHAIN_NOW = datetime(2021, 5, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def bars(realdata: Path) -> pl.DataFrame:
    return pl.concat(
        pl.read_ipc(realdata / "ohlcv" / f"{asset}_USDT-5m.feather").select(
            pl.lit(f"{asset}/USDT").alias("symbol"),
            pl.col("date").cast(pl.Datetime("us", "UTC")).alias("open_time"),
            "open",
            "high",
            "low",
            "close",
            "volume",
            pl.lit("replay").alias("source"),
        )
        for asset in ("BTC", "ETH")
    )


@pytest.fixture(scope="module")
def whole(bars: pl.DataFrame) -> pl.DataFrame:
    return price_features(bars, DAYS, BAR)


def test_every_value_is_there(whole: pl.DataFrame) -> None:
    assert whole.height == 2 * 288 * len(DAYS)
    assert sum(whole.drop("null_reason").null_count().row(0)) == 0
    assert whole["null_reason"].null_count() == whole.height


@pytest.mark.parametrize("order", [DAYS[::-1], DAYS[::2] + DAYS[1::2]], ids=["back", "mixed"])
def test_days_alone_in_any_order_equal_the_range(
    bars: pl.DataFrame, whole: pl.DataFrame, order: tuple[date, ...]
) -> None:
    assert not proofs.partitions(PRICES, {"raw_prices": bars}, order, expected=whole)


@pytest.mark.parametrize("share", [0.0, 0.002, 0.05])
@pytest.mark.parametrize("day", DAYS[2:6])
def test_every_proof_holds_for_every_feature(bars: pl.DataFrame, day: date, share: float) -> None:
    """On what was recorded, and on what is left of it when bars are lost."""
    chance = np.random.default_rng(day.day)
    raw = {"raw_prices": bars.filter(pl.Series(chance.random(bars.height) >= share))}
    recipe = OfPrices(BAR, history=raw["raw_prices"].lazy())
    rows = recipe.make(raw, [day])
    cuts = recipe.cuts(rows, day, int(chance.integers(86_400)))
    found = proofs.proved([proofs.Case(recipe, raw, rows, day, cuts, day.day)])
    assert found == dict.fromkeys(proofs.MEANINGS, ())
    assert bool(share) is bool(rows["null_reason"].drop_nulls().len())


@pytest.mark.parametrize("hour", [0, 7, 23])
def test_nothing_after_a_cut_is_needed(bars: pl.DataFrame, whole: pl.DataFrame, hour: int) -> None:
    cut = datetime(2024, 8, 5, hour, 5, tzinfo=UTC)
    raw = {"raw_prices": bars}
    assert not proofs.look_ahead(
        PRICES, raw, cut.date(), cuts=(cut, cut + BAR), seed=hour, expected=whole
    )


@pytest.mark.parametrize("asset", ["BTC", "ETH"])
@pytest.mark.parametrize("how", ["changed", "deleted"])
def test_a_revised_bar_changes_the_windows_over_it_and_nothing_else(
    bars: pl.DataFrame, whole: pl.DataFrame, asset: str, how: str
) -> None:
    """The deepest bar of the crash."""
    moment = datetime(2024, 8, 5, 1, 35, tzinfo=UTC)
    here = (pl.col("symbol") == f"{asset}/USDT") & (pl.col("open_time") == moment)
    other = (
        bars.filter(~here)
        if how == "deleted"
        else bars.with_columns(
            pl.when(here).then(pl.col(name) * 1.01).otherwise(name).alias(name)
            for name in ("open", "high", "low", "close", "volume")
        )
    )
    rows = price_features(other, DAYS, BAR)
    key = ["symbol", "event_timestamp"]
    touched = set()
    for feature in features_of("price_features"):
        bits = pl.col(feature.name).reinterpret(dtype=pl.Int64).alias("bits")
        both = whole.select(*key, bits).join(rows.select(*key, bits), on=key)
        apart = both.filter(pl.col("bits").ne_missing(pl.col("bits_right")))
        last = moment + (feature.warmup + 1) * BAR
        assert apart["event_timestamp"].is_between(moment + BAR, last).all(), feature.name
        own = {f"{asset}/USDT"} if not feature.term.across else set(whole["symbol"])
        assert set(apart["symbol"]) <= own, feature.name
        touched |= {feature.name} if apart.height else set()
    # Lags are touched as what they are lags of, and a range whose ends both moved is not.
    own = {feature.name for feature in features_of("price_features") if not feature.lag_of}
    assert len(touched & own) > 0.75 * len(own)


@pytest.fixture(scope="module")
def metrics(realdata: Path) -> pl.DataFrame:
    """Recorded metrics of 40 days; the recording has no MVRV of ether."""
    named = {
        "AdrActCnt": "active_addresses",
        "TxCnt": "transaction_count",
        "HashRate": "hash_rate",
        "NVTAdj": "nvt_ratio",
        "CapMVRVCur": "mvrv_ratio",
    }
    frames = []
    for asset in ("btc", "eth"):
        recorded = pl.read_csv(realdata / "onchain" / f"{asset}.csv", try_parse_dates=True)
        day = pl.col("time").cast(pl.Date)
        absent = [pl.lit(None).alias(name) for name in named if name not in recorded.columns]
        frames.append(
            recorded.with_columns(absent)
            .filter(day.is_between(CHAIN_DAYS[0], CHAIN_DAYS[-1]))
            .select(
                pl.lit(asset).alias("asset"),
                day.alias("day"),
                *(pl.col(old).cast(pl.Float64).alias(new) for old, new in named.items()),
                pl.lit("replay").alias("source"),
                day.alias("date"),
            )
        )
    return pl.concat(frames)


@pytest.mark.parametrize("place", [8, 20, 30, 38])
def test_every_proof_holds_on_recorded_metrics(metrics: pl.DataFrame, place: int) -> None:
    """Blocks are made up: the recorded ones are of eight days years apart."""
    lag = timedelta(hours=8)
    recipe = OfChain(("BTC/USDT", "ETH/USDT"), lag, lag, timedelta(hours=1), CHAIN_NOW)
    raw = {
        "network_metrics": metrics,
        "onchain_blocks": make_blocks(len(CHAIN_DAYS), CHAIN_DAYS[0]),
    }
    day = CHAIN_DAYS[place]
    rows = recipe.make(raw, CHAIN_DAYS).filter(pl.col("date") == day)
    case = proofs.Case(recipe, raw, rows, day, recipe.cuts(rows, day, 0), place)
    assert proofs.proved([case]) == dict.fromkeys(proofs.MEANINGS, ())
    assert rows["null_reason"].to_list() == [None, "not_published"]


@pytest.mark.parametrize("at", [1100, 1500, 2303])
@pytest.mark.parametrize("asset", ["BTC", "ETH"])
def test_every_feature_equals_its_textbook_formula(
    bars: pl.DataFrame, whole: pl.DataFrame, asset: str, at: int
) -> None:
    start = datetime(2024, 8, 1, tzinfo=UTC)
    since = bars.filter(pl.col("open_time") >= start).with_columns(
        close_time=pl.col("open_time") + BAR
    )
    own, market = (since.filter(pl.col("symbol") == f"{each}/USDT") for each in (asset, "BTC"))
    row = whole.filter(pl.col("symbol") == f"{asset}/USDT").row(at, named=True)
    expected = textbook(own, market, at)
    assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-9, abs=1e-12)
