"""The venue's present state of one pair: statistics of the last day, and the order book."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cryptoml_sandbox.bars import DAY_MS
from cryptoml_sandbox.streams import stream
from cryptoml_sandbox.venue import Page, trade_page, visible_bars

if TYPE_CHECKING:
    from cryptoml_sandbox.market import MarketSource
    from cryptoml_sandbox.symbols import Symbol

_LAST = Page(None, None, 1)


def day_statistics(source: MarketSource, symbol: Symbol, now_ms: int) -> dict[str, Any]:
    """The 24-hour ticker at ``now_ms``, to the resolution of the source's bars."""
    start_ms = now_ms - DAY_MS
    bars = visible_bars(source, symbol, start_ms + 1, now_ms + 1, now_ms)
    before = visible_bars(source, symbol, start_ms - DAY_MS, start_ms + 1, now_ms)
    last = trade_page(source, symbol, _LAST, now_ms)
    opening, close = (int(bars.open[0]), int(bars.close[-1])) if len(bars) else (0, 0)
    volume, value = int(bars.volume.sum()), int(bars.quote.sum())
    size = max(1, int(symbol.usual_lots / 10))
    return {
        "symbol": symbol.id,
        "priceChange": symbol.price_text(close - opening),
        "priceChangePercent": f"{(close - opening) / max(opening, 1) * 100:.3f}",
        "weightedAvgPrice": symbol.price_text(round(value / max(volume, 1))),
        "prevClosePrice": symbol.price_text(int(before.close[-1]) if len(before) else opening),
        "lastPrice": symbol.price_text(close),
        "lastQty": symbol.size_text(int(last.quantity[-1]) if len(last) else 0),
        "bidPrice": symbol.price_text(max(close - 1, 0)),
        "bidQty": symbol.size_text(size),
        "askPrice": symbol.price_text(close + 1),
        "askQty": symbol.size_text(size),
        "openPrice": symbol.price_text(opening),
        "highPrice": symbol.price_text(int(bars.high.max(initial=0))),
        "lowPrice": symbol.price_text(int(bars.low.min(initial=close))),
        "volume": symbol.size_text(volume),
        "quoteVolume": symbol.value_text(value),
        "openTime": start_ms,
        "closeTime": now_ms,
        "firstId": -1,
        "lastId": -1,
        "count": int(bars.trades.sum()),
    }


def order_book(
    source: MarketSource, symbol: Symbol, now_ms: int, limit: int, seed: int
) -> dict[str, Any]:
    """``limit`` levels on each side of the last price, best first; new sizes every second."""
    last = trade_page(source, symbol, _LAST, now_ms)
    ticks = int(last.price[-1]) if len(last) else 0
    random = stream(seed, symbol.id, "depth", now_ms // 1000)
    bids, asks = np.cumsum(random.geometric(0.5, (2, limit)), axis=1).tolist()
    sizes = 1 + np.rint(random.exponential(symbol.usual_lots / 20, (2, limit))).astype(np.int64)
    bid_sizes, ask_sizes = sizes.tolist()

    def level(price: int, lots: int) -> list[str]:
        return [symbol.price_text(price), symbol.size_text(lots)]

    return {
        "lastUpdateId": now_ms,
        "bids": [
            level(ticks - step, lots)
            for step, lots in zip(bids, bid_sizes, strict=True)
            if step < ticks
        ],
        "asks": [level(ticks + step, lots) for step, lots in zip(asks, ask_sizes, strict=True)],
    }
