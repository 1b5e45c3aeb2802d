"""Checks of the group prices; what fails here does not flow on."""

from collections.abc import Iterable, Sequence
from datetime import date, timedelta

import dagster as dg
import polars as pl

from cryptoml_assets.partitions import check_days, day_start
from cryptoml_assets.prices import quality
from cryptoml_assets.prices.assets import raw_prices
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.settings import settings

_SHOWN = 20
_CHECKS = {
    "schema": "The table has exactly the columns and types of raw_prices.",
    "unique_keys": "No bar is stored twice.",
    "sound_bars": "Prices are positive, high and low enclose open and close, volume is a number.",
    "complete_days": "Every symbol has enough of the bars of every closed day of the run.",
}


@dg.multi_asset_check(
    name="raw_prices_quality",
    specs=[
        dg.AssetCheckSpec(name, asset=raw_prices, blocking=True, description=description)
        for name, description in _CHECKS.items()
    ],
)
def raw_prices_quality(
    context: dg.AssetCheckExecutionContext, lake: dg.ResourceParam[LakeIOManager]
) -> Iterable[dg.AssetCheckResult]:
    """Whether the bars of the run's days can be built on; of all days outside of a run."""
    days = check_days(context)
    bars = lake.lake.scan("raw_prices", days)
    problems = quality.schema_problems(bars.collect_schema())
    yield _result("schema", len(problems), "\n".join(problems))
    yield _rows_result("unique_keys", quality.duplicate_keys(bars))
    yield _rows_result("sound_bars", quality.broken_bars(bars))
    wanted = settings()
    closed = _closed(days if days is not None else _stored_days(bars))
    shares = quality.completeness(bars, symbols=wanted.symbols, days=closed, bar=wanted.bar)
    short = shares.filter(pl.col("share") < wanted.completeness)
    yield _rows_result("complete_days", short, least_share=wanted.completeness)


def _stored_days(bars: pl.LazyFrame) -> Sequence[date]:
    return bars.select(pl.col("date").unique().sort()).collect()["date"].to_list()


def _closed(days: Sequence[date]) -> tuple[date, ...]:
    now = settings().clock()
    return tuple(day for day in days if day_start(day) + timedelta(days=1) <= now)


def _rows_result(name: str, offending: pl.DataFrame, **metadata: float) -> dg.AssetCheckResult:
    shown = offending.head(_SHOWN)
    lines = "\n".join(", ".join(f"{k}={v}" for k, v in row.items()) for row in shown.to_dicts())
    return _result(name, offending.height, lines, **metadata)


def _result(name: str, offending: int, shown: str, **metadata: float) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=name,
        asset_key=raw_prices.key,
        passed=offending == 0,
        metadata={"offending": offending, "first_offending": shown or "none", **metadata},
    )
