"""How Binance writes bars, numbers and markets in JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cryptoml_sandbox.bars import INTERVALS, MONTH, Bars, bucket_start

if TYPE_CHECKING:
    from cryptoml_sandbox.symbols import Symbol

_DECIMALS = 8


def kline_rows(bars: Bars, symbol: Symbol, interval: str) -> bytes:
    """The JSON array of arrays that the venue answers with; numbers of quantity are strings."""
    price, lot = symbol.price_decimals, symbol.lot_decimals
    columns: list[list[int]] = [bars.open_time.tolist()]
    for values, decimals in (
        (bars.open, price),
        (bars.high, price),
        (bars.low, price),
        (bars.close, price),
        (bars.volume, lot),
    ):
        columns += [part.tolist() for part in np.divmod(values, 10**decimals)]
    columns.append([t - 1 for t in _closings(bars, interval)])
    columns += [part.tolist() for part in np.divmod(bars.quote, 10 ** (price + lot))]
    columns.append(bars.trades.tolist())
    columns += [part.tolist() for part in np.divmod(bars.taker_volume, 10**lot)]
    columns += [part.tolist() for part in np.divmod(bars.taker_quote, 10 ** (price + lot))]
    row = (
        f"[%d,{_shape(price) * 4}{_shape(lot)}%d,{_shape(price + lot)}%d,"
        f'{_shape(lot)}{_shape(price + lot)}"0"]'
    )
    return f"[{','.join([row % cells for cells in zip(*columns, strict=True)])}]".encode()


def _shape(decimals: int) -> str:
    """Format of one decimal text, given as whole and fractional part."""
    padding = "0" * max(0, _DECIMALS - decimals)
    # Without decimals the fractional part is always 0 and stands for one of the padding's zeros.
    return f'"%d.%0{decimals}d{padding}",' if decimals else f'"%d.%d{padding[1:]}",'


def _closings(bars: Bars, interval: str) -> list[int]:
    if interval == MONTH:
        return [bucket_start(t, MONTH, following=True) for t in bars.open_time.tolist()]
    return [t + INTERVALS[interval] for t in bars.open_time.tolist()]


def market_entry(symbol: Symbol) -> dict[str, Any]:
    """One entry of exchangeInfo."""
    kinds = ["LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"]
    return {
        "symbol": symbol.id,
        "status": "TRADING",
        "baseAsset": symbol.base,
        "baseAssetPrecision": 8,
        "quoteAsset": symbol.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": kinds,
        "icebergAllowed": True,
        "ocoAllowed": True,
        "quoteOrderQtyMarketAllowed": True,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": _filters(symbol),
        "permissions": ["SPOT"],
        "permissionSets": [["SPOT"]],
        "defaultSelfTradePreventionMode": "NONE",
        "allowedSelfTradePreventionModes": ["NONE"],
    }


def _filters(symbol: Symbol) -> list[dict[str, Any]]:
    tick, lot = (f"{10.0**-d:.8f}" for d in (symbol.price_decimals, symbol.lot_decimals))
    return [
        {
            "filterType": "PRICE_FILTER",
            "minPrice": tick,
            "maxPrice": "1000000.00000000",
            "tickSize": tick,
        },
        {
            "filterType": "LOT_SIZE",
            "minQty": lot,
            "maxQty": "9000000.00000000",
            "stepSize": lot,
        },
        {
            "filterType": "NOTIONAL",
            "minNotional": "5.00000000",
            "applyMinToMarket": True,
            "maxNotional": "9000000.00000000",
            "applyMaxToMarket": False,
            "avgPriceMins": 5,
        },
    ]
