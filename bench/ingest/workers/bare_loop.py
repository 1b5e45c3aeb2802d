"""A bare async ccxt loop that stores nothing: URL SYMBOLS DAYS REQUESTS_AT_ONCE."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from datetime import UTC, datetime

import ccxt.async_support as ccxt

_PAGE = 1000
_DAY_BARS, _BAR_MS = 1440, 60_000
_START_MS = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp() * 1000)


async def main(url: str, symbols: list[str], days: int, at_once: int) -> None:
    exchange = ccxt.binance(
        {
            "enableRateLimit": False,
            "options": {"fetchMarkets": {"types": ["spot"]}, "fetchCurrencies": False},
            "urls": {"api": {"public": f"{url}/api/v3"}},
        }
    )
    exchange.timeout_on_exit = 0
    await exchange.load_markets()
    gate = asyncio.Semaphore(at_once)

    async def page(symbol: str, index: int) -> int:
        since = _START_MS + index * _PAGE * _BAR_MS
        async with gate:
            return len(await exchange.fetch_ohlcv(symbol, "1m", since, _PAGE))

    pages = -(-days * _DAY_BARS // _PAGE)
    began = time.perf_counter()
    bars = sum(await asyncio.gather(*(page(each, i) for each in symbols for i in range(pages))))
    seconds = time.perf_counter() - began
    await exchange.close()
    print(json.dumps({"seconds": seconds, "bars": bars}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2].split(","), int(sys.argv[3]), int(sys.argv[4])))
