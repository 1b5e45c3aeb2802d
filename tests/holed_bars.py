"""Bars of bitcoin and ether with a hole in bitcoin's, and what the gap ledger says of it."""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from cryptoml_assets.prices.ledger import missing
from tests.feature_data import BAR, DAY, FIRST, make_bars, midnight

NOON = midnight(FIRST) + DAY + timedelta(hours=12)
#: Two bars of bitcoin, half an hour before noon of the second day.
HOLE = (NOON - 6 * BAR, NOON - 4 * BAR)
BARS = make_bars(3, ("BTC/USDT", "ETH/USDT"))
HOLED = BARS.filter(
    (pl.col("symbol") != "BTC/USDT") | ~pl.col("open_time").is_between(*HOLE, closed="left")
)
LEDGER = missing(
    [HOLE],
    venue="binance",
    symbol="BTC/USDT",
    timeframe="5m",
    bar=BAR,
    cause="venue_outage",
    settled_until=NOON,
    source="simulated",
)
