"""Daily network metrics of crypto assets, from an API of Coin Metrics' shape."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import httpx
import polars as pl

from cryptoml_assets.errors import LakeError, UnusableAnswerError
from cryptoml_assets.retry import call_with_retries
from cryptoml_serving.contract.settings import World

#: Coin Metrics' name of each metric column.
METRICS: dict[str, str] = {
    "active_addresses": "AdrActCnt",
    "transaction_count": "TxCnt",
    "hash_rate": "HashRate",
    "nvt_ratio": "NVTAdj",
    "mvrv_ratio": "CapMVRVCur",
    "price_usd": "PriceUSD",
    "supply": "SplyCur",
    "market_cap_usd": "CapMrktCurUSD",
    "realised_cap_usd": "CapRealUSD",
    "adjusted_transfer_usd": "TxTfrValAdjUSD",
}
#: Columns of ``network_metrics``: type and meaning. A metric an asset lacks is null.
_COLUMNS: dict[str, tuple[Any, str]] = {
    "asset": (pl.String, "base asset, lower case, e.g. btc"),
    "day": (pl.Date, "UTC day the metrics describe"),
    "active_addresses": (pl.Float64, "distinct addresses active on the ledger that day"),
    "transaction_count": (pl.Float64, "transactions of the day"),
    "hash_rate": (pl.Float64, "mean hash rate in TH/s; null where nothing is mined"),
    "nvt_ratio": (pl.Float64, "market cap to adjusted transfer value of the day; no unit"),
    "mvrv_ratio": (pl.Float64, "market cap to realised cap; no unit; many assets have none"),
    "price_usd": (pl.Float64, "closing price of the day in USD"),
    "supply": (pl.Float64, "units of the asset in circulation at the end of the day"),
    "market_cap_usd": (pl.Float64, "price times supply in USD"),
    "realised_cap_usd": (pl.Float64, "each unit at its price when last moved, summed up in USD"),
    "adjusted_transfer_usd": (pl.Float64, "value moved that day in USD, noise and change left out"),
    "available_at": (pl.Datetime("us", "UTC"), "day end plus publication lag"),
    "source": (pl.String, "world the row comes from: simulated, replay or live"),
    "date": (pl.Date, "the same as day; the partition"),
}
SCHEMA = pl.Schema({name: kind for name, (kind, _) in _COLUMNS.items()})
MEANINGS = {name: meaning for name, (_, meaning) in _COLUMNS.items()}
KEY = ("asset", "day")

_PATH = "/v4/timeseries/asset-metrics"
_PAGE_ROWS = 1000
_SOURCE_HEADER = "X-Cryptoml-Source"
_REFUSALS = frozenset({400, 403})
_TOO_MANY_REQUESTS, _SERVER_ERROR = 429, 500
_log = logging.getLogger(__name__)


class TransientStatusError(Exception):
    """HTTP 429 or 5xx; ``retry_after`` says in how many seconds to ask again, where it is said."""

    def __init__(self, message: str, retry_after: float | None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


#: What a request is repeated on: connection, timeout, HTTP 429 or 5xx, cut answers.
TRANSIENT: tuple[type[Exception], ...] = (
    httpx.NetworkError,
    httpx.TimeoutException,
    httpx.RemoteProtocolError,
    TransientStatusError,
    json.JSONDecodeError,
)


@dataclass(frozen=True)
class Page:
    """Rows of one answer, the token of the next where there is one, and who answered."""

    rows: list[Mapping[str, Any]]
    next_token: str | None
    source: str


@dataclass(frozen=True)
class MetricsApi:
    """An API at ``address``; ``work`` (asset and partitions) is named in every error."""

    address: str
    work: str
    client: httpx.Client
    retry_delays: tuple[float, ...]

    def pages(self, asset: str, first: date, last: date) -> Iterator[Page]:
        """The metrics of one asset for the days ``first`` to ``last``, both included.

        An asset the API does not know has no page, and the log says why.

        Raises:
            WorldUnreachableError: the API stayed down through every retry.
            UnusableAnswerError: an answer that is not of the API's shape.
        """
        query = {
            "assets": asset,
            "metrics": ",".join(METRICS.values()),
            "frequency": "1d",
            "start_time": first.isoformat(),
            "end_time": last.isoformat(),
            "page_size": str(_PAGE_ROWS),
            # A metric that this asset or an anonymous caller has not got is left out, not an error.
            "ignore_unsupported_errors": "true",
            "ignore_forbidden_errors": "true",
        }
        token: str | None = None
        while True:
            page = self._page(asset, query if token is None else query | {"next_page_token": token})
            if page is None:
                return
            yield page
            if page.next_token is None:
                return
            if page.next_token == token:
                message = f"GET {self.address}{_PATH}: {self.work} {asset}: page {token} repeats"
                raise UnusableAnswerError(message)
            token = page.next_token

    def _page(self, asset: str, query: Mapping[str, str]) -> Page | None:
        what = f"GET {self.address}{_PATH}: {self.work} {asset}"
        response, body = call_with_retries(
            lambda: self._get(query), transient=TRANSIENT, delays=self.retry_delays, what=what
        )
        # The API refuses an asset it does not know by naming it; any other refusal is our mistake.
        named = f"'{asset}'" in str(body)
        if response.status_code in _REFUSALS and named:
            _log.warning("%s: not there: HTTP %d %s", what, response.status_code, _reason(body))
            return None
        if response.is_error:
            message = f"{what}: refused with HTTP {response.status_code} {_reason(body)}"
            raise UnusableAnswerError(message)
        rows = body.get("data") if isinstance(body, dict) else None
        if not isinstance(rows, list):
            message = f"{what}: no list of data in the answer"
            raise UnusableAnswerError(message)
        if not rows:
            _log.warning("%s: not there: the answer has no row", what)
        token = body.get("next_page_token")
        return Page(rows, token or None, response.headers.get(_SOURCE_HEADER, World.LIVE.value))

    def _get(self, query: Mapping[str, str]) -> tuple[httpx.Response, Any]:
        response = self.client.get(f"{self.address}{_PATH}", params=query)
        status = response.status_code
        if status == _TOO_MANY_REQUESTS or status >= _SERVER_ERROR:
            message = f"HTTP {status}"
            raise TransientStatusError(message, _retry_after(response))
        if response.is_error:
            return response, response.text
        return response, response.json()


def read_metrics(
    api: MetricsApi,
    assets: Sequence[str],
    days: Sequence[date],
    *,
    lag: timedelta,
    now: datetime,
) -> pl.DataFrame:
    """One row per asset and day of ``days`` that is published by ``now``, by asset and day.

    Raises:
        WorldUnreachableError: the API stayed down through every retry.
        UnusableAnswerError: an answer that is not of the API's shape.
    """
    due = published(days, lag, now)
    if not due:
        return pl.DataFrame(schema=SCHEMA)
    rows = [
        parse_row(row, source=page.source, lag=lag)
        for asset in sorted(set(assets))
        for page in api.pages(asset, min(due), max(due))
        for row in page.rows
    ]
    wanted = [row for row in rows if row["day"] in due and row["asset"] in assets]
    return pl.DataFrame(wanted, schema=SCHEMA, orient="row").sort(KEY)


def published(days: Sequence[date], lag: timedelta, now: datetime) -> frozenset[date]:
    """Those of ``days`` whose metrics are published by ``now``: ``lag`` after their end."""
    return frozenset(day for day in days if _available_at(day, lag) <= now)


def parse_row(row: Mapping[str, Any], *, source: str, lag: timedelta) -> dict[str, Any]:
    """One row of ``SCHEMA``; a metric that is absent, null or not finite is null.

    Raises:
        UnusableAnswerError: no asset, no day, or a figure that is no number.
    """
    try:
        day = date.fromisoformat(row["time"][:10])
        figures = {column: _figure(row.get(name)) for column, name in METRICS.items()}
        return {
            "asset": row["asset"].lower(),
            "day": day,
            **figures,
            "available_at": _available_at(day, lag),
            "source": source,
            "date": day,
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        message = f"network_metrics: the row {dict(row)} cannot be read: {error!r}"
        raise UnusableAnswerError(message) from error


def merge_metrics(stored: pl.DataFrame, answered: pl.DataFrame) -> pl.DataFrame:
    """The stored rows brought up to date with what the API answers, by asset and day.

    A figure replaces the stored one, as providers revise the last days. A null replaces none, and
    a stored row without an answer stays: both are the API's outage sooner than a figure withdrawn.
    Where the answer is of another source than the stored row, it replaces the row as a whole.

    Args:
        stored: rows of ``SCHEMA``.
        answered: rows of ``SCHEMA``; of two with the same key the later counts as the newer.

    Raises:
        LakeError: live rows among simulated or replayed ones.
    """
    rows = pl.concat([stored.select(SCHEMA.names()), answered])
    check_sources(rows)
    others = [name for name in SCHEMA if name not in KEY and name not in METRICS]
    return (
        rows.filter(pl.col("source") == pl.col("source").last().over(KEY))
        .group_by(KEY, maintain_order=True)
        .agg(pl.col(list(METRICS)).drop_nulls().last(), pl.col(others).last())
        .select(SCHEMA.names())
        .sort(KEY)
    )


def check_sources(rows: pl.DataFrame) -> None:
    """Refuse live rows among those of a made or recorded world, which may stand together.

    A replay world simulates what it has no recording of, so its own rows are of both.

    Raises:
        LakeError: naming the first row of either.
    """
    live = pl.col("source") == World.LIVE.value
    real, other = rows.filter(live), rows.filter(~live)
    if real.height and other.height:
        one, two = (frame.row(0, named=True) for frame in (real, other))
        message = (
            f"network_metrics: {one['source']} rows ({one['asset']} {one['day']}) and "
            f"{two['source']} ones ({two['asset']} {two['day']}) do not go together: give each "
            "world its own CRYPTOML_LAKE"
        )
        raise LakeError(message)


def base_assets(symbols: Sequence[str]) -> tuple[str, ...]:
    """Base assets of ccxt symbols in the API's spelling: ``BTC/USDT`` gives ``btc``."""
    return tuple(dict.fromkeys(symbol.split("/")[0].lower() for symbol in symbols))


def _available_at(day: date, lag: timedelta) -> datetime:
    return datetime.combine(day, datetime.min.time(), UTC) + timedelta(days=1) + lag


def _figure(value: Any) -> float | None:
    figure = None if value is None or value == "" else float(value)
    return figure if figure is None or math.isfinite(figure) else None


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds the API asks to wait; a date instead of seconds leaves it to our own delays."""
    asked = response.headers.get("Retry-After", "").strip()
    return float(asked) if asked.isdecimal() else None


def _reason(body: object) -> str:
    """What the API says is wrong, short enough for one line."""
    return " ".join(str(body).split())[:300]
