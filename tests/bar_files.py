"""Files of bars in every shape in which they are found, and reading one of them."""

from __future__ import annotations

import random
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from cryptoml_assets.operations.import_bars import Imported, examine
from cryptoml_assets.prices.bars import SCHEMA, bars_frame
from cryptoml_assets.prices.importer.files import VISION_COLUMNS
from cryptoml_assets.prices.importer.notes import Answers
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import Settings, settings

START = datetime(2024, 1, 1, 22, tzinfo=UTC)
BAR = timedelta(minutes=5)
COUNT = 48
ALL_KNOWN = Answers(symbol="BTC/USDT", stamp="open", last="keep", zone="UTC")
Write = Callable[[pl.DataFrame, Path], Path]


def live(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of the live world, a month after the bars."""
    monkeypatch.setenv("CRYPTOML_WORLD", "live")
    monkeypatch.setenv("CRYPTOML_NOW", "2024-02-01T00:00:00Z")
    monkeypatch.setenv("CRYPTOML_SYMBOLS", "BTC/USDT,ETH/USDT")
    settings.cache_clear()
    return settings()


def truth(count: int = COUNT) -> pl.DataFrame:
    """Bars as the venue would give them."""
    dice = random.Random(7)  # noqa: S311
    rows, price = [], 42000.0
    for i in range(count):
        close = round(price * (1 + dice.gauss(0, 0.001)), 2)
        high, low = max(price, close) + dice.randint(0, 900) / 100, min(price, close) - 1.25
        volume = dice.randint(0, 10**9) / 10**5
        rows.append(
            [(START + i * BAR).timestamp() * 1000, price, round(high, 2), low, close, volume]
        )
        price = close
    return bars_frame(
        rows, venue="binance", symbol="BTC/USDT", timeframe="5m", bar=BAR, source="live"
    )


def plain(bars: pl.DataFrame, **columns: pl.Expr) -> pl.DataFrame:
    times = columns or {"timestamp": pl.col("open_time").dt.epoch("ms")}
    return bars.select(
        *(expression.alias(name) for name, expression in times.items()),
        "open",
        "high",
        "low",
        "close",
        "volume",
    )


def iso(shift: timedelta = timedelta(0), pattern: str = "%Y-%m-%dT%H:%M:%SZ") -> pl.Expr:
    return (pl.col("open_time") + shift).dt.to_string(pattern)


def freqtrade(bars: pl.DataFrame, folder: Path, suffix: str = "feather") -> Path:
    date = pl.col("open_time").dt.cast_time_unit("ns")
    file = folder / f"BTC_USDT-5m.{suffix}"
    table = plain(bars, date=date)
    table.write_ipc(file) if suffix == "feather" else table.write_parquet(file)
    return file


def vision_table(bars: pl.DataFrame, unit: str = "ms") -> pl.DataFrame:
    last = pl.duration(milliseconds=1) if unit == "ms" else pl.duration(microseconds=1)
    zero = pl.lit(0)
    figures = (zero.alias(name) for name in VISION_COLUMNS[7:])
    return bars.select(
        pl.col("open_time").dt.epoch(unit),  # type: ignore[arg-type]
        "open",
        "high",
        "low",
        "close",
        "volume",
        (pl.col("close_time") - last).dt.epoch(unit),  # type: ignore[arg-type]
        *figures,
    )


def vision(bars: pl.DataFrame, folder: Path, unit: str = "ms", *, header: bool = False) -> Path:
    file = folder / "BTCUSDT-5m-2024-01.csv"
    vision_table(bars, unit).write_csv(file, include_header=header)
    return file


def vision_zip(bars: pl.DataFrame, folder: Path) -> Path:
    file = folder / "BTCUSDT-5m-2024-01.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.write(vision(bars, folder), "BTCUSDT-5m-2024-01.csv")
    return file


def vision_both_units(bars: pl.DataFrame, folder: Path) -> Path:
    file = folder / "BTCUSDT-5m-2024-01.csv"
    halves = [vision_table(bars.head(20), "ms"), vision_table(bars.tail(-20), "us")]
    pl.concat(halves).write_csv(file, include_header=False)
    return file


def csv(name: str, **columns: pl.Expr) -> Write:
    def write(bars: pl.DataFrame, folder: Path) -> Path:
        plain(bars, **columns).write_csv(folder / name)
        return folder / name

    return write


def parquet(**columns: pl.Expr) -> Write:
    def write(bars: pl.DataFrame, folder: Path) -> Path:
        plain(bars, **columns).write_parquet(folder / "bars.parquet")
        return folder / "bars.parquet"

    return write


def crypto_data_download(bars: pl.DataFrame, folder: Path) -> Path:
    """Newest first, a line before the names, two times, a symbol column, two volumes."""
    file = folder / "Binance_BTCUSDT_5m.csv"
    table = bars.reverse().select(
        pl.col("open_time").dt.epoch("s").alias("Unix"),
        iso(pattern="%Y-%m-%d %H:%M:%S").alias("Date"),
        pl.lit("BTCUSDT").alias("Symbol"),
        pl.col("open").alias("Open"),
        pl.col("high").alias("High"),
        pl.col("low").alias("Low"),
        pl.col("close").alias("Close"),
        pl.col("volume").alias("Volume BTC"),
        (pl.col("volume") * pl.col("close")).alias("Volume USDT"),
        pl.lit(7).alias("tradecount"),
    )
    file.write_text("https://example.com/data\n" + table.write_csv())
    return file


def junk(bars: pl.DataFrame, folder: Path) -> Path:
    """As pandas leaves it: an index, duplicate columns, others' figures."""
    file = folder / "bars.csv"
    table = plain(bars).with_columns(
        pl.int_range(pl.len()).alias("Unnamed: 0"),
        (pl.col("open") + 1).alias("open.1"),
        (pl.col("close") * 2).alias("close.1"),
        pl.lit(3.5).alias("quote_volume"),
        pl.lit(1.0).alias("adj close"),
    )
    table.select("Unnamed: 0", pl.exclude("Unnamed: 0")).write_csv(file)
    return file


def semicolons(bars: pl.DataFrame, folder: Path) -> Path:
    file = folder / "bars.csv"
    names = ["TIMESTAMP", "Open", "HIGH", "low", "Close", "Vol"]
    table = plain(bars)
    table.columns = names
    file.write_text("\ufeff" + table.write_csv(separator=";"))
    return file


def first_of(bars: pl.DataFrame, order: str) -> pl.DataFrame:
    return (
        bars.reverse() if order == "descending" else bars.sample(fraction=1, shuffle=True, seed=3)
    )


def read(
    configured: Settings, file: Path, answers: Answers | None = None, lake: Lake | None = None
) -> Imported:
    return examine(configured, lake or Lake(configured.lake_uri), file, answers or Answers())


def rows_of(imported: Imported) -> pl.DataFrame:
    assert imported.bars.schema == SCHEMA
    return imported.bars


def stored(configured: Settings, bars: pl.DataFrame) -> Lake:
    lake = Lake(configured.lake_uri)
    lake.replace_days("raw_prices", bars, bars["date"].unique().to_list())
    return lake
