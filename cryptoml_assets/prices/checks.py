"""Checks of the group prices; what fails a blocking one does not flow on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

import dagster as dg
import polars as pl

from cryptoml_assets.days import day_start
from cryptoml_assets.errors import CryptomlError
from cryptoml_assets.partitions import check_days
from cryptoml_assets.prices import quality
from cryptoml_assets.prices.assets import raw_prices
from cryptoml_assets.prices.ledger import day_summary
from cryptoml_assets.prices.native import compare_days
from cryptoml_assets.prices.outliers import Returns
from cryptoml_assets.prices.resample import batches, scan_ledger
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import Settings, settings
from cryptoml_assets.tables import markdown_table

_SHOWN = 20
_TABLE = "raw_prices"
_BLOCKING = {
    "schema": "The table has exactly the columns and types of raw_prices.",
    "unique_keys": "No bar is stored twice.",
    "sound_bars": "Prices are positive, high and low enclose open and close, volume is a number.",
    "rising_times": "Bars open on the timeframe's grid, close one bar later, and rise as stored.",
    "ledger_agrees": "Every bar that the gap ledger calls received is there.",
    "complete_days": "Every symbol has enough of the bars of every closed day of the run.",
}
_WARNING = {
    "outliers": "No return is further from the quartiles of the run than CRYPTOML_OUTLIER_IQRS.",
    "newest_bar": "No symbol's next bar is overdue by more than CRYPTOML_FRESHNESS.",
    "gaps": "Every closed slot since a symbol was listed has a bar; else range and cause.",
    "native_days_agree": "Settled days add up to the venue's own daily bars.",
}


@dg.multi_asset_check(
    name="raw_prices_quality",
    specs=[
        dg.AssetCheckSpec(name, asset=raw_prices, blocking=name in _BLOCKING, description=meaning)
        for name, meaning in {**_BLOCKING, **_WARNING}.items()
    ],
)
def raw_prices_quality(
    context: dg.AssetCheckExecutionContext, lake: dg.ResourceParam[LakeIOManager]
) -> Iterable[dg.AssetCheckResult]:
    """Whether the bars of the run's days can be built on; of all days outside of a run."""
    configured, table = settings(), lake.lake
    problems = quality.schema_problems(table.schema(_TABLE))
    named = pl.DataFrame({"problem": problems}, schema={"problem": pl.String})
    yield _result("schema", named)
    if problems:
        for name in (*_BLOCKING, *_WARNING):
            if name != "schema":
                yield _result(name, named, note="not looked at: the schema is another")
        return
    run_days = check_days(context)
    days = run_days or _stored_days(table)
    now = configured.clock()
    # Before the bars: what the ledger claims was stored before it claimed so.
    ledger = scan_ledger(table, days).collect()
    yield from _row_results(configured, table, ledger, days)
    ours = ledger.filter(
        pl.col("venue") == configured.venue, pl.col("timeframe") == configured.timeframe
    )
    yield _complete(configured, ours, days, now)
    yield _gaps(configured, ours, days, now)
    yield _newest(configured, table, now, looked_at=run_days is None or now.date() in days)
    yield _native(configured, table, ours, days)


@dataclass
class _Found:
    """Offending rows of all days: how many, and the first of them."""

    total: int = 0
    first: pl.DataFrame = field(default_factory=pl.DataFrame)

    def add(self, rows: pl.DataFrame) -> None:
        self.total += rows.height
        self.first = rows if self.first.is_empty() else pl.concat([self.first, rows])
        self.first = self.first.head(_SHOWN)


def _row_results(
    configured: Settings, table: Lake, ledger: pl.DataFrame, days: Sequence[date]
) -> Iterable[dg.AssetCheckResult]:
    """The checks that look at every bar, a few days at a time."""
    twice, broken, untimely, claims, unclaimed = (_Found() for _ in range(5))
    returns = Returns()
    for batch in batches(days):
        bars = table.scan(_TABLE, batch).collect()
        said = ledger.filter(pl.col("date").is_in(list(batch)))
        twice.add(quality.duplicate_keys(bars))
        broken.add(quality.broken_bars(bars))
        untimely.add(quality.untimely_bars(bars))
        claims.add(quality.false_claims(bars, said))
        unclaimed.add(quality.unclaimed_bars(bars, said))
        returns.add(bars)
    yield _found("unique_keys", twice)
    yield _found("sound_bars", broken)
    yield _found("rising_times", untimely)
    yield _found("ledger_agrees", claims, unrecorded_bars=unclaimed.total)
    outliers = returns.outliers(configured.outlier_iqrs)
    yield _result("outliers", outliers, iqrs=configured.outlier_iqrs)


def _complete(
    configured: Settings, ledger: pl.DataFrame, days: Sequence[date], now: datetime
) -> dg.AssetCheckResult:
    closed = [day for day in days if day_start(day) + timedelta(days=1) <= now]
    summary = day_summary(ledger, configured.symbols, closed, configured.bar, now)
    short = summary.filter(pl.col("share") < configured.completeness)
    return _result("complete_days", short, least_share=configured.completeness)


def _gaps(
    configured: Settings, ledger: pl.DataFrame, days: Sequence[date], now: datetime
) -> dg.AssetCheckResult:
    today = day_start(now.date())
    # Of the day in progress, what has closed since the run is not yet a gap.
    reached = ledger["end"].max()
    until = max(today, reached) if isinstance(reached, datetime) else today
    ranges = quality.gaps(
        ledger, symbols=configured.symbols, days=days, bar=configured.bar, until=until
    )
    by_cause = ranges.group_by("cause").agg(pl.col("bars").sum()).sort("cause")
    return _result(
        "gaps",
        quality.listed_gaps(ranges),
        bars_by_cause=", ".join(f"{cause} {bars}" for cause, bars in by_cause.rows()) or "none",
    )


def _newest(
    configured: Settings, table: Lake, now: datetime, *, looked_at: bool
) -> dg.AssetCheckResult:
    if not looked_at:
        none = pl.DataFrame()
        return _result("newest_bar", none, note="not looked at: the run is of days past")
    newest = [now.date() - timedelta(days=1), now.date()]
    here = (pl.col("venue") == configured.venue, pl.col("timeframe") == configured.timeframe)
    late = quality.overdue(
        table.scan(_TABLE, newest).filter(*here).select("symbol", "close_time").collect(),
        scan_ledger(table, newest).filter(*here).collect(),
        symbols=configured.symbols,
        now=now,
        bar=configured.bar,
        longest=configured.freshness,
    )
    return _result("newest_bar", late)


def _native(
    configured: Settings, table: Lake, ledger: pl.DataFrame, days: Sequence[date]
) -> dg.AssetCheckResult:
    try:
        compared = compare_days(configured, table, ledger, days)
    except CryptomlError as error:
        reason = pl.DataFrame({"not_compared": [str(error)]})
        return _result("native_days_agree", reason, compared=0)
    return _result("native_days_agree", compared.differences, compared=compared.days)


def _stored_days(table: Lake) -> Sequence[date]:
    """Every day that has a bar or a row in the ledger."""
    frames = [table.scan(_TABLE), scan_ledger(table, None)]
    dates = pl.concat([frame.select("date").unique() for frame in frames])
    return dates.unique().sort("date").collect()["date"].to_list()


def _found(name: str, found: _Found, **metadata: Any) -> dg.AssetCheckResult:
    return _result(name, found.first, total=found.total, **metadata)


def _result(
    name: str, offending: pl.DataFrame, *, total: int | None = None, **metadata: Any
) -> dg.AssetCheckResult:
    """The result of a check that nothing must offend; shows the first of what does."""
    total = offending.height if total is None else total
    shown = offending.head(_SHOWN)
    rows = markdown_table(shown.columns, shown.iter_rows()) if total else "none"
    return dg.AssetCheckResult(
        check_name=name,
        asset_key=raw_prices.key,
        passed=total == 0,
        severity=(dg.AssetCheckSeverity.ERROR if name in _BLOCKING else dg.AssetCheckSeverity.WARN),
        metadata={
            "offending": total,
            "first_offending": dg.MetadataValue.md(rows),
            **metadata,
        },
    )
