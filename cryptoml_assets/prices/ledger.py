"""The gap ledger: for every slot of a bar, whether it was received, and if not, why not.

One row stands for a range of slots inside one UTC day that share all they say. A slot without a row
was not fetched; that is derived, never stored. Rows are canonical, so that equal knowledge is equal
rows, in whatever order and in however many pieces it was gathered.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta

import numpy as np
import polars as pl

from cryptoml_assets.prices.bars import Mask, Span

LEDGER_TABLE = "price_ledger"
RECEIVED, MISSING = "received", "missing"
LISTED_LATER, DELISTED = "listed_later", "delisted"
VENUE_OUTAGE, NOTHING_TRADED = "venue_outage", "nothing_traded"
#: Why a slot can be missing: the venue had no bar before the symbol's first, or after its last;
#: nothing traded on the whole venue; the symbol alone did not trade.
CAUSES = (LISTED_LATER, DELISTED, VENUE_OUTAGE, NOTHING_TRADED)
#: Causes for which no bar could exist: such slots do not count as expected for completeness.
EXCUSED = (LISTED_LATER, DELISTED, VENUE_OUTAGE)
#: Origin of what a run read from the venue.
FROM_VENUE = "venue"

_INSTANT = pl.Datetime("us", "UTC")
#: Columns of ``price_ledger``.
LEDGER_SCHEMA = pl.Schema(
    {
        "venue": pl.String(),
        "symbol": pl.String(),
        "timeframe": pl.String(),
        "start": _INSTANT,
        "end": _INSTANT,
        "status": pl.String(),
        "cause": pl.String(),
        "bars": pl.Int32(),
        "settled": pl.Boolean(),
        "origin": pl.String(),
        "source": pl.String(),
        "date": pl.Date(),
    }
)
#: What identifies a row.
LEDGER_KEY = ("venue", "symbol", "timeframe", "start")

_SAID = ("status", "cause", "settled", "origin", "source")
_GRID = ("venue", "timeframe")
_DAY = timedelta(days=1)


def received(
    bars: pl.DataFrame, *, settled_until: datetime, origin: str = FROM_VENUE
) -> pl.DataFrame:
    """Ledger rows of ``bars``, rows of ``raw_prices`` without duplicates.

    Args:
        bars: what was received.
        settled_until: bars that closed by this instant are settled.
        origin: where they come from.
    """
    return _ranges(
        bars.select(
            "venue",
            "symbol",
            "timeframe",
            pl.col("open_time").alias("start"),
            pl.col("close_time").alias("end"),
            pl.lit(RECEIVED).alias("status"),
            pl.lit(None, pl.String).alias("cause"),
            pl.lit(1, pl.Int32).alias("bars"),
            (pl.col("close_time") <= settled_until).alias("settled"),
            pl.lit(origin).alias("origin"),
            "source",
            "date",
        )
    )


def missing(
    spans: Sequence[Span],
    *,
    venue: str,
    symbol: str,
    timeframe: str,
    bar: timedelta,
    cause: str,
    settled_until: datetime,
    source: str,
) -> pl.DataFrame:
    """Ledger rows of the slots of ``spans``, asked for and not received because of ``cause``.

    Slots that closed by ``settled_until`` are settled.
    """
    halves = []
    for start, end in spans:
        middle = start + min(max((settled_until - start) // bar, 0), (end - start) // bar) * bar
        halves += _days_apart(start, middle) + _days_apart(middle, end)
    rows = pl.DataFrame(halves, schema={"start": _INSTANT, "end": _INSTANT}, orient="row")
    return _ranges(
        rows.select(
            pl.lit(venue).alias("venue"),
            pl.lit(symbol).alias("symbol"),
            pl.lit(timeframe).alias("timeframe"),
            "start",
            "end",
            pl.lit(MISSING).alias("status"),
            pl.lit(cause).alias("cause"),
            ((pl.col("end") - pl.col("start")).dt.total_microseconds() // _microseconds(bar))
            .cast(pl.Int32)
            .alias("bars"),
            (pl.col("end") <= settled_until).alias("settled"),
            pl.lit(FROM_VENUE).alias("origin"),
            pl.lit(source).alias("source"),
            pl.col("start").dt.date().alias("date"),
        )
    )


def merge_ledger(stored: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """What is known after ``new`` was learnt on top of ``stored``: canonical rows, sorted.

    New slots win, but for one that was received and is now missing: its bar stays stored, so it
    stays received. And a slot in which any symbol of the venue traded is no outage of the venue.
    """
    days = new.select(*_GRID, "date").unique()
    untouched = stored.join(days, on=days.columns, how="anti")
    touched = stored.join(days, on=days.columns, how="semi")
    cuts = _cuts(touched, new)
    before, after = _pieces(touched, cuts), _pieces(new, cuts)
    kept = before.filter(status=RECEIVED).join(
        after.filter(status=MISSING).select(*LEDGER_KEY, pl.col("settled").alias("again")),
        on=LEDGER_KEY,
    )
    kept = kept.with_columns(pl.col("settled") | pl.col("again")).drop("again")
    pieces = pl.concat([before, after, kept]).unique(LEDGER_KEY, keep="last")
    return pl.concat([untouched, _ranges(_without_false_outages(pieces))]).sort(LEDGER_KEY)


def covered(ledger: pl.DataFrame, start: datetime, slots: int, bar: timedelta) -> Mask:
    """Which of the ``slots`` from ``start`` on the rows of ``ledger`` stand for."""
    mask = np.zeros(slots, dtype=np.bool_)
    for first, last in ledger.select("start", "end").iter_rows():
        mask[max((first - start) // bar, 0) : max((last - start) // bar, 0)] = True
    return mask


def mask_spans(mask: Mask, start: datetime, bar: timedelta) -> list[Span]:
    """Spans of the slots that are true in ``mask``, whose first slot opens at ``start``."""
    edges = np.flatnonzero(np.diff(mask, prepend=False, append=False))
    return [
        (start + int(first) * bar, start + int(last) * bar)
        for first, last in edges.reshape(-1, 2).tolist()
    ]


def day_summary(
    ledger: pl.DataFrame,
    symbols: Sequence[str],
    days: Sequence[date],
    bar: timedelta,
    closed_until: datetime,
) -> pl.DataFrame:
    """How complete each day is: one row per day and symbol, those without any slot included.

    Args:
        ledger: rows of one venue and timeframe.
        symbols: symbols to report.
        days: days to report.
        bar: length of a slot.
        closed_until: slots that closed by this instant are expected.

    Returns:
        Columns ``date``, ``symbol``, slots ``expected``, ``received``, missing by cause
        (``listed_later``, ``delisted``, ``venue_outage``, ``nothing_traded``), ``not_fetched``, and
        ``share``: received of those expected that could exist, null where there are none.
    """
    grid = pl.DataFrame({"date": days}, schema={"date": pl.Date}).join(
        pl.DataFrame({"symbol": symbols}, schema={"symbol": pl.String}), how="cross"
    )
    counted = ledger.group_by("date", "symbol").agg(
        pl.col("bars").filter(status=RECEIVED).sum().alias("received"),
        *(pl.col("bars").filter(cause=cause).sum().alias(cause) for cause in CAUSES),
    )
    elapsed = pl.lit(closed_until, _INSTANT) - pl.col("date").cast(_INSTANT)
    expected = (elapsed.dt.total_microseconds() // _microseconds(bar)).clip(0, _DAY // bar)
    known = ("received", *CAUSES)
    return (
        grid.join(counted, on=["date", "symbol"], how="left")
        .select(
            "date",
            "symbol",
            expected.alias("expected"),
            *(pl.col(name).cast(pl.Int64).fill_null(0) for name in known),
        )
        .with_columns(
            (pl.col("expected") - pl.sum_horizontal(known)).clip(0).alias("not_fetched"),
            share().alias("share"),
        )
        .sort("date", "symbol")
    )


def gap_ranges(ledger: pl.DataFrame) -> pl.DataFrame:
    """The missing ranges of ``ledger``, rows of one venue and timeframe, across midnights.

    Columns ``symbol``, ``start``, ``end``, ``cause`` and ``bars``, in order of ``start``.
    """
    same = ("symbol", "cause")
    breaks = pl.any_horizontal(
        pl.col("start").ne_missing(pl.col("end").shift(1)),
        *(pl.col(name).ne_missing(pl.col(name).shift(1)) for name in same),
    )
    return (
        ledger.filter(pl.col("cause").is_not_null())
        .sort("symbol", "start")
        .group_by(breaks.cum_sum().alias("gap"), maintain_order=True)
        .agg(
            pl.col("symbol").first(),
            pl.col("start").first(),
            pl.col("end").last(),
            pl.col("cause").first(),
            pl.col("bars").cast(pl.Int64).sum(),
        )
        .drop("gap")
        .sort("start", "symbol")
    )


def share() -> pl.Expr:
    """Completeness of rows that count ``expected``, ``received`` and missing slots by cause.

    The share received of the slots in which a bar could exist; null where there is none.
    """
    possible = pl.col("expected") - pl.sum_horizontal(EXCUSED)
    return pl.when(possible > 0).then(pl.col("received") / possible)


def _cuts(*ledgers: pl.DataFrame) -> pl.DataFrame:
    """Every instant at which a range begins or ends, by venue and timeframe, and its number."""
    ends = [
        ledger.select(*_GRID, pl.col(name).alias("start"))
        for ledger in ledgers
        for name in ("start", "end")
    ]
    return pl.concat(ends).unique().sort(*_GRID, "start").with_row_index("cut")


def _pieces(ledger: pl.DataFrame, cuts: pl.DataFrame) -> pl.DataFrame:
    """The rows of ``ledger`` cut at ``cuts``, so that those of two ledgers are equal or apart."""
    last = cuts.select(*_GRID, pl.col("start").alias("end"), pl.col("cut").alias("after"))
    length = (pl.col("end") - pl.col("start")).dt.total_microseconds() // pl.col("bars")
    bounds = cuts.select("cut", "start", pl.col("start").shift(-1).alias("end"))
    return (
        ledger.join(cuts, on=[*_GRID, "start"])
        .join(last, on=[*_GRID, "end"])
        .with_columns(length.alias("length"), pl.int_ranges("cut", "after").alias("cut"))
        .drop("start", "end")
        .explode("cut")
        .join(bounds.with_columns(pl.col("cut").cast(pl.Int64)), on="cut")
        .with_columns(
            (pl.col("end") - pl.col("start")).dt.total_microseconds().alias("bars")
            // pl.col("length")
        )
        .select(pl.col(name).cast(kind) for name, kind in LEDGER_SCHEMA.items())
    )


def _ranges(pieces: pl.DataFrame) -> pl.DataFrame:
    """The canonical rows of ``pieces``, no two of which overlap."""
    same = ("venue", "symbol", "timeframe", "date", *_SAID)
    breaks = pl.any_horizontal(
        pl.col("start").ne_missing(pl.col("end").shift(1)),
        *(pl.col(name).ne_missing(pl.col(name).shift(1)) for name in same),
    )
    return (
        pieces.sort(LEDGER_KEY)
        .group_by(breaks.cum_sum().alias("range"), maintain_order=True)
        .agg(
            *(pl.col(name).first() for name in same),
            pl.col("start").first(),
            pl.col("end").last(),
            pl.col("bars").sum(),
        )
        .select(pl.col(name).cast(kind) for name, kind in LEDGER_SCHEMA.items())
    )


def _without_false_outages(pieces: pl.DataFrame) -> pl.DataFrame:
    """``pieces``, none of them an outage of the venue where another symbol was received."""
    outages = pieces.filter(cause=VENUE_OUTAGE)
    traded = outages.join(pieces.filter(status=RECEIVED), on=[*_GRID, "start"], how="semi")
    calm = traded.with_columns(pl.lit(NOTHING_TRADED).alias("cause"))
    return pl.concat([pieces, calm]).unique(LEDGER_KEY, keep="last")


def _days_apart(start: datetime, end: datetime) -> list[Span]:
    """``[start, end)`` cut at every UTC midnight."""
    spans = []
    while start < end:
        midnight = datetime.combine(start.date() + _DAY, datetime.min.time(), start.tzinfo)
        spans.append((start, min(midnight, end)))
        start = midnight
    return spans


def _microseconds(length: timedelta) -> int:
    return length // timedelta(microseconds=1)
