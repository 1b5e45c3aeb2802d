"""Proofs that a value is a function of its own window: recomputed otherwise, no bit differs.

Each proof computes a day's price features in another way and compares them with what was computed
or stored before. They run over every feature they are given, in property tests and as asset checks.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import numpy as np
import polars as pl

from cryptoml_assets.features.catalog import features_of
from cryptoml_assets.features.compute import price_features
from cryptoml_assets.features.feature import Feature

_DAY = timedelta(days=1)
_KEY = ("symbol", "event_timestamp")
_PRICES = ("open", "high", "low", "close", "volume")


@dataclass(frozen=True)
class Difference:
    """One value that two computations do not agree on."""

    feature: str
    symbol: str
    event_timestamp: datetime
    expected: float | None
    found: float | None

    def __str__(self) -> str:
        """The value's place and both readings, as a check's message shows them."""
        where = f"{self.feature} of {self.symbol} at {self.event_timestamp:%Y-%m-%d %H:%M}"
        return f"{where}: {self.expected} before, {self.found} recomputed"


@dataclass(frozen=True)
class Sample:
    """What the proofs repeat of a run.

    Attributes:
        bars: ``raw_prices`` of the sampled days, of those around them, and of their warm-up.
        rows: What is stored of the sampled days.
        days: The sampled days, in no order.
        cuts: For each of them an instant within it.
        seed: What drew them.
    """

    bars: pl.DataFrame
    rows: pl.DataFrame
    days: tuple[date, ...]
    cuts: tuple[datetime, ...]
    seed: int


def drawn(days: Sequence[date], seed: int, count: int) -> tuple[tuple[date, ...], tuple[int, ...]]:
    """Up to ``count`` of ``days``, the newest among them, shuffled; and a second of each."""
    chance = random.Random(seed)  # noqa: S311
    *older, newest = sorted(set(days))
    chosen = [newest, *chance.sample(older, min(count - 1, len(older)))]
    chance.shuffle(chosen)
    return tuple(chosen), tuple(chance.randrange(86_400) for _ in chosen)


def days_around(days: Sequence[date], before: int) -> tuple[date, ...]:
    """``days``, the one after each, and the one before with its ``before`` days of warm-up."""
    wanted = {day + step * _DAY for day in days for step in range(-before - 1, 2)}
    return tuple(sorted(wanted))


def proved(sample: Sample, bar: timedelta) -> dict[str, tuple[Difference, ...]]:
    """What each proof finds on a sample."""
    ahead: list[Difference] = []
    early: list[Difference] = []
    for day, cut in zip(sample.days, sample.cuts, strict=True):
        ahead += look_ahead(sample.bars, day, bar, cut=cut, seed=sample.seed, expected=sample.rows)
        early += warm_up(sample.bars, day, bar, expected=sample.rows)
    alone = partitions(sample.bars, sample.days, bar, expected=sample.rows)
    return {
        "no_look_ahead": tuple(ahead),
        "warm_up_suffices": tuple(early),
        "partition_independent": alone,
    }


def differences(
    expected: pl.DataFrame, found: pl.DataFrame, names: Sequence[str]
) -> tuple[Difference, ...]:
    """The oldest value of each of ``names`` in which ``found`` is not ``expected``, to the bit.

    A row that only one of them has differs in every feature. Null equals null; -0.0 is not 0.0.
    """
    bits = pl.col(names).reinterpret(signed=True)
    sides = [
        frame.select(*_KEY, bits, pl.lit(value=True).alias("there")) for frame in (expected, found)
    ]
    if sides[0].equals(sides[1]):
        return ()
    both = sides[0].join(sides[1], on=_KEY, how="full", coalesce=True, suffix="_found")
    one_sided = pl.col("there").is_null() | pl.col("there_found").is_null()
    return tuple(
        _difference(both.filter(apart), name)
        for name in names
        if both.select(
            (apart := one_sided | pl.col(name).ne_missing(pl.col(f"{name}_found"))).any()
        ).item()
    )


def look_ahead(
    bars: pl.DataFrame,
    day: date,
    bar: timedelta,
    *,
    cut: datetime,
    seed: int,
    expected: pl.DataFrame,
    features: Sequence[Feature] = features_of("price_features"),
) -> tuple[Difference, ...]:
    """Where values known by ``cut`` change once everything after it is others, or gone.

    Args:
        bars: The bars of ``day``, of the warm-up before it, and of what follows.
        day: The day that is recomputed, with the one after it.
        bar: Length of one bar.
        cut: An instant of ``day``; bars that open from it on are changed.
        seed: What draws the changes.
        expected: Feature rows of ``day``.
        features: The catalog entries.
    """
    names = [feature.name for feature in features]
    known = pl.col("event_timestamp") <= cut
    before = expected.filter(known, pl.col("date") == day)
    found: list[Difference] = []
    for kept in (0.0, 0.7):
        rows = price_features(
            changed_after(bars, cut, seed, kept), [day, day + _DAY], bar, features
        ).filter(known, pl.col("date") == day)
        found += differences(before, rows, names)
    return tuple(found)


def warm_up(
    bars: pl.DataFrame,
    day: date,
    bar: timedelta,
    *,
    expected: pl.DataFrame,
    features: Sequence[Feature] = features_of("price_features"),
) -> tuple[Difference, ...]:
    """Where values of ``day`` change once the computation begins a day earlier.

    Args:
        bars: The bars of ``day``, of the day before, and of the warm-up before that.
        day: The day that is recomputed.
        bar: Length of one bar.
        expected: Feature rows of ``day``, computed from its declared warm-up on.
        features: The catalog entries.
    """
    rows = price_features(bars, [day - _DAY, day], bar, features)
    of_day = pl.col("date") == day
    names = [feature.name for feature in features]
    return differences(expected.filter(of_day), rows.filter(of_day), names)


def partitions(
    bars: pl.DataFrame,
    days: Sequence[date],
    bar: timedelta,
    *,
    expected: pl.DataFrame,
    features: Sequence[Feature] = features_of("price_features"),
) -> tuple[Difference, ...]:
    """Where values of ``days`` change once each is computed alone, in the order given.

    Args:
        bars: The bars of ``days`` and of the warm-up before each.
        days: The days that are recomputed.
        bar: Length of one bar.
        expected: Feature rows of ``days``, computed together.
        features: The catalog entries.
    """
    alone = pl.concat(price_features(bars, [day], bar, features) for day in days)
    names = [feature.name for feature in features]
    wanted = expected.filter(pl.col("date").is_in(list(days)))
    return differences(wanted.sort(_KEY), alone.sort(_KEY), names)


def changed_after(bars: pl.DataFrame, cut: datetime, seed: int, kept: float) -> pl.DataFrame:
    """Bars with other values from ``cut`` on, of which a share ``kept`` is there at all."""
    noise = np.random.default_rng(seed).random(bars.height)
    after = pl.col("open_time") >= cut
    return (
        bars.with_columns(noise=noise)
        .filter(~after | (pl.col("noise") < kept))
        .with_columns(
            pl.when(after).then(pl.col(name) * (1 + pl.col("noise") * 9)).otherwise(pl.col(name))
            for name in _PRICES
        )
        .drop("noise")
    )


def _difference(apart: pl.DataFrame, name: str) -> Difference:
    """The oldest of the values of ``name`` that are apart."""
    oldest = apart.sort("event_timestamp", "symbol").select(*_KEY, name, f"{name}_found")
    symbol, moment, expected, found = oldest.row(0)
    return Difference(name, symbol, moment, _float(expected), _float(found))


def _float(bits: int | None) -> float | None:
    return None if bits is None else float(np.int64(bits).view(np.float64))
