"""What the shells of this room share: the bars they read, and what columns mean."""

from __future__ import annotations

import polars as pl

from cryptoml_assets.features.catalog import FEATURES
from cryptoml_assets.features.reasons import NULL_REASON, REASONS
from cryptoml_assets.settings import settings

#: Meaning of every column of the room's tables, for the UI.
MEANINGS = {
    "symbol": "base and quote currency, BASE/QUOTE",
    "event_timestamp": "instant from which the row can be known (UTC)",
    "label_timestamp": "instant at which the label is known, one horizon later (UTC)",
    "label": "log return from event_timestamp to label_timestamp",
    NULL_REASON: "why values of the row are null; "
    + "; ".join(f"{reason}: {meaning}" for reason, meaning in REASONS.items()),
    "source": "worlds the row was made from",
    "date": "UTC day; the partition",
    **{each.name: f"{each.description} Unit: {each.unit}." for each in FEATURES},
}


def bars_of_settings(prices: pl.LazyFrame) -> pl.LazyFrame:
    """Bars, or their ledger, of the configured venue and bar length; tables may hold others."""
    configured = settings()
    return prices.filter(
        pl.col("venue") == configured.venue, pl.col("timeframe") == configured.timeframe
    )
