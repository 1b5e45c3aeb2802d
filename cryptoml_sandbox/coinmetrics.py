"""Coin Metrics' community API: daily asset metrics with paging."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import takewhile
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import orjson
from starlette.responses import Response
from starlette.routing import Route

from cryptoml_sandbox.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from starlette.requests import Request

    from cryptoml_sandbox.clock import Clock
    from cryptoml_sandbox.metrics import MetricsSource

_PATH = "/v4/timeseries/asset-metrics"
_ONE_DAY = timedelta(days=1)
_DEFAULT_PAGE, _LARGEST_PAGE = 100, 10_000


class BadParameterError(Exception):
    """A request the API refuses, with its message."""


@dataclass(frozen=True)
class Query:
    """What one request asks; days are inclusive."""

    assets: tuple[str, ...]
    metrics: tuple[str, ...]
    first: date | None
    last: date | None
    page_size: int
    from_end: bool
    by_time: bool
    after: tuple[str, date] | None


class MetricsApi:
    """The endpoint over one or more sources; for each day the first source that has it answers.

    A page holds rows of one source only, and names it in ``X-Cryptoml-Source``.

    Args:
        sources: in order of preference.
        clock: the world's clock.
        lag: time after a day's end at which its row appears.
    """

    def __init__(self, sources: Sequence[MetricsSource], clock: Clock, lag: timedelta) -> None:
        self._sources = sources
        self._clock = clock
        self._lag = lag
        assets = sorted({asset for source in sources for asset in source.metrics})
        self.metrics: Mapping[str, frozenset[str]] = {
            asset: frozenset(name for source in sources for name in source.metrics.get(asset, ()))
            for asset in assets
        }

    def routes(self) -> list[Route]:
        """The endpoint ``GET /v4/timeseries/asset-metrics``."""
        return [Route(_PATH, self._endpoint)]

    async def _endpoint(self, request: Request) -> Response:
        headers = {}
        status = 200
        content: dict[str, Any]
        try:
            query = self._read(request.query_params)
            content, headers["X-Cryptoml-Source"] = self._page(query, request)
        except BadParameterError as error:
            status = 400
            content = {"error": {"type": "bad_parameter", "message": str(error)}}
        return Response(orjson.dumps(content), status, headers, "application/json")

    def _read(self, given: Mapping[str, str]) -> Query:
        """The request's parameters.

        Raises:
            BadParameterError: in the API's words.
        """
        if given.get("frequency", "1d") != "1d":
            raise _unsupported("frequency", given["frequency"])
        ignore = given.get("ignore_unsupported_errors", "false").lower() == "true"
        assets = self._supported(given, "assets", tuple(self.metrics), ignore=ignore)
        metrics = self._supported(given, "metrics", METRICS, ignore=ignore)
        available = {name for asset in assets for name in self.metrics[asset]}
        if not ignore and (lacking := [name for name in metrics if name not in available]):
            raise _unsupported("metrics", lacking[0])
        return Query(
            assets,
            metrics,
            _day(given, "start_time", _inclusive(given, "start_inclusive"), 1),
            _day(given, "end_time", _inclusive(given, "end_inclusive"), -1),
            _page_size(given),
            from_end=given.get("paging_from", "end") == "end",
            by_time=given.get("sort", "asset") == "time",
            after=_read_token(given.get("next_page_token")),
        )

    def _supported(
        self, given: Mapping[str, str], name: str, known: tuple[str, ...], *, ignore: bool
    ) -> tuple[str, ...]:
        if not given.get(name):
            message = f"Missing required parameter '{name}'."
            raise BadParameterError(message)
        asked = tuple(dict.fromkeys(part.strip() for part in given[name].split(",")))
        unknown = [value for value in asked if value not in known]
        if unknown and not ignore:
            raise _unsupported(name, unknown[0])
        return tuple(value for value in asked if value in known)

    def _page(self, query: Query, request: Request) -> tuple[dict[str, Any], str]:
        rows = self._rows(query)
        if query.from_end:
            rows.reverse()
        if query.after is not None:
            places = [(row.asset, row.day) for row in rows]
            rows = rows[places.index(query.after) + 1 :] if query.after in places else []
        page = rows[: query.page_size]
        source = page[0].source if page else self._sources[-1].source
        page = list(takewhile(lambda row: row.source == source, page))
        content: dict[str, Any] = {"data": [row.entry(query.metrics) for row in page]}
        if query.from_end:
            content["data"].reverse()
        if len(rows) > len(page):
            token = _write_token(page[-1])
            parameters = {**request.query_params, "next_page_token": token}
            content["next_page_token"] = token
            content["next_page_url"] = str(request.url.replace(query=urlencode(parameters)))
        return content, source

    def _rows(self, query: Query) -> list[Row]:
        """Every published row asked for, in the order asked for."""
        newest = (self._clock.now() - self._lag).date() - _ONE_DAY
        newest = min(newest, query.last or newest)
        rows: dict[tuple[str, date], Row] = {}
        for source in self._sources:
            for asset in set(query.assets) & set(source.metrics):
                first, last = source.extent(asset)
                day = max(first, query.first or first)
                while day <= min(newest, last or newest):
                    values = source.row(asset, day)
                    if values is not None:
                        rows.setdefault((asset, day), Row(asset, day, source.source, values))
                    day += _ONE_DAY
        key: Callable[[Row], Any] = _by_time if query.by_time else _by_asset
        return sorted(rows.values(), key=key)


@dataclass(frozen=True)
class Row:
    """One asset's day, and where it is from."""

    asset: str
    day: date
    source: str
    values: Mapping[str, str]

    def entry(self, wanted: tuple[str, ...]) -> dict[str, str]:
        """The row as the API writes it: values are strings, and absent where there is none."""
        shown = {name: self.values[name] for name in wanted if name in self.values}
        return {"asset": self.asset, "time": f"{self.day}T00:00:00.000000000Z", **shown}


def _by_asset(row: Row) -> tuple[str, date]:
    return row.asset, row.day


def _by_time(row: Row) -> tuple[date, str]:
    return row.day, row.asset


def _unsupported(parameter: str, value: str) -> BadParameterError:
    return BadParameterError(f"Bad parameter '{parameter}'. Value '{value}' is not supported.")


def _inclusive(given: Mapping[str, str], name: str) -> bool:
    return given.get(name, "true").lower() == "true"


def _day(given: Mapping[str, str], name: str, inclusive: bool, inwards: int) -> date | None:
    """The first or last day whose midnight lies within the bound.

    Args:
        given: the request's parameters.
        name: the bound's.
        inclusive: whether a midnight exactly on the bound counts.
        inwards: 1 for a lower bound, -1 for an upper one.
    """
    text = given.get(name)
    if not text:
        return None
    try:
        instant = datetime.fromisoformat(text)
        return _bound(instant.replace(tzinfo=instant.tzinfo or UTC), inclusive, inwards)
    except (ValueError, OverflowError):
        message = f"Bad parameter '{name}'. Value '{text}' is not a valid time."
        raise BadParameterError(message) from None


def _bound(instant: datetime, inclusive: bool, inwards: int) -> date:
    instant = instant.astimezone(UTC)
    midnight = instant.replace(hour=0, minute=0, second=0, microsecond=0)
    if instant == midnight:
        return midnight.date() if inclusive else midnight.date() + inwards * _ONE_DAY
    return midnight.date() + _ONE_DAY if inwards > 0 else midnight.date()


def _page_size(given: Mapping[str, str]) -> int:
    text = given.get("page_size", str(_DEFAULT_PAGE))
    short = text.isascii() and text.isdigit() and len(text) <= len(str(_LARGEST_PAGE))
    if not short or not 1 <= int(text) <= _LARGEST_PAGE:
        message = f"Bad parameter 'page_size'. Value '{text}' is not in 1..{_LARGEST_PAGE}."
        raise BadParameterError(message)
    return int(text)


def _write_token(row: Row) -> str:
    """Says after which row the next page goes on; stays right when newer rows appear."""
    return base64.urlsafe_b64encode(f"{row.asset}.{row.day}".encode()).decode().rstrip("=")


def _read_token(token: str | None) -> tuple[str, date] | None:
    if not token:
        return None
    try:
        asset, _, day = base64.urlsafe_b64decode(token + "==").decode().partition(".")
        return asset, date.fromisoformat(day)
    except (binascii.Error, UnicodeDecodeError, ValueError):
        message = f"Bad parameter 'next_page_token'. Value '{token}' is not valid."
        raise BadParameterError(message) from None
