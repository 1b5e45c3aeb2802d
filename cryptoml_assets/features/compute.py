"""Price features from bars, exact to the bit whatever was asked for.

A value is a function of the bars in its own window and of nothing else (see
:mod:`~cryptoml_assets.features.terms`), so one day, a range of days, any order of days and a day
still in progress all give the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cryptoml_assets.features.catalog import features_of, price_warmup
from cryptoml_assets.features.engine import evaluate
from cryptoml_assets.features.feature import BARS, Feature
from cryptoml_assets.features.grid import UTC_TIME, Grid, Rows, Span, lay_out
from cryptoml_assets.features.lacks import Lacks, Mask, Older, nobody
from cryptoml_assets.features.nulls import row_reasons
from cryptoml_assets.features.reasons import NULL_REASON
from cryptoml_assets.features.terms import Values, columns_of

#: Columns of ``raw_prices`` that features are made of.
BAR_COLUMNS = ("symbol", "open_time", *BARS, "source")
_DAY = timedelta(days=1)
_DAY_MICROSECONDS = _DAY // timedelta(microseconds=1)
#: Days from 1970-01-01, a Thursday, back to a Monday.
_MONDAY = 3


def feature_schema(features: Sequence[Feature]) -> pl.Schema:
    """Column types of a feature table: key, features, reasons of nulls, source, partition date."""
    return pl.Schema(
        {
            "symbol": pl.String(),
            "event_timestamp": UTC_TIME,
            **{feature.name: pl.Float64() for feature in features},
            NULL_REASON: pl.String(),
            "source": pl.String(),
            "date": pl.Date(),
        }
    )


def days_before(bar: timedelta, warmup: int | None = None) -> int:
    """Whole days of bars before a day that its computation reads."""
    bars = price_warmup() if warmup is None else warmup
    return math.ceil(bars * bar / _DAY)


def price_features(
    bars: pl.LazyFrame | pl.DataFrame,
    days: Sequence[date],
    bar: timedelta,
    features: Sequence[Feature] = features_of("price_features"),
    *,
    history: pl.LazyFrame | pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Feature rows of ``days``: one per symbol and closed bar, sorted by symbol and time.

    Args:
        bars: Rows of ``raw_prices`` of one venue and timeframe, in any order, covering ``days`` and
            :func:`days_before` them; more is ignored.
        days: UTC days to compute.
        bar: Length of one bar.
        features: Catalog entries to compute.
        history: Bars of every day there is, ``bars`` when not given: they say whether a window
            reaches back before a symbol's first bar. Only read where that is in question.

    Returns:
        :func:`feature_schema` of ``features``. A value is null where a bar of its window is
        missing or the quantity is undefined there (a price or a volume that never varies), and
        ``null_reason`` says which.

    Raises:
        LakeError: a bar given twice, or one that does not open on a whole step of the day.
    """
    if not days:
        return feature_schema(features).to_frame()
    grid, sources = bar_grid(bars, days, bar, features)
    known = (bars if history is None else history).lazy()
    return computed(
        grid, days, features, sources, known_after=bar, older=older_symbols(known, grid.span)
    )


def price_lacks(
    bars: pl.LazyFrame | pl.DataFrame,
    days: Sequence[date],
    bar: timedelta,
    features: Sequence[Feature] = features_of("price_features"),
    *,
    history: pl.LazyFrame | pl.DataFrame | None = None,
) -> tuple[Lacks, Mask]:
    """What the windows of :func:`price_features` lack, and the symbols and steps with a row.

    Arguments are those of :func:`price_features`; ``days`` has one at least.
    """
    grid, _ = bar_grid(bars, days, bar, features)
    known = (bars if history is None else history).lazy()
    halo = halo_of(features)
    return Lacks(grid, halo, older_symbols(known, grid.span)), wanted_of(grid, days)[:, halo:]


def bar_grid(
    bars: pl.LazyFrame | pl.DataFrame,
    days: Sequence[date],
    bar: timedelta,
    features: Sequence[Feature],
) -> tuple[Grid, pl.Series]:
    """Bars of ``days`` and of the warm-up before them, laid out, and the source of each bar."""
    span = Span.of_days(days, bar, halo_of(features))
    end = span.start + span.count * bar
    inputs = (
        bars.lazy()
        .filter(pl.col("open_time").is_between(span.start, end, closed="left"))
        .select(BAR_COLUMNS)
        .collect()
    )
    return lay_out(inputs, span, BARS, _phases(span)), inputs["source"]


def older_symbols(history: pl.LazyFrame, span: Span) -> Older:
    """Which of some symbols have bars in ``history`` before ``span``."""
    before = history.filter(pl.col("open_time") < span.start)

    def older(symbols: Sequence[str]) -> Sequence[str]:
        found = before.filter(pl.col("symbol").is_in(list(symbols))).select("symbol").unique()
        return found.collect()["symbol"].to_list()

    return older


def computed(
    grid: Grid,
    days: Sequence[date],
    features: Sequence[Feature],
    sources: pl.Series,
    *,
    known_after: timedelta,
    older: Older = nobody,
) -> pl.DataFrame:
    """Feature rows of a grid, one for each symbol and step that has a row.

    Args:
        grid: The columns that ``features`` are made of, from their warm-up before ``days`` on.
        days: UTC days to compute.
        features: Catalog entries to compute.
        sources: Source of each row the grid was made of.
        known_after: Time from the begin of a step to the instant its row could first be known.
        older: Which of some symbols have rows before the grid.

    Returns:
        :func:`feature_schema` of ``features``, sorted by symbol and time.
    """
    terms = [feature.term for feature in features]
    halo = halo_of(features)
    columns = {each: grid[each] for each in columns_of(terms)}
    wanted = wanted_of(grid, days)
    rows = Rows(wanted, halo)
    values = rows.collect(
        len(terms), lambda store: evaluate(terms, columns, grid.row_at.shape, store)
    )
    symbol, step = rows.places
    begins = pl.Series(grid.span.begins[step]).cast(UTC_TIME)
    schema = feature_schema(features)
    return pl.DataFrame(
        [
            grid.symbols.gather(symbol),
            (begins + known_after).alias("event_timestamp"),
            *(each.alias(feature.name) for each, feature in zip(values, features, strict=True)),
            row_reasons(Lacks(grid, halo, older), features, values, wanted[:, halo:]),
            _gathered(sources, grid.row_at[wanted]).alias("source"),
            begins.dt.date().alias("date"),
        ],
        schema=schema,
    )


def _gathered(texts: pl.Series, places: NDArray[np.int64]) -> pl.Series:
    """``texts`` at ``places``; mostly they are all the same."""
    runs = texts.rle().struct.unnest()
    if runs.height == 1:
        return pl.repeat(runs["value"][0], len(places), dtype=pl.String, eager=True)
    return texts.gather(places)


def halo_of(features: Sequence[Feature]) -> int:
    """Steps before the first wanted one that ``features`` need."""
    return max((feature.warmup for feature in features), default=0)


def wanted_of(grid: Grid, days: Sequence[date]) -> Mask:
    """Symbols and steps of ``days`` that have a row."""
    return (grid.row_at >= 0) & np.isin(grid.span.days(), _ordinals(days))


def _ordinals(days: Sequence[date]) -> list[int]:
    return [(day - date(1970, 1, 1)).days for day in days]


def _phases(span: Span) -> dict[str, Values]:
    """Angle of the end of each step in the UTC day and in the week."""
    ends = span.begins + span.step // timedelta(microseconds=1)
    since_monday = ends + _MONDAY * _DAY_MICROSECONDS
    return {
        name: ((since % period) * np.float64(2.0 * math.pi / period))[np.newaxis]
        for name, since, period in (
            ("day_phase", ends, _DAY_MICROSECONDS),
            ("week_phase", since_monday, 7 * _DAY_MICROSECONDS),
        )
    }
