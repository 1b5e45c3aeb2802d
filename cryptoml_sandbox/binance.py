"""Binance's spot REST market data, as its public documentation and answers describe it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import orjson
from starlette.responses import Response
from starlette.routing import Route

from cryptoml_sandbox.bars import INTERVALS
from cryptoml_sandbox.binance_quotes import day_statistics, order_book
from cryptoml_sandbox.binance_wire import market_entry
from cryptoml_sandbox.kline_text import kline_rows
from cryptoml_sandbox.venue import Page, klines, offers, trade_page

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from cryptoml_sandbox.clock import Clock
    from cryptoml_sandbox.faults import FaultSchedule
    from cryptoml_sandbox.life import Listings
    from cryptoml_sandbox.market import MarketSource
    from cryptoml_sandbox.rate_limit import RateLimit
    from cryptoml_sandbox.symbols import Symbol

_KLINES_LIMIT = 1000
_TRADES_LIMIT = 1000
_DEPTH_LIMIT = 5000
_ANSWERED, _BANNED = 200, 418


class BadRequestError(Exception):
    """A request the venue refuses with a code of its own.

    Args:
        code: Binance's error code, negative.
        text: Binance's message.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Venue:
    """The venue's endpoints over one market source.

    Args:
        source: where its bars come from.
        clock: the world's clock.
        faults: what goes wrong with its pages of bars.
        listings: which symbols it shows.
        limit: its rate limit.
        seed: seed of the order book's sizes.
    """

    def __init__(
        self,
        source: MarketSource,
        clock: Clock,
        faults: FaultSchedule,
        *,
        listings: Listings,
        limit: RateLimit,
        seed: int,
    ) -> None:
        self._source = source
        self._clock = clock
        self._faults = faults
        self._listings = listings
        self._limit = limit
        self._seed = seed

    def routes(self) -> list[Route]:
        """The endpoints under ``/api/v3``."""
        handlers: dict[str, tuple[int, Callable[[Request], Any], str]] = {
            "ping": (1, lambda _: {}, self._source.source),
            "time": (1, lambda _: {"serverTime": self._clock.now_ms()}, self._source.source),
            "exchangeInfo": (20, self._exchange_info, self._source.source),
            "klines": (2, self._klines, self._source.source),
            "aggTrades": (4, self._agg_trades, "simulated"),
            "ticker/24hr": (2, self._ticker, self._source.source),
            "depth": (5, self._depth, "simulated"),
        }
        return [
            Route(f"/api/v3/{path}", self._endpoint(*handler)) for path, handler in handlers.items()
        ]

    def _endpoint(
        self, weight: int, answer: Callable[[Request], Any], source: str
    ) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            status, retry_after, used = self._limit.ask(weight)
            headers = {
                "X-MBX-USED-WEIGHT": str(used),
                "X-MBX-USED-WEIGHT-1M": str(used),
                "X-Cryptoml-Source": source,
            }
            try:
                if status == _ANSWERED:
                    content = answer(request)
                else:
                    headers["Retry-After"] = str(retry_after)
                    content = self._refusal(status, retry_after)
            except BadRequestError as error:
                status, content = 400, {"code": error.code, "msg": str(error)}
            body = content if isinstance(content, bytes) else orjson.dumps(content)
            return Response(body, status, headers, "application/json;charset=UTF-8")

        return endpoint

    def _refusal(self, status: int, retry_after: int) -> dict[str, Any]:
        if status == _BANNED:
            until = time.time_ns() // 1_000_000 + retry_after * 1000
            return {"code": -1003, "msg": f"Way too many requests; IP banned until {until}."}
        allowed = f"{self._limit.weight} request weight per {self._limit.seconds} SECONDS"
        return {"code": -1003, "msg": f"Too much request weight used; current limit is {allowed}."}

    def _exchange_info(self, request: Request) -> dict[str, Any]:
        now_ms = self._clock.now_ms()
        wanted = request.query_params.get("symbol")
        shown = [self._symbol(request)] if wanted else self._listings.shown(now_ms).values()
        return {
            "timezone": "UTC",
            "serverTime": now_ms,
            "rateLimits": [self._limit.stated()],
            "exchangeFilters": [],
            "symbols": [
                market_entry(symbol, self._listings.status(symbol, now_ms)) for symbol in shown
            ],
        }

    def _klines(self, request: Request) -> bytes:
        symbol = self._symbol(request)
        interval = request.query_params.get("interval")
        if not interval:
            raise _mandatory("interval")
        if not offers(self._source, interval):
            raise BadRequestError(-1120, self._why_not(interval))
        now_ms = self._clock.now_ms()
        page = _page(request, 500, _KLINES_LIMIT)
        bars = klines(self._source, symbol, interval, page, now_ms)
        bars = self._faults.disturb(bars, now_ms, interval)
        return kline_rows(bars, symbol, interval)

    def _why_not(self, interval: str) -> str:
        if interval in INTERVALS:
            minutes = self._source.bar_ms // 60_000
            return f"Invalid interval. Recorded bars of {minutes}m cannot give {interval}."
        return "Invalid interval."

    def _agg_trades(self, request: Request) -> list[dict[str, Any]]:
        symbol = self._symbol(request)
        page, from_id = _page(request, 500, _TRADES_LIMIT), _integer(request, "fromId")
        trades = trade_page(self._source, symbol, page, self._clock.now_ms(), from_id)
        return [
            {
                "a": identity,
                "p": symbol.price_text(price),
                "q": symbol.size_text(quantity),
                "f": first,
                "l": first + count - 1,
                "T": instant,
                "m": maker,
                "M": True,
            }
            for identity, instant, price, quantity, count, first, maker in zip(
                trades.id.tolist(),
                trades.time.tolist(),
                trades.price.tolist(),
                trades.quantity.tolist(),
                trades.count.tolist(),
                trades.first_id.tolist(),
                trades.buyer_is_maker.tolist(),
                strict=True,
            )
        ]

    def _ticker(self, request: Request) -> dict[str, Any] | list[dict[str, Any]]:
        if request.query_params.get("symbol"):
            return day_statistics(self._source, self._symbol(request), self._clock.now_ms())
        asked, now_ms = request.query_params.get("symbols"), self._clock.now_ms()
        shown = self._listings.shown(now_ms)
        names = asked.strip("[]").replace('"', "").split(",") if asked else list(shown)
        if any(name not in shown for name in names):
            raise BadRequestError(-1121, "Invalid symbol.")
        return [day_statistics(self._source, shown[name], now_ms) for name in names]

    def _depth(self, request: Request) -> dict[str, Any]:
        symbol, limit = self._symbol(request), _limit(request, 100, _DEPTH_LIMIT)
        return order_book(self._source, symbol, self._clock.now_ms(), limit, self._seed)

    def _symbol(self, request: Request) -> Symbol:
        wanted = request.query_params.get("symbol")
        if not wanted:
            raise _mandatory("symbol")
        symbol = self._listings.get(wanted, self._clock.now_ms())
        if symbol is None:
            raise BadRequestError(-1121, "Invalid symbol.")
        return symbol


def _mandatory(name: str) -> BadRequestError:
    text = f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed."
    return BadRequestError(-1102, text)


def _integer(request: Request, name: str) -> int | None:
    value = request.query_params.get(name)
    if value is None:
        return None
    if not value.isascii() or not value.isdigit() or len(value) > 18:  # noqa: PLR2004 - below 2**63
        text = f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'."
        raise BadRequestError(-1100, text)
    return int(value)


def _limit(request: Request, default: int, most: int) -> int:
    limit = _integer(request, "limit")
    if limit == 0:
        raise BadRequestError(-1130, "Data sent for parameter 'limit' is not valid.")
    return min(limit or default, most)


def _page(request: Request, default: int, most: int) -> Page:
    start, end = _integer(request, "startTime"), _integer(request, "endTime")
    return Page(start, end, _limit(request, default, most))
