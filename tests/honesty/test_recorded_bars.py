"""On recorded bars the report is produced, whatever it says: of every family in a full run."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from cryptoml_assets.features.catalog import price_warmup
from cryptoml_assets.features.compute import days_before
from tests.honesty.contest import CLAIMS, compared, entered
from tests.honesty.markets import BAR, rows_of
from tests.honesty.plugin import FEW
from tests.honesty.runner import EVERYONE

SYMBOLS = ("BTC/USDT", "ETH/USDT")
DAYS = 12
#: In the ordinary suite.
FEW_DAYS, FEW_FAMILIES = 6, ("linear", "mlp")
REPORTED = (
    "family",
    "choice_score",
    "log_loss_skill",
    "direction_p_value",
    "crps_skill",
    "crps_p_value",
    "accuracy",
    "coverage",
)
_UTC = pl.Datetime("us", "UTC")


@pytest.mark.realdata
@pytest.mark.timeout(900)
def test_the_report_of_recorded_bars_is_produced_whatever_it_says(
    realdata: Path, pytestconfig: pytest.Config
) -> None:
    few = pytestconfig.getoption("--worlds") <= FEW
    families = FEW_FAMILIES if few else EVERYONE
    frame = recorded(realdata, FEW_DAYS if few else DAYS)
    contenders = [entered(name, frame) for name in families]
    for claim in CLAIMS:
        table = compared(contenders, claim)
        assert sorted(table["family"]) == sorted(families)
        assert table["chosen"].to_list() == [True] + [False] * (len(families) - 1)
        figures = table.select(pl.selectors.float()).drop("p_better_than_linear")
        assert figures.select(pl.all().is_finite().all()).row(0) == (True,) * figures.width
        with pl.Config(tbl_cols=-1, tbl_width_chars=120, tbl_hide_dataframe_shape=True):
            print(claim, table.select(REPORTED), sep="\n")  # noqa: T201 - the report


def recorded(folder: Path, days: int) -> pl.DataFrame:
    """The newest days of recorded bars as a training set."""
    bars = pl.concat(_bars(folder, symbol) for symbol in SYMBOLS)
    last = bars["date"].max() - timedelta(days=1)
    wanted = [last - timedelta(days=back) for back in reversed(range(days))]
    since = wanted[0] - timedelta(days=days_before(BAR, price_warmup()))
    return rows_of(bars.filter(pl.col("date") >= since), wanted)


def _bars(folder: Path, symbol: str) -> pl.DataFrame:
    recording = pl.read_ipc(folder / "ohlcv" / f"{symbol.replace('/', '_')}-5m.feather")
    opened = pl.col("date").cast(_UTC)
    return recording.select(
        pl.lit(symbol).alias("symbol"),
        opened.alias("open_time"),
        (opened + BAR).alias("close_time"),
        "open",
        "high",
        "low",
        "close",
        "volume",
        pl.lit("recorded").alias("source"),
        opened.dt.date().alias("date"),
    )
