"""Synthetic bars, metrics and blocks shaped like the lake's raw tables."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import numpy as np
import polars as pl

BAR = timedelta(minutes=5)
DAY = timedelta(days=1)
FIRST = date(2024, 1, 1)
_INSTANT = pl.Datetime("us", "UTC")


def midnight(day: date) -> datetime:
    return datetime.combine(day, datetime.min.time(), UTC)


def some_days(count: int, first: date = FIRST) -> tuple[date, ...]:
    return tuple(first + timedelta(days=offset) for offset in range(count))


def make_bars(
    days: int,
    symbols: Sequence[str] = ("BTC/USDT", "ETH/USDT"),
    *,
    bar: timedelta = BAR,
    seed: int = 0,
    first: date = FIRST,
) -> pl.DataFrame:
    """A complete ``raw_prices`` frame of ``days`` days: a heavy-tailed random walk per symbol."""
    rng = np.random.default_rng(seed)
    count = days * (DAY // bar)
    opens = [midnight(first) + step * bar for step in range(count)]
    frames = []
    for symbol in symbols:
        close = np.exp(np.cumsum(rng.standard_t(4, count) * 1e-3)) * 100
        opening = np.concatenate([[100.0], close[:-1]])
        frames.append(
            pl.DataFrame(
                {
                    "open_time": pl.Series(opens, dtype=_INSTANT),
                    "open": opening,
                    "high": np.maximum(opening, close) * (1 + rng.random(count) * 1e-3),
                    "low": np.minimum(opening, close) * (1 - rng.random(count) * 1e-3),
                    "close": close,
                    "volume": rng.lognormal(2, 1, count),
                }
            ).select(
                pl.lit("binance").alias("venue"),
                pl.lit(symbol).alias("symbol"),
                pl.lit("5m").alias("timeframe"),
                "open_time",
                (pl.col("open_time") + bar).alias("close_time"),
                "open",
                "high",
                "low",
                "close",
                "volume",
                pl.lit("simulated").alias("source"),
                pl.col("open_time").dt.date().alias("date"),
            )
        )
    return pl.concat(frames)


def make_metrics(days: int, first: date = FIRST, assets: Sequence[str] = ("btc",)) -> pl.DataFrame:
    """A ``network_metrics`` frame whose values tell the day apart."""
    rows = [
        {
            "asset": asset,
            "day": day,
            "active_addresses": 1000.0 + index,
            "transaction_count": 2000.0 + index,
            "hash_rate": 3000.0 + index,
            "nvt_ratio": 40.0 + index,
            "mvrv_ratio": None if index == 0 else 1.5 + index,
            "price_usd": 100.0,
            "available_at": midnight(day) + DAY + timedelta(hours=4),
            "source": "simulated",
            "date": day,
        }
        for asset in assets
        for index, day in enumerate(some_days(days, first))
    ]
    return pl.DataFrame(
        rows,
        schema_overrides={"available_at": _INSTANT, "mvrv_ratio": pl.Float64},
    )


def make_blocks(days: int, first: date = FIRST, finality: str = "finalized") -> pl.DataFrame:
    """An ``onchain_blocks`` frame of four blocks a day: gas half used, base fee 10, 20, 30, 40."""
    rows = []
    for offset, day in enumerate(some_days(days, first)):
        for index in range(4):
            number = offset * 4 + index
            rows.append(
                {
                    "chain_id": 1,
                    "number": number,
                    "hash": f"0x{number:064x}",
                    "parent_hash": f"0x{number - 1:064x}",
                    "timestamp": midnight(day) + timedelta(hours=6 * index),
                    "transaction_count": 10,
                    "gas_used": 15_000_000,
                    "gas_limit": 30_000_000,
                    "base_fee_per_gas": (index + 1) * 10_000_000_000,
                    "active_addresses": 15,
                    "value_transferred_wei": Decimal(10**18),
                    "finality": finality,
                    "source": "simulated",
                    "date": day,
                }
            )
    return pl.DataFrame(
        rows,
        schema_overrides={
            "timestamp": _INSTANT,
            "transaction_count": pl.Int32,
            "active_addresses": pl.Int32,
            "value_transferred_wei": pl.Decimal(38, 0),
        },
    )
