"""Assets of the group prices."""

import asyncio
from collections.abc import Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from cryptoml_assets.cadence import daily_table, top_up
from cryptoml_assets.partitions import day_span, partition_days
from cryptoml_assets.plots import figure_metadata
from cryptoml_assets.prices import bars as price_bars
from cryptoml_assets.prices.report import plot_closes, rows_by_symbol
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.resources.venue import connect_venue
from cryptoml_assets.settings import Settings, settings
from cryptoml_assets.tables import described_columns, markdown_table

if TYPE_CHECKING:
    from cryptoml_assets.prices.fetch import Fetched

_MEANINGS = {
    "venue": "ccxt id of the exchange",
    "symbol": "base and quote currency, BASE/QUOTE",
    "timeframe": "length of the bar, as ccxt spells it",
    "open_time": "instant at which the bar begins (UTC)",
    "close_time": "instant at which the bar ends, exclusive (UTC)",
    "open": "first traded price, in quote currency",
    "high": "highest traded price, in quote currency",
    "low": "lowest traded price, in quote currency",
    "close": "last traded price, in quote currency",
    "volume": "traded amount, in base currency",
    "source": "world the bar comes from: simulated, replay or live",
    "date": "UTC day of open_time; the partition",
}


@daily_table(
    top_up,
    group="prices",
    kinds={"ccxt", "polars"},
    owner="team:market-data",
    code_version="1",
    metadata=described_columns(price_bars.SCHEMA, _MEANINGS, price_bars.KEY),
)
def raw_prices(
    context: dg.AssetExecutionContext, lake: dg.ResourceParam[LakeIOManager]
) -> dg.MaterializeResult[pl.DataFrame]:
    """Bars as the venue published them: one row per venue, symbol, timeframe and closed bar.

    A bar enters once the venue's own clock is past its close, so no row changes while it forms.
    A bar fetched again replaces the stored one of the same key; a stored bar that the venue no
    longer answers with stays.
    """
    configured = settings()
    days = partition_days(context)
    fetched = asyncio.run(_fetch(configured, days))
    stored = _stored(lake.lake, context.asset_key.path[-1], days)
    price_bars.check_one_source(stored, configured.world)
    bars = price_bars.merge_bars(stored, fetched.bars)
    return dg.MaterializeResult(
        value=bars, metadata=_metadata(configured, days, fetched, stored, bars)
    )


async def _fetch(configured: Settings, days: Sequence[date]) -> "Fetched":
    from cryptoml_assets.prices.fetch import BarRequest, fetch_bars  # noqa: PLC0415  (loads ccxt)

    start, end = day_span(tuple(days))
    request = BarRequest(
        symbols=configured.symbols,
        timeframe=configured.timeframe,
        bar=configured.bar,
        start=start,
        end=end,
        source=configured.world,
    )
    async with connect_venue(configured) as exchange:
        return await fetch_bars(exchange, request)


def _stored(lake: Lake, table: str, days: Sequence[date]) -> pl.DataFrame:
    if not lake.exists(table):
        return pl.DataFrame(schema=price_bars.SCHEMA)
    return lake.scan(table, days).collect()


def _metadata(
    configured: Settings,
    days: Sequence[date],
    fetched: "Fetched",
    stored: pl.DataFrame,
    bars: pl.DataFrame,
) -> dict[str, Any]:
    start, end = day_span(tuple(days))
    span: timedelta = min(end, fetched.venue_time) - start
    by_symbol = rows_by_symbol(bars, symbols=configured.symbols, span=span, bar=configured.bar)
    shares = by_symbol["completeness"].drop_nulls().to_list()
    return {
        "source": str(configured.world),
        "venue": configured.venue_address or configured.venue,
        "venue_time": dg.MetadataValue.timestamp(fetched.venue_time),
        "new_bars": bars.height - stored.height,
        "completeness": min(shares) if shares else dg.MetadataValue.null(),
        "symbols": dg.MetadataValue.md(markdown_table(by_symbol.columns, by_symbol.iter_rows())),
        "closes": figure_metadata(plot_closes(bars)),
    }
