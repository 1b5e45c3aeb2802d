"""Stored days against the venue's own daily bars: what was received, checked at the source."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import polars as pl

from cryptoml_assets.days import day_span
from cryptoml_assets.errors import UnknownSymbolError
from cryptoml_assets.prices.bars import SCHEMA
from cryptoml_assets.prices.quality import native_differences, settled_days
from cryptoml_assets.prices.resample import bar_length, read_bars
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.resources.venue import connect_venue
from cryptoml_assets.settings import Settings

_DAILY = "1d"
#: The newest days of a run that are compared: venues answer with as many bars to one request.
_MOST_DAYS = 1000


@dataclass(frozen=True)
class Comparison:
    """How stored days and the venue's own compare.

    Attributes:
        days: days of symbols that were compared.
        differences: figures that differ, as ``native_differences`` gives them.
    """

    days: int
    differences: pl.DataFrame


def compare_days(
    configured: Settings, lake: Lake, ledger: pl.DataFrame, days: Sequence[date]
) -> Comparison:
    """Compare the settled ones of ``days`` with daily bars that the venue gives.

    A day is settled when each of its slots was read past the revision window. A symbol that the
    venue no longer knows is left out.

    Args:
        configured: names venue, symbols and timeframe.
        lake: holds ``raw_prices``.
        ledger: rows of ``price_ledger`` for ``days``, of one venue and timeframe.
        days: UTC days, oldest first.

    Raises:
        UnusableAnswerError: the venue serves no daily bars, or none that can be trusted.
        WorldUnreachableError: the venue stayed down through every retry.
    """
    settled = settled_days(ledger, configured.bar).filter(
        pl.col("symbol").is_in(configured.symbols), pl.col("date").is_in(list(days[-_MOST_DAYS:]))
    )
    symbols = settled["symbol"].unique().sort().to_list()
    ours = read_bars(lake, _DAILY, settled["date"].unique().sort().to_list(), symbols)
    ours = ours.filter(pl.col("venue") == configured.venue)
    ours = ours.join(settled, on=["symbol", "date"], how="semi")
    if ours.is_empty():
        return Comparison(0, native_differences(ours, ours))
    native, unknown = asyncio.run(_native_days(configured, ours))
    known = ours.filter(~pl.col("symbol").is_in(unknown))
    return Comparison(known.height, native_differences(known, native))


async def _native_days(configured: Settings, ours: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """Daily bars of the venue over the days of ``ours``, and the symbols it does not know."""
    from cryptoml_assets.prices.fetch import BarRequest, fetch_bars  # noqa: PLC0415  (loads ccxt)

    frames, unknown = [pl.DataFrame(schema=SCHEMA)], []
    async with connect_venue(configured) as exchange:
        for (symbol,), rows in ours.sort("date").group_by("symbol", maintain_order=True):
            start, end = day_span((rows["date"][0], rows["date"][-1]))
            request = BarRequest(
                symbols=(str(symbol),),
                timeframe=_DAILY,
                bar=bar_length(_DAILY),
                start=start,
                end=end,
                source=configured.world,
            )
            try:
                frames.append((await fetch_bars(exchange, request)).bars)
            except UnknownSymbolError:
                unknown.append(str(symbol))
    return pl.concat(frames), unknown
