"""Proof that the online store says what the lake says, and what the raw tables give."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import polars as pl

from cryptoml_assets.features.catalog import warmup_of
from cryptoml_assets.features.compute import days_before, price_features
from cryptoml_assets.features.feature import Table
from cryptoml_assets.features.inputs import bars_of_settings
from cryptoml_assets.features.onchain import onchain_features
from cryptoml_assets.features.online import Brought, newest_keys, newest_rows
from cryptoml_assets.reads import days_read
from cryptoml_assets.resources.lake import Lake

#: Versions of the raw tables that a day was made of, by the table's name.
Pin = Mapping[str, int]

_KEY = ("symbol", "event_timestamp")
#: Versions of a table that other runs may have written while one is checked.
_VERSIONS = 20


@dataclass(frozen=True)
class Difference:
    """One online value that is not what it must be.

    Attributes:
        table: View and table of the value.
        symbol: Symbol of the value.
        column: Its feature, or ``event_timestamp``.
        online: What readers get.
        wanted: What it must be.
        where: Who says so, such as ``in the lake``.
    """

    table: Table
    symbol: str
    column: str
    online: object
    wanted: object
    where: str

    def __str__(self) -> str:
        """The value's place and both readings, as a check's message shows them."""
        place = f"{self.table}.{self.column} of {self.symbol}"
        return f"{place}: {self.online} online, {self.wanted} {self.where}"


def differences(
    table: Table, online: pl.DataFrame, wanted: pl.DataFrame, where: str = "in the lake"
) -> tuple[Difference, ...]:
    """Every cell in which two readings differ by a bit; both one row per symbol, same order."""
    return tuple(
        Difference(table, wants["symbol"], column, seen[column], value, where)
        for seen, wants in zip(online.to_dicts(), wanted.to_dicts(), strict=True)
        for column, value in wants.items()
        if _bits(seen[column]) != _bits(value)
    )


def not_of_the_lake(
    online: pl.DataFrame,
    lake: Lake,
    table: Table,
    *,
    now: datetime,
    delay: timedelta,
    since: Brought | None = None,
) -> tuple[Difference, ...]:
    """Differences of online rows from the lake's newest ones, at every version since ``since``.

    Another run may have added rows to the lake, and be bringing them online, while this one is
    checked: each symbol must be as some version has it, from the one brought up on.

    Args:
        online: What readers get, read before this is called.
        lake: Where ``table`` is.
        table: View and table.
        now: Instant at which ``online`` was read.
        delay: Longest time from the end of a row's day to its event timestamp.
        since: What was brought up last; only the newest version counts when not given.
    """
    symbols = online["symbol"].to_list()
    found: tuple[Difference, ...] = ()
    for number, (version, instant) in enumerate(_moments(lake.version(table), now, since)):
        wanted = newest_rows(lake, table, symbols, instant, delay, version=version)
        different = differences(table, online, wanted)
        wrong = {each.symbol for each in different}
        found = different if number == 0 else tuple(e for e in found if e.symbol in wrong)
        if not found:
            break
    return found


def not_of_the_raw_tables(
    online: pl.DataFrame,
    lake: Lake,
    table: Table,
    *,
    now: datetime,
    delay: timedelta,
    bar: timedelta,
    pins: Callable[[Sequence[date]], Mapping[date, Pin]] = lambda _: {},
) -> tuple[tuple[Difference, ...], int]:
    """Differences of online rows from what the raw tables give, and how many rows were looked at.

    Rows are looked at that online and lake agree on; of others :func:`not_of_the_lake` tells, as
    one of the two has moved on.

    Args:
        online: What readers get.
        lake: Where ``table`` and the raw tables are.
        table: View and table.
        now: Instant at which ``online`` was read.
        delay: Longest time from the end of a row's day to its event timestamp.
        bar: Length of a bar.
        pins: Says of each day which versions of the raw tables its rows were made of; the newest
            ones where not said.
    """
    symbols = online["symbol"].to_list()
    stored = newest_rows(lake, table, symbols, now, delay)
    apart = {each.symbol for each in differences(table, online, stored)}
    keys = newest_keys(lake, table, symbols, now, delay)
    agreed = online.join(keys, on=_KEY, maintain_order="left").filter(
        ~pl.col("symbol").is_in(list(apart))
    )
    days = sorted(set(agreed["date"].to_list()))
    if not days:
        return (), 0
    made_of = pins(days)
    again = pl.concat(
        [
            _prices(lake, day, bar, made_of.get(day, {}))
            if table == "price_features"
            else _onchain(lake, day, symbols, delay=delay, now=now, pin=made_of.get(day, {}))
            for day in days
        ]
    )
    seen = agreed.select(online.columns)
    wanted = seen.select(_KEY).join(
        again.select(online.columns), on=_KEY, how="left", maintain_order="left"
    )
    return differences(table, seen, wanted, "recomputed from the raw tables"), seen.height


def _moments(newest: int, now: datetime, since: Brought | None) -> Iterator[tuple[int, datetime]]:
    """Versions of the lake with the instants as of which they may have been brought online."""
    yield newest, now
    if since is None or since.version > newest:
        return
    for version in range(newest - 1, max(since.version, newest - _VERSIONS) - 1, -1):
        yield version, now
    yield since.version, since.now


def _prices(lake: Lake, day: date, bar: timedelta, pin: Pin) -> pl.DataFrame:
    bars = lake.scan("raw_prices", days_read([day], days_before(bar)), pin.get("raw_prices"))
    return price_features(bars_of_settings(bars), [day], bar)


def _onchain(
    lake: Lake, day: date, symbols: Sequence[str], *, delay: timedelta, now: datetime, pin: Pin
) -> pl.DataFrame:
    around = days_read([day], warmup_of("onchain_features"))
    metrics, blocks = (
        lake.scan(each, around, pin.get(each)) for each in ("network_metrics", "onchain_blocks")
    )
    return onchain_features(metrics, blocks, symbols, [day], delay=delay, now=now)


def _bits(value: object) -> object:
    return struct.pack("<d", value) if isinstance(value, float) else value
