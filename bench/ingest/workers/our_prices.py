"""Our ingestion of DAYS days of 1-minute bars from 2024-01-01 on, as the settings name them."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from datetime import UTC, datetime, timedelta

from cryptoml_assets.prices.fetch import BarRequest
from cryptoml_assets.prices.ingest import ingest_prices
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.resources.venue import connect_venue
from cryptoml_assets.settings import settings

_START = datetime(2024, 1, 1, tzinfo=UTC)


async def main(days: int) -> None:
    configured = settings()
    lake = Lake(configured.lake_uri)
    request = BarRequest(
        symbols=configured.symbols,
        timeframe=configured.timeframe,
        bar=configured.bar,
        start=_START,
        end=_START + timedelta(days=days),
        source=configured.world,
    )
    async with connect_venue(configured) as exchange:
        await exchange.client.load_markets()
        began = time.perf_counter()
        await ingest_prices(exchange, lake, request)
        seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    bars = lake.row_count("raw_prices")
    print(json.dumps({"seconds": seconds, "bars": bars, "peak_mib": peak}))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
