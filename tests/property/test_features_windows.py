"""A statistic of a moving window has the same bits wherever its series begins and ends."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cryptoml_assets.features import windows
from cryptoml_assets.features.engine import evaluate
from cryptoml_assets.features.terms import Column, Term, column, sqrt

COUNT = 20_000
VALUES = 60_000 + np.cumsum(np.random.default_rng(1).standard_t(3, COUNT))
GAPPY = np.where(np.random.default_rng(2).random(COUNT) < 1e-3, np.nan, VALUES)
X = column("x")
FACTOR = 13 / 14

Numbers = NDArray[np.float64]
Statistic = Callable[[Term, int], Term]


def std(term: Term, length: int) -> Term:
    return sqrt(windows.window_squares(term, length) * (1.0 / (length - 1)))


def decayed(term: Term, length: int) -> Term:
    return windows.decayed_mean(term, FACTOR, length)


TEXTBOOK: dict[Statistic, Callable[[Numbers], Numbers]] = {
    windows.window_sum: lambda views: views.sum(axis=1),
    windows.window_mean: lambda views: views.mean(axis=1),
    std: lambda views: views.std(axis=1, ddof=1),
    decayed: lambda views: np.average(
        views, axis=1, weights=FACTOR ** np.arange(views.shape[1])[::-1]
    ),
}
every_statistic = pytest.mark.parametrize("statistic", TEXTBOOK, ids=lambda each: each.__name__)


def moved(term: Term, values: Numbers) -> Numbers:
    """The term at each of ``values``, NaN before the first complete window."""
    assert isinstance(X, Column)
    padded = np.concatenate([np.full(term.reach, np.nan), values])[np.newaxis]
    answer = np.empty(len(values))

    def store(index: int, begin: int, block: Numbers) -> None:
        answer[begin : begin + block.shape[1]] = block[0]

    evaluate([term], {X: padded}, padded.shape, store)
    return answer


@every_statistic
@settings(max_examples=25, deadline=None)
@given(length=st.integers(min_value=2, max_value=700))
def test_equals_the_textbook(statistic: Statistic, length: int) -> None:
    ours = moved(statistic(X, length), VALUES[:3000])
    assert np.isnan(ours[: length - 1]).all()
    views = np.lib.stride_tricks.sliding_window_view(VALUES[:3000], length)
    expected = TEXTBOOK[statistic](views)
    np.testing.assert_allclose(ours[length - 1 :], expected, rtol=1e-9, atol=1e-9)


@every_statistic
@settings(max_examples=25, deadline=None)
@given(
    length=st.integers(min_value=2, max_value=700),
    begin=st.integers(min_value=0, max_value=COUNT // 2),
    end=st.integers(min_value=COUNT // 2 + 1000, max_value=COUNT),
)
def test_the_slice_changes_no_bit(statistic: Statistic, length: int, begin: int, end: int) -> None:
    term = statistic(X, length)
    whole = moved(term, GAPPY)[begin + length - 1 : end]
    part = moved(term, GAPPY[begin:end])[length - 1 :]
    assert np.array_equal(whole, part, equal_nan=True)


@every_statistic
@pytest.mark.parametrize("length", [2, 3, 7, 20, 33])
def test_a_missing_value_makes_exactly_the_windows_over_it_missing(
    statistic: Statistic, length: int
) -> None:
    values = VALUES[:100].copy()
    values[50] = np.nan
    term = statistic(X, length)
    assert term.reach == length - 1
    missing = np.flatnonzero(np.isnan(moved(term, values)))
    assert missing.tolist() == [*range(length - 1), *range(50, 50 + length)]


@pytest.mark.parametrize("length", [2, 5, 14, 20, 288])
@pytest.mark.parametrize("value", [0.1, 1e-9, 123456.789])
def test_a_constant_window_has_its_value_as_mean_and_no_deviation(
    length: int, value: float
) -> None:
    values = np.full(600, value)
    assert set(moved(windows.window_mean(X, length), values)[length - 1 :]) == {value}
    assert set(moved(std(X, length), values)[length - 1 :]) == {0.0}


@pytest.mark.parametrize("statistic", [windows.window_sum, windows.window_mean, decayed])
def test_a_window_of_one_value_is_the_value(statistic: Statistic) -> None:
    assert np.array_equal(moved(statistic(X, 1), VALUES), VALUES)


def test_windows_of_one_series_share_their_halves() -> None:
    sums = [windows.window_sum(X, length) for length in (256, 512, 768)]
    assert sums[1] is windows.window_sum(X, 512)
    assert sums[1].operands[0] is sums[0]  # type: ignore[attr-defined]
