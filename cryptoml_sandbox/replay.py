"""Recorded bars and metrics behind the same interfaces as the simulated ones.

Layout of a folder: ``ohlcv/BASE_QUOTE-5m.feather`` with columns date (opening of the bar), open,
high, low, close, volume; ``onchain/ASSET.csv`` as Coin Metrics publishes them. Dates are served as
recorded, never shifted.
"""

from __future__ import annotations

import csv
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from cryptoml_sandbox.bars import MINUTE_MS, Bars
from cryptoml_sandbox.metrics import METRICS
from cryptoml_sandbox.symbols import Symbol
from cryptoml_sandbox.trades import make_trades

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy.typing as npt

_SUFFIX = "-5m.feather"
_COLUMNS = ("open", "high", "low", "close", "volume")
_MOST_DECIMALS = 8


class ReplayError(ValueError):
    """A folder of recordings cannot be used; the message names the file and what is wrong."""


class RecordedMarket:
    """The 5-minute bars of a folder.

    Args:
        folder: holds ``ohlcv/*-5m.feather``.

    Raises:
        ReplayError: when it holds none, or one is no such recording.
    """

    source = "replay"
    bar_ms = 5 * MINUTE_MS

    def __init__(self, folder: Path) -> None:
        files = sorted((folder / "ohlcv").glob(f"*{_SUFFIX}"))
        if not files:
            message = f"{folder}: no ohlcv/*{_SUFFIX} to replay"
            raise ReplayError(message)
        self._bars: dict[str, Bars] = {}
        symbols = []
        for file in files:
            symbol, bars = _read_bars(file, self.bar_ms)
            symbols.append(symbol)
            self._bars[symbol.id] = bars
        self.symbols: tuple[Symbol, ...] = tuple(symbols)

    @property
    def end_ms(self) -> int:
        """Close of the newest bar of any pair, milliseconds since 1970."""
        return max(int(bars.open_time[-1]) for bars in self._bars.values()) + self.bar_ms

    @property
    def start_ms(self) -> int:
        """Opening of the oldest bar of any pair, milliseconds since 1970."""
        return min(int(bars.open_time[0]) for bars in self._bars.values())

    def extent(self, symbol: Symbol) -> tuple[int, int | None]:
        """From its first bar's opening to its last bar's close."""
        times = self._bars[symbol.id].open_time
        return int(times[0]), int(times[-1]) + self.bar_ms

    def bars(self, symbol: Symbol, start_ms: int, end_ms: int) -> Bars:
        """Recorded bars that open in [start, end)."""
        return self._bars[symbol.id].between(start_ms, end_ms)


class RecordedMetrics:
    """The daily metrics of a folder's ``onchain/*.csv``; a folder without any has no assets.

    Raises:
        ReplayError: when a file is no such recording.
    """

    source = "replay"

    def __init__(self, folder: Path) -> None:
        files = sorted((folder / "onchain").glob("*.csv"))
        self._rows = {file.stem.lower(): _read_metrics(file) for file in files}
        self.metrics: Mapping[str, tuple[str, ...]] = {
            asset: tuple(name for name in METRICS if any(name in row for row in rows.values()))
            for asset, rows in self._rows.items()
        }

    def extent(self, asset: str) -> tuple[date, date | None]:
        """First and last recorded day."""
        return min(self._rows[asset]), max(self._rows[asset])

    def row(self, asset: str, day: date) -> Mapping[str, str] | None:
        """Values of one day exactly as recorded."""
        return self._rows[asset].get(day)


def _read_frame(file: Path) -> pl.DataFrame:
    """The complete bars of a file in order: open_time in milliseconds, and the figures."""
    try:
        frame = pl.read_ipc(file)
        if lacking := [name for name in ("date", *_COLUMNS) if name not in frame.columns]:
            message = f"{file}: no column {', '.join(lacking)}"
            raise ReplayError(message)
        frame = frame.select(
            pl.col("date").dt.epoch("ms").alias("open_time"), pl.col(_COLUMNS).cast(pl.Float64)
        )
    except (OSError, pl.exceptions.PolarsError) as error:
        message = f"{file}: not a recording: {error}"
        raise ReplayError(message) from error
    frame = frame.drop_nulls().drop_nans().unique("open_time", keep="last").sort("open_time")
    if frame.is_empty():
        message = f"{file}: no bars"
        raise ReplayError(message)
    return frame


def _read_bars(file: Path, bar_ms: int) -> tuple[Symbol, Bars]:
    frame = _read_frame(file)
    prices = frame.select(_COLUMNS[:4]).to_numpy()
    volume = frame["volume"].to_numpy()
    base, _, quote = file.name.removesuffix(_SUFFIX).partition("_")
    symbol = Symbol(
        base,
        quote,
        price_decimals=_decimals(prices),
        lot_decimals=_decimals(volume),
        price=float(prices[0, 0]),
        volatility=0.0,
        loading=0.0,
        own_deviation=0.0,
        jump=0.0,
        volume=float(volume.mean()) * MINUTE_MS / bar_ms,
    )
    ticks = np.rint(prices * 10.0**symbol.price_decimals).astype(np.int64)
    lots = np.rint(volume * 10.0**symbol.lot_decimals).astype(np.int64)
    open_time = frame["open_time"].to_numpy()
    columns = (ticks[:, 0], ticks[:, 1], ticks[:, 2], ticks[:, 3])
    return symbol, make_trades(symbol, bar_ms, open_time, columns, lots).to_bars(open_time)


def _decimals(values: npt.NDArray[np.float64]) -> int:
    """Decimals that write every value exactly, at most eight."""
    for decimals in range(_MOST_DECIMALS):
        scaled = values * 10.0**decimals
        if np.allclose(scaled, np.rint(scaled), rtol=1e-12, atol=1e-9):
            return decimals
    return _MOST_DECIMALS


def _read_metrics(file: Path) -> dict[date, dict[str, str]]:
    try:
        with file.open(newline="") as handle:
            rows = {
                date.fromisoformat(row["time"][:10]): {
                    name: row[name] for name in METRICS if row.get(name)
                }
                for row in csv.DictReader(handle)
            }
    except (OSError, KeyError, ValueError) as error:
        message = f"{file}: not a recording: {type(error).__name__}: {error}"
        raise ReplayError(message) from error
    if not rows:
        message = f"{file}: no days"
        raise ReplayError(message)
    return rows
