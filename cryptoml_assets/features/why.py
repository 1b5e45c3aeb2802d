"""Why one value is null, with what the gap ledger says of each bar that is missing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from cryptoml_assets.errors import LakeError
from cryptoml_assets.features.compute import price_features, price_lacks
from cryptoml_assets.features.feature import Feature
from cryptoml_assets.features.reasons import UNDEFINED


@dataclass(frozen=True)
class Why:
    """One reason for which a value is null.

    Attributes:
        reason: See :data:`~cryptoml_assets.features.reasons.REASONS`.
        symbol: Whose bars are missing; empty where no other symbol has them, or nothing is missing.
        start: Open of the first of an unbroken range of missing bars; none if nothing is missing.
        end: Close of the last.
        cause: What the gap ledger says of the range; none where it says nothing.
    """

    reason: str
    symbol: str = ""
    start: datetime | None = None
    end: datetime | None = None
    cause: str | None = None


def why(
    bars: pl.LazyFrame | pl.DataFrame,
    feature: Feature,
    symbol: str,
    event_timestamp: datetime,
    bar: timedelta,
    *,
    ledger: pl.DataFrame | None = None,
    history: pl.LazyFrame | pl.DataFrame | None = None,
) -> tuple[Why, ...]:
    """Why a value of ``price_features`` is null; nothing where it is not.

    Args:
        bars: Rows of ``raw_prices`` that :func:`~cryptoml_assets.features.compute.price_features`
            needs for the row's day.
        feature: The catalog entry.
        symbol: Symbol of the row.
        event_timestamp: Instant of the row.
        bar: Length of one bar.
        ledger: Rows of ``price_ledger`` of the same venue and timeframe.
        history: Bars of every day there is; ``bars`` when not given.

    Raises:
        LakeError: there is no such row.
    """
    day = [(event_timestamp - bar).date()]
    here = pl.col("symbol").eq(symbol) & pl.col("event_timestamp").eq(event_timestamp)
    row = price_features(bars, day, bar, (feature,), history=history).filter(here)
    if row.is_empty():
        message = f"price_features has no row of {symbol} at {event_timestamp}: its bar is missing"
        raise LakeError(message)
    if row[feature.name][0] is not None:
        return ()
    lacks, _ = price_lacks(bars, day, bar, (feature,), history=history)
    span = lacks.span
    step = (event_timestamp - bar - span.start) // bar
    found: list[Why] = []
    for reason, whose, place in lacks.missing_of(feature.term, symbol, step):
        start = span.start + place * bar
        cause = None if ledger is None else _cause(ledger, whose, start)
        newest = found[-1] if found else None
        if newest and (reason, whose, start, cause) == (
            newest.reason,
            newest.symbol,
            newest.end,
            newest.cause,
        ):
            start = found.pop().start or start
        found.append(Why(reason, whose, start, span.start + (place + 1) * bar, cause))
    return tuple(found) or (Why(UNDEFINED),)


def _cause(ledger: pl.DataFrame, symbol: str, start: datetime) -> str | None:
    """Cause of a missing bar; none where the ledger says nothing of it."""
    of_bar = ledger.filter(
        pl.col("symbol") == symbol, pl.col("start") <= start, pl.col("end") > start
    )
    return None if of_bar.is_empty() else of_bar["cause"][0]
