"""Proofs that a value is a function of its own window: recomputed otherwise, no bit differs.

Each proof computes a day's rows in another way and compares them with what was computed or stored
before. They hold for every table and every feature of its :class:`~.remake.Recipe`, in property
tests and as asset checks.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import numpy as np
import polars as pl

from cryptoml_assets.features.nulls import values_despite
from cryptoml_assets.features.reasons import NULL_REASON
from cryptoml_assets.features.remake import Raw, Recipe

_DAY = timedelta(days=1)
_KEY = ("symbol", "event_timestamp")
#: What each proof holds, for people.
MEANINGS = {
    "no_look_ahead": "Changing or deleting all that was not known at an instant changes nothing "
    "known by it.",
    "warm_up_suffices": "Starting the computation a day earlier changes nothing.",
    "partition_independent": "Computing days alone changes nothing.",
    "nulls_have_reasons": "No value is made of anything missing, and each row names the reasons of "
    "its nulls, and no others.",
}


@dataclass(frozen=True)
class Difference:
    """One value that two computations do not agree on."""

    feature: str
    symbol: str
    event_timestamp: datetime
    expected: float | str | None
    found: float | str | None

    def __str__(self) -> str:
        """The value's place and both readings, as a check's message shows them."""
        where = f"{self.feature} of {self.symbol} at {self.event_timestamp:%Y-%m-%d %H:%M}"
        return f"{where}: {self.expected} before, {self.found} recomputed"


@dataclass(frozen=True)
class Case:
    """One day of a run, to be made again.

    Attributes:
        recipe: How its table is made.
        raw: Raw rows of the day, of those around it, and of their warm-up, as the run read them.
        rows: What is stored of the day.
        day: The day.
        cuts: Instants by which some of its rows were known.
        seed: What draws changes.
    """

    recipe: Recipe
    raw: Raw
    rows: pl.DataFrame
    day: date
    cuts: tuple[datetime, datetime]
    seed: int


def drawn(days: Sequence[date], seed: int, count: int) -> tuple[tuple[date, ...], tuple[int, ...]]:
    """Up to ``count`` of ``days``, the newest among them, shuffled; and a second of each."""
    chance = random.Random(seed)  # noqa: S311
    *older, newest = sorted(set(days))
    chosen = [newest, *chance.sample(older, min(count - 1, len(older)))]
    chance.shuffle(chosen)
    return tuple(chosen), tuple(chance.randrange(86_400) for _ in chosen)


def days_around(day: date, before: int) -> tuple[date, ...]:
    """``day``, the one after it, and the one before with its ``before`` days of warm-up."""
    return tuple(day + step * _DAY for step in range(-before - 1, 2))


def proved(cases: Sequence[Case]) -> dict[str, tuple[Difference, ...]]:
    """What each proof of :data:`MEANINGS` finds on some days."""
    found: dict[str, list[Difference]] = {name: [] for name in MEANINGS}
    for case in cases:
        recipe, raw, day, rows = case.recipe, case.raw, case.day, case.rows
        found["no_look_ahead"] += look_ahead(
            recipe, raw, day, cuts=case.cuts, seed=case.seed, expected=rows
        )
        found["warm_up_suffices"] += warm_up(recipe, raw, day, expected=rows)
        found["partition_independent"] += partitions(recipe, raw, [day], expected=rows)
        found["nulls_have_reasons"] += reasons(recipe, raw, day, expected=rows)
    return {name: tuple(differences) for name, differences in found.items()}


def differences(
    expected: pl.DataFrame, found: pl.DataFrame, names: Sequence[str]
) -> tuple[Difference, ...]:
    """The oldest value of each of ``names`` in which ``found`` is not ``expected``, to the bit.

    A row that only one of them has differs in every feature. Null equals null; -0.0 is not 0.0.
    """
    bits = [
        pl.col(name).reinterpret(dtype=pl.Int64)
        if expected.schema[name].is_float()
        else pl.col(name)
        for name in names
    ]
    sides = [
        frame.select(*_KEY, *bits, pl.lit(value=True).alias("there")) for frame in (expected, found)
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
    recipe: Recipe,
    raw: Raw,
    day: date,
    *,
    cuts: tuple[datetime, datetime],
    seed: int,
    expected: pl.DataFrame,
) -> tuple[Difference, ...]:
    """Where values known by an instant change once all that was not known then is others, or gone.

    Args:
        recipe: How the table is made.
        raw: Raw rows of ``day``, of the warm-up before it, and of what follows.
        day: The day that is recomputed, with the one after it.
        cuts: Instants at which some rows of ``day`` are known. What comes after the first is gone,
            what comes after the second is others, or gone.
        seed: What draws the changes.
        expected: Feature rows of ``day``.
    """
    found: list[Difference] = []
    for cut, kept in zip(cuts, (0.0, 0.7), strict=True):
        known = pl.col("event_timestamp") <= cut
        before = expected.filter(known, pl.col("date") == day)
        changed = recipe.changed_after(raw, cut, seed, kept)
        rows = recipe.make(changed, [day, day + _DAY]).filter(known, pl.col("date") == day)
        found += differences(before, rows, _names(recipe))
    return tuple(dict.fromkeys(found))


def warm_up(
    recipe: Recipe, raw: Raw, day: date, *, expected: pl.DataFrame
) -> tuple[Difference, ...]:
    """Where values of ``day`` change once the computation begins a day earlier.

    Args:
        recipe: How the table is made.
        raw: Raw rows of ``day``, of the day before, and of the warm-up before that.
        day: The day that is recomputed.
        expected: Feature rows of ``day``, computed from its declared warm-up on.
    """
    of_day = pl.col("date") == day
    rows = recipe.make(raw, [day - _DAY, day])
    return differences(expected.filter(of_day), rows.filter(of_day), _names(recipe))


def partitions(
    recipe: Recipe, raw: Raw, days: Sequence[date], *, expected: pl.DataFrame
) -> tuple[Difference, ...]:
    """Where values of ``days`` change once each is computed alone, in the order given.

    Args:
        recipe: How the table is made.
        raw: Raw rows of ``days`` and of the warm-up before each.
        days: The days that are recomputed.
        expected: Feature rows of ``days``, computed together.
    """
    alone = pl.concat(recipe.make(raw, [day]) for day in days)
    wanted = expected.filter(pl.col("date").is_in(list(days)))
    return differences(wanted.sort(_KEY), alone.sort(_KEY), _names(recipe))


def reasons(
    recipe: Recipe, raw: Raw, day: date, *, expected: pl.DataFrame
) -> tuple[Difference, ...]:
    """Where a row of ``day`` says other reasons than it has, or a value is made of what is missing.

    Args:
        recipe: How the table is made.
        raw: Raw rows of ``day`` and of the warm-up before it.
        day: The day that is recomputed.
        expected: Feature rows of ``day``.
    """
    rows = recipe.make(raw, [day])
    found = differences(expected.filter(pl.col("date") == day), rows, [NULL_REASON])
    if rows.is_empty():
        return found
    lacks, wanted = recipe.lacks(raw, [day])
    values = [rows[feature.name] for feature in recipe.features]
    despite = values_despite(lacks, recipe.features, values, wanted)
    keys = rows.select(_KEY)
    return found + tuple(
        Difference(recipe.features[place].name, symbol, instant, None, values[place][row])
        for place, row in despite
        for symbol, instant in [keys.row(row)]
    )


def _names(recipe: Recipe) -> list[str]:
    return [feature.name for feature in recipe.features]


def _difference(apart: pl.DataFrame, name: str) -> Difference:
    """The oldest of the values of ``name`` that are apart."""
    oldest = apart.sort("event_timestamp", "symbol").select(*_KEY, name, f"{name}_found")
    symbol, moment, expected, found = oldest.row(0)
    return Difference(name, symbol, moment, _value(expected), _value(found))


def _value(bits: int | str | None) -> float | str | None:
    return float(np.int64(bits).view(np.float64)) if isinstance(bits, int) else bits
