"""The proofs of exactness on recorded bars, the crash of 2024-08-05 among them."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from cryptoml_assets.features import proofs
from cryptoml_assets.features.compute import price_features
from tests.feature_textbook import textbook

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


@pytest.mark.parametrize("order", [DAYS[::-1], DAYS[::2] + DAYS[1::2]], ids=["back", "mixed"])
def test_days_alone_in_any_order_equal_the_range(
    bars: pl.DataFrame, whole: pl.DataFrame, order: tuple[date, ...]
) -> None:
    assert not proofs.partitions(bars, order, BAR, expected=whole)


@pytest.mark.parametrize("day", DAYS[3:6])
def test_an_earlier_start_changes_no_bit(
    bars: pl.DataFrame, whole: pl.DataFrame, day: date
) -> None:
    assert not proofs.warm_up(bars, day, BAR, expected=whole)


@pytest.mark.parametrize("hour", [0, 7, 23])
def test_nothing_after_a_cut_is_needed(bars: pl.DataFrame, whole: pl.DataFrame, hour: int) -> None:
    cut = datetime(2024, 8, 5, hour, tzinfo=UTC)
    assert not proofs.look_ahead(bars, cut.date(), BAR, cut=cut, seed=hour, expected=whole)


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
