"""Features that cheat, each in another way; the proofs must catch and name every one."""

from __future__ import annotations

import numpy as np

from cryptoml_assets.features.feature import Feature, Table
from cryptoml_assets.features.terms import Term, Values, apply, column
from cryptoml_assets.features.windows import window_mean

AHEAD, EARLY, ALONE = "no_look_ahead", "warm_up_suffices", "partition_independent"
NULLS = "nulls_have_reasons"


def next_step(values: Values, out: Values) -> None:
    moved = np.roll(values, -1, axis=1)
    moved[:, -1] = np.nan
    out[:] = moved


def less_its_mean(values: Values, out: Values) -> None:
    np.subtract(values, np.nanmean(values), out=out)


def over_its_largest(values: Values, out: Values) -> None:
    np.divide(values, np.nanmax(values, axis=1, keepdims=True), out=out)


def rank_in_time(values: Values, out: Values) -> None:
    out[:] = values.argsort(axis=1).argsort(axis=1)


def newest_known(values: Values, out: Values) -> None:
    known = np.nan_to_num(values)
    out[:] = known[:, -1:] + values * 0.0


def filled_from_the_future(values: Values, out: Values) -> None:
    """Every second value is that of the next step, as after a backward fill of what is missing."""
    filled = values.copy()
    filled[:, :-1:2] = values[:, 1::2][:, : filled[:, :-1:2].shape[1]]
    out[:] = filled


def reversed_sum(values: Values, out: Values) -> None:
    out[:] = np.nancumsum(values[:, ::-1], axis=1)[:, ::-1] + values * 0.0


def running_sum(values: Values, out: Values) -> None:
    np.cumsum(np.nan_to_num(values), axis=1, out=out)
    out += values * 0.0


def place_in_slice(values: Values, out: Values) -> None:
    out[:] = np.arange(values.shape[1]) + values * 0.0


def zero_where_missing(values: Values, out: Values) -> None:
    out[:] = np.nan_to_num(values)


def leaks(name: str, *, shared: bool = False) -> dict[str, tuple[Term, str]]:
    """Terms over the column ``name`` that leak, each with the proof that must catch it."""
    of = column(name, shared=shared)
    return {
        "next": (apply(next_step, of), AHEAD),
        "centred": (apply(next_step, apply(next_step, window_mean(of, 5))), AHEAD),
        "demeaned": (apply(less_its_mean, of), AHEAD),
        "normalised": (apply(over_its_largest, of), AHEAD),
        "ranked in time": (apply(rank_in_time, of), AHEAD),
        "newest": (apply(newest_known, of), AHEAD),
        "filled": (apply(filled_from_the_future, of), AHEAD),
        "reversed": (apply(reversed_sum, of), AHEAD),
        "remembers": (apply(running_sum, of), ALONE),
        "counts": (apply(place_in_slice, of), EARLY),
        "silent zero": (apply(zero_where_missing, of.lag(1)), NULLS),
    }


def suspect(term: Term, table: Table) -> tuple[Feature, ...]:
    """The one feature ``suspect`` of a table."""
    return (Feature("suspect", table, term, 1, "", ""),)
