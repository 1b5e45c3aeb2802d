"""Training sets of whole simulated markets: bars of the sandbox through the features we compute."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import polars as pl

from cryptoml_assets.features.catalog import model_features, price_warmup
from cryptoml_assets.features.compute import days_before, price_features
from cryptoml_assets.features.training_set import training_schema, with_labels
from cryptoml_sandbox.bars import aggregate
from cryptoml_sandbox.market import SimulatedMarket
from cryptoml_sandbox.symbols import listed

BAR = timedelta(minutes=5)
HORIZON = timedelta(hours=1)
GENESIS = datetime(2024, 1, 1, tzinfo=UTC)
NAMES = ("BTC/USDT", "ETH/USDT")


def market_set(
    *, seed: int, signal: float, days: int, names: tuple[str, ...] = NAMES
) -> pl.DataFrame:
    """Rows as `training_set` holds them, of a market whose returns nothing predicts but a signal.

    Args:
        seed: of the market.
        signal: strength of the reversal over an hour that is planted in it, 0 for none.
        days: of rows; what features look back on comes before.
        names: pairs that trade in it.
    """
    before = days_before(BAR, price_warmup())
    # A day more, so that the last rows have labels too.
    bars = market_bars(seed, signal, before + days + 1, names)
    first = GENESIS.date() + timedelta(days=before)
    wanted = [first + timedelta(days=offset) for offset in range(days)]
    return rows_of(bars, wanted)


def rows_of(bars: pl.DataFrame, days: Sequence[date]) -> pl.DataFrame:
    """Rows as `training_set` holds them, of days of bars; what no chain told is null."""
    rows = price_features(bars, days, BAR)
    absent = [name for name in model_features() if name not in rows.columns]
    labelled = with_labels(rows.lazy(), bars.lazy(), HORIZON).collect()
    return (
        labelled.with_columns(pl.lit(None, pl.Float64).alias(name) for name in absent)
        .select(training_schema().names())
        .sort("event_timestamp", "symbol")
    )


def market_bars(seed: int, signal: float, days: int, names: tuple[str, ...]) -> pl.DataFrame:
    """``raw_prices`` of a simulated market since its genesis."""
    symbols = listed(names)
    genesis = int(GENESIS.timestamp() * 1000)
    market = SimulatedMarket(symbols, seed=seed, signal=signal, genesis_ms=genesis)
    frames = []
    for symbol in symbols:
        end = genesis + days * 86_400_000
        bars = aggregate(market.bars(symbol, genesis, end), "5m")
        opened = pl.Series(bars.open_time).cast(pl.Datetime("ms", "UTC")).dt.cast_time_unit("us")
        scale = 10.0**-symbol.price_decimals
        frames.append(
            pl.DataFrame(
                {
                    "venue": "binance",
                    "symbol": symbol.name,
                    "timeframe": "5m",
                    "open_time": opened,
                    "close_time": opened + BAR,
                    **{
                        name: getattr(bars, name) * scale
                        for name in ("open", "high", "low", "close")
                    },
                    "volume": bars.volume * 10.0**-symbol.lot_decimals,
                    "source": "simulated",
                    "date": opened.dt.date(),
                }
            )
        )
    return pl.concat(frames)
