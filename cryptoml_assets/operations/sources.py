"""The bars, blocks and metrics that the inputs of a prediction were made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl

from cryptoml_assets.deployment.lineage import bar_window, day_window, inputs_of
from cryptoml_assets.features.catalog import MARKET, TTL
from cryptoml_assets.features.point_in_time import LONGEST_LAG
from cryptoml_assets.resources.delta import same_rows
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import Settings
from cryptoml_serving.contract.manifest import Manifest

if TYPE_CHECKING:
    from cryptoml_assets.features.feature import Feature

#: Added to the end of a window, it makes the end's own day count unless it is midnight.
_ALMOST_A_DAY = timedelta(days=1) - timedelta(microseconds=1)
_BLOCKS = ("number", "hash", "timestamp", "finality", "source")
_BAR = ("symbol", "open_time", "close_time", "open", "high", "low", "close", "volume", "source")


def sources_of(
    configured: Settings,
    lake: Lake,
    manifest: Manifest,
    prediction: Mapping[str, Any],
    read_at: Mapping[str, int],
) -> list[dict[str, Any]]:
    """What of each raw table the inputs of a prediction were made of, oldest to newest.

    Args:
        configured: says which venue and bars.
        lake: holds the tables.
        manifest: names the inputs.
        prediction: symbol, feature_timestamp and computed_at.
        read_at: version of each table when the prediction was logged.

    Raises:
        LakeError: a version that is gone.
    """
    symbol, at = prediction["symbol"], prediction["feature_timestamp"]
    bar = timedelta(seconds=manifest.bar_seconds)
    price, chain = (inputs_of(manifest, table) for table in ("price_features", "onchain_features"))
    found = []
    if price and lake.exists("raw_prices"):
        window = bar_window(price, at, bar)
        wanted = (
            pl.col("venue").eq(configured.venue)
            & pl.col("timeframe").eq(configured.timeframe)
            & pl.col("symbol").is_in([symbol, MARKET])
            & pl.col("open_time").is_between(*window, closed="left")
        )
        then, now = _both(lake, "raw_prices", read_at, window, wanted=wanted, columns=_BAR)
        found.append(_bars(then, now, symbol, window, bar) | _named("raw_prices", read_at))
    row = _newest_day(lake, symbol, prediction["computed_at"], read_at) if chain else None
    if row is not None:
        found += _daily(lake, chain, row, symbol, read_at)
    return found


def _daily(
    lake: Lake, features: Sequence[Feature], day: date, symbol: str, read_at: Mapping[str, int]
) -> list[dict[str, Any]]:
    """The blocks and the metrics that an on-chain row of a day was made of."""
    midnight = datetime.combine(day, datetime.min.time(), UTC)
    tables = {source for feature in features for source in feature.sources}
    asset = symbol.partition("/")[0].lower()
    wanted = {
        "onchain_blocks": (pl.col("finality") == "finalized", _BLOCKS),
        "network_metrics": (pl.col("asset") == asset, None),
    }
    found = []
    for table, (which, columns) in wanted.items():
        if table not in tables or not lake.exists(table):
            continue
        reach = [each for each in features if table in each.sources]
        window = day_window(reach, midnight)
        then, now = _both(lake, table, read_at, window, wanted=which, columns=columns)
        told = _blocks(then) if table == "onchain_blocks" else {"asset": asset}
        span = {"first": window[0], "last": window[1], "rows": then.height}
        revised = not same_rows(then, now)
        found.append({**span, **told, "revised": revised, **_named(table, read_at)})
    return found


def _bars(
    then: pl.DataFrame,
    now: pl.DataFrame,
    symbol: str,
    window: tuple[datetime, datetime],
    bar: timedelta,
) -> dict[str, Any]:
    own = then.filter(pl.col("symbol") == symbol).sort("open_time")
    return {
        "first": window[0],
        "last": window[1],
        "symbol": symbol,
        "rows": own.height,
        "expected": (window[1] - window[0]) // bar,
        "newest": own.tail(1).to_dicts()[0] if own.height else None,
        "revised": not same_rows(then, now),
    }


def _blocks(rows: pl.DataFrame) -> dict[str, Any]:
    ordered = rows.sort("number")
    ends = ordered.head(1).to_dicts() + ordered.tail(1).to_dicts()
    return {"first_block": ends[0], "last_block": ends[-1]} if ends else {}


def _named(table: str, read_at: Mapping[str, int]) -> dict[str, Any]:
    return {"table": table, "version": read_at.get(table)}


def _both(
    lake: Lake,
    table: str,
    read_at: Mapping[str, int],
    window: tuple[datetime, datetime],
    *,
    wanted: pl.Expr,
    columns: Sequence[str] | None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows of a window as they were, and as they are."""
    frames = []
    for version in (read_at.get(table), None):
        stored = lake.day_versions(table, version=version)
        days = [d for d in stored if window[0].date() <= d < (window[1] + _ALMOST_A_DAY).date()]
        rows = lake.scan(table, days, version).filter(wanted)
        frames.append((rows if columns is None else rows.select(columns)).collect())
    shared = [name for name in frames[0].columns if name in frames[1].columns]
    return frames[0].select(shared), frames[1].select(shared)


def _newest_day(lake: Lake, symbol: str, at: datetime, read_at: Mapping[str, int]) -> date | None:
    """The day of the on-chain row that was known at an instant."""
    table = "onchain_features"
    if not lake.exists(table):
        return None
    version = read_at.get(table)
    oldest = (at - TTL - LONGEST_LAG).date()
    days = [d for d in lake.day_versions(table, version=version) if oldest <= d <= at.date()]
    rows = lake.scan(table, days, version).filter(
        pl.col("symbol") == symbol, pl.col("event_timestamp") <= at
    )
    found = rows.select("date", "event_timestamp").sort("event_timestamp").tail(1).collect()
    return found["date"][0] if found.height else None
