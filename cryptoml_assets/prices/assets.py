"""Assets of the group prices."""

from collections.abc import Iterator, Mapping
from datetime import date
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from cryptoml_assets.cadence import daily_table, top_up
from cryptoml_assets.partitions import partition_days
from cryptoml_assets.plots import figure_metadata
from cryptoml_assets.prices import bars as price_bars
from cryptoml_assets.prices.ledger import CAUSES, share
from cryptoml_assets.prices.report import plot_closes, plot_coverage
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.resources.lake import Stored
from cryptoml_assets.settings import Settings, settings
from cryptoml_assets.tables import described_columns, markdown_table
from cryptoml_assets.versions import versioned

if TYPE_CHECKING:
    from cryptoml_assets.prices.tally import IngestReport, Progress

_GAPS_SHOWN = 50
_MEANINGS = {
    "venue": "ccxt id of the exchange",
    "symbol": "base and quote currency, BASE/QUOTE",
    "timeframe": "length of the bar, as ccxt spells it",
    "open_time": "instant at which the bar begins (UTC)",
    "close_time": "instant at which the bar ends, exclusive (UTC)",
    "open": "first traded price, in quote currency",
    "high": "highest traded price, in quote currency",
    "low": "lowest traded price, in quote currency",
    "close": "last traded price, in quote currency",
    "volume": "traded amount, in base currency",
    "source": "world the bar comes from: simulated, replay or live",
    "date": "UTC day of open_time; the partition",
}


class Refetch(dg.Config):
    """How a run over bars treats what it knows.

    Attributes:
        refetch: read every bar of the run's days again, settled or not.
    """

    refetch: bool = False


@daily_table(
    top_up,
    group="prices",
    kinds={"ccxt", "polars"},
    owner="team:market-data",
    code_version="2",
    metadata=described_columns(price_bars.SCHEMA, _MEANINGS, price_bars.KEY),
)
def raw_prices(
    context: dg.AssetExecutionContext, config: Refetch, lake: dg.ResourceParam[LakeIOManager]
) -> Iterator[dg.MaterializeResult[Stored] | dg.AssetMaterialization]:
    """Bars as the venue published them: one row per venue, symbol, timeframe and closed bar.

    A bar enters once the venue's own clock is past its close, so no row changes while it forms.
    A bar fetched again replaces the stored one of the same key; a stored bar that the venue no
    longer answers with stays.

    Beside it the table `price_ledger` says of every range of bars whether it was received or is
    missing, and why: `listed_later`, `delisted`, `venue_outage` or `nothing_traded`; what it has no
    row for was not fetched. Only that, and bars younger than `CRYPTOML_REVISION_WINDOW` when they
    were last read, is asked of the venue. The run's config `refetch` reads all again.
    """
    from cryptoml_assets.prices.ingest import run_ingest  # noqa: PLC0415  (loads ccxt)

    configured = settings()
    days = partition_days(context)

    def tell(progress: "Progress") -> None:
        context.log.info(
            "%d of %d days up to date, %d bars read, %.0f bars/s",
            progress.days_done,
            progress.days,
            progress.bars,
            progress.rate,
        )

    report = run_ingest(configured, lake.lake, days, refetch=config.refetch, progress=tell)
    for symbol in report.gone:
        context.log.warning("%s no longer knows %s: its bars end", report.venue, symbol)
    yield from versioned(
        report.stored,
        lake.lake,
        context.asset_key,
        days,
        metadata=_metadata(configured, report),
        by_day=_by_day(report.summary),
    )


def _by_day(summary: pl.DataFrame) -> Mapping[date, Mapping[str, Any]]:
    """Figures of each day, over all symbols; completeness is that of the least complete one."""
    figures = (
        summary.group_by("date")
        .agg(
            pl.col("expected", "received").sum(),
            (pl.col("expected") - pl.col("received")).sum().alias("missing"),
            pl.col("share").min().alias("completeness"),
        )
        .sort("date")
    )
    return {
        row.pop("date"): {name: value for name, value in row.items() if value is not None}
        for row in figures.to_dicts()
    }


def _metadata(configured: Settings, report: "IngestReport") -> dict[str, Any]:
    counts = ("expected", "received", *CAUSES, "not_fetched")
    by_symbol = (
        report.summary.group_by("symbol", maintain_order=True)
        .agg(pl.col(*counts).sum())
        .with_columns(share().alias("completeness"))
    )
    least = by_symbol["completeness"].min()
    gaps = report.gaps.head(_GAPS_SHOWN)
    return {
        "source": str(configured.world),
        "venue": configured.venue_address or configured.venue,
        "venue_time": dg.MetadataValue.timestamp(report.clock.at),
        "clock_skew_seconds": report.clock.skew.total_seconds(),
        "requests": report.requests,
        "new_bars": report.new,
        "changed_bars": report.changed,
        "run_completeness": dg.MetadataValue.null() if least is None else least,
        "symbols": dg.MetadataValue.md(markdown_table(by_symbol.columns, by_symbol.iter_rows())),
        "gaps_total": report.gaps_total,
        "gaps": dg.MetadataValue.md(markdown_table(gaps.columns, gaps.iter_rows())),
        "closes": figure_metadata(plot_closes(report.closes)),
        "coverage": figure_metadata(plot_coverage(report.summary)),
    }
