"""How the rows of each feature table are made again, and what was not known at an instant.

The proofs (:mod:`~cryptoml_assets.features.proofs`) are the same for every table; what differs is
here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Protocol

import numpy as np
import polars as pl

from cryptoml_assets.features.catalog import features_of
from cryptoml_assets.features.compute import BAR_COLUMNS, days_before, price_features, price_lacks
from cryptoml_assets.features.feature import BARS, METRICS, Feature
from cryptoml_assets.features.lacks import Lacks, Mask
from cryptoml_assets.features.onchain import (
    BLOCK_COLUMNS,
    BLOCK_NUMBERS,
    onchain_features,
    onchain_lacks,
)

#: Rows of the raw tables that features are made of, by the table's name.
Raw = Mapping[str, pl.DataFrame]

_DAY = timedelta(days=1)


class Recipe(Protocol):
    """How one feature table is made."""

    @property
    def features(self) -> tuple[Feature, ...]:
        """The catalog entries to make."""

    @property
    def tables(self) -> tuple[str, ...]:
        """The raw tables they are made of."""

    @property
    def days_before(self) -> int:
        """Whole days of raw rows before a day that its computation reads."""

    def narrowed(self, table: str, rows: pl.LazyFrame) -> pl.LazyFrame:
        """Of all rows and columns of a raw table those that count."""

    def make(self, raw: Raw, days: Sequence[date]) -> pl.DataFrame:
        """The rows of ``days``; ``raw`` covers them and :attr:`days_before` them."""

    def lacks(self, raw: Raw, days: Sequence[date]) -> tuple[Lacks, Mask]:
        """What the windows of those rows lack, and the symbols and steps that have a row."""

    def changed_after(self, raw: Raw, cut: datetime, seed: int, kept: float) -> Raw:
        """``raw`` with other values for all that was not known at ``cut``.

        A share ``kept`` of that is there at all.
        """

    def cuts(self, rows: pl.DataFrame, day: date, second: int) -> tuple[datetime, datetime]:
        """Two instants at which rows of ``day`` have just become known; ``second`` draws them."""


@dataclass(frozen=True)
class OfPrices:
    """How ``price_features`` are made of bars, which are known once they have closed.

    Attributes:
        bar: Length of one bar.
        features: Catalog entries.
        history: Bars of every day, where those given to :meth:`make` may not be all.
        bars: Picks those that count from a table that may hold bars of other venues and lengths.
    """

    bar: timedelta
    features: tuple[Feature, ...] = features_of("price_features")
    history: pl.LazyFrame | None = None
    bars: Callable[[pl.LazyFrame], pl.LazyFrame] = lambda bars: bars

    tables = ("raw_prices",)

    @property
    def days_before(self) -> int:
        """See :class:`Recipe`."""
        warmup = max((feature.warmup for feature in self.features), default=0)
        return days_before(self.bar, warmup)

    def narrowed(self, table: str, rows: pl.LazyFrame) -> pl.LazyFrame:
        """See :class:`Recipe`."""
        del table
        return self.bars(rows).select(BAR_COLUMNS)

    def make(self, raw: Raw, days: Sequence[date]) -> pl.DataFrame:
        """See :class:`Recipe`."""
        bars = raw["raw_prices"]
        return price_features(bars, days, self.bar, self.features, history=self.history)

    def lacks(self, raw: Raw, days: Sequence[date]) -> tuple[Lacks, Mask]:
        """See :class:`Recipe`."""
        bars = raw["raw_prices"]
        return price_lacks(bars, days, self.bar, self.features, history=self.history)

    def changed_after(self, raw: Raw, cut: datetime, seed: int, kept: float) -> Raw:
        """See :class:`Recipe`."""
        unknown = pl.col("open_time") + self.bar > cut
        return {"raw_prices": _others(raw["raw_prices"], unknown, BARS, seed, kept)}

    def cuts(self, rows: pl.DataFrame, day: date, second: int) -> tuple[datetime, datetime]:
        """The closes of two bars, one after the other, of which at most the last is the newest."""
        closes = rows.filter(pl.col("date") == day)["event_timestamp"].unique().sort()
        last = max(len(closes) - 1, 1)
        return closes[second % last], closes[min(second % last + 1, len(closes) - 1)]


@dataclass(frozen=True)
class OfChain:
    """How ``onchain_features`` are made, of what is published and final some time after its day.

    Attributes:
        symbols: Symbols to make.
        delay: Time after the end of a day at which its row is known.
        metrics_lag: Time after the end of a day at which its metrics are published.
        finality_delay: Time after its timestamp at which a block is final.
        now: Rows that are known later do not exist.
        features: Catalog entries.
    """

    symbols: tuple[str, ...]
    delay: timedelta
    metrics_lag: timedelta
    finality_delay: timedelta
    now: datetime
    features: tuple[Feature, ...] = features_of("onchain_features")

    tables = ("network_metrics", "onchain_blocks")

    @property
    def days_before(self) -> int:
        """See :class:`Recipe`."""
        return max((feature.warmup for feature in self.features), default=0)

    def narrowed(self, table: str, rows: pl.LazyFrame) -> pl.LazyFrame:
        """See :class:`Recipe`."""
        if table == "network_metrics":
            return rows
        return rows.select(BLOCK_COLUMNS)

    def make(self, raw: Raw, days: Sequence[date]) -> pl.DataFrame:
        """See :class:`Recipe`."""
        return onchain_features(
            raw["network_metrics"],
            raw["onchain_blocks"],
            self.symbols,
            days,
            delay=self.delay,
            now=self.now,
            features=self.features,
        )

    def lacks(self, raw: Raw, days: Sequence[date]) -> tuple[Lacks, Mask]:
        """See :class:`Recipe`."""
        metrics, blocks = raw["network_metrics"], raw["onchain_blocks"]
        return onchain_lacks(metrics, blocks, self.symbols, days, self.features)

    def changed_after(self, raw: Raw, cut: datetime, seed: int, kept: float) -> Raw:
        """See :class:`Recipe`."""
        day_end = (pl.col("day") + _DAY).cast(pl.Datetime("us", "UTC"))
        metrics, blocks = raw["network_metrics"], raw["onchain_blocks"]
        unpublished = day_end + self.metrics_lag > cut
        not_final = pl.col("timestamp") + self.finality_delay > cut
        return {
            "network_metrics": _others(metrics, unpublished, METRICS, seed, kept),
            "onchain_blocks": _others(blocks, not_final, BLOCK_NUMBERS, seed, kept),
        }

    def cuts(self, rows: pl.DataFrame, day: date, second: int) -> tuple[datetime, datetime]:
        """The one instant at which the day's rows become known, twice."""
        del second
        known: datetime = rows.filter(pl.col("date") == day)["event_timestamp"].sort()[0]
        return known, known


def _others(
    rows: pl.DataFrame, unknown: pl.Expr, numbers: Sequence[str], seed: int, kept: float
) -> pl.DataFrame:
    """``rows`` with other ``numbers`` where they are ``unknown``; a share ``kept`` of those."""
    noise = np.random.default_rng(seed).random(rows.height)
    return (
        rows.with_columns(noise=noise)
        .filter(~unknown | (pl.col("noise") < kept))
        .with_columns(
            pl.when(unknown)
            .then((pl.col(name) * (1 + pl.col("noise") * 9)).cast(rows.schema[name]))
            .otherwise(pl.col(name))
            .alias(name)
            for name in numbers
        )
        .drop("noise")
    )
