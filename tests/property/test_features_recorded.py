"""The proofs of exactness on recorded bars, the crash of 2024-08-05 among them."""

from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest

from cryptoml_assets.features.compute import price_features

pytestmark = pytest.mark.realdata
BAR = timedelta(minutes=5)
DAYS = tuple(date(2024, 8, 1) + timedelta(days=offset) for offset in range(8))


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
    assert sum(whole.null_count().row(0)) == 0


def test_days_alone_backwards_equal_the_range(bars: pl.DataFrame, whole: pl.DataFrame) -> None:
    alone = pl.concat(price_features(bars, [day], BAR) for day in reversed(DAYS))
    assert alone.sort("symbol", "event_timestamp").equals(whole)


@pytest.mark.parametrize("hour", [0, 7, 23])
def test_nothing_after_a_cut_is_needed(bars: pl.DataFrame, whole: pl.DataFrame, hour: int) -> None:
    cut = pl.datetime(2024, 8, 5, hour, time_unit="us", time_zone="UTC")
    before = price_features(bars.filter(pl.col("open_time") < cut), DAYS, BAR)
    assert before.equals(whole.filter(pl.col("event_timestamp") <= cut))
