"""A statistic of a moving window has the same bits wherever its series begins and ends."""

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cryptoml_assets.features import windows

COUNT = 20_000
VALUES = 60_000 + np.cumsum(np.random.default_rng(1).standard_t(3, COUNT))
GAPPY = np.where(np.random.default_rng(2).random(COUNT) < 1e-3, np.nan, VALUES)

Statistic = Callable[[NDArray[np.float64], int], NDArray[np.float64]]
PAIRS = [
    (windows.window_mean, windows.moving_mean),
    (windows.window_std, windows.moving_std),
    (windows.window_zscore, windows.moving_zscore),
]
every_statistic = pytest.mark.parametrize(
    ("statistic", "expression"), PAIRS, ids=["mean", "std", "zscore"]
)


def textbook(statistic: Statistic, values: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    views = np.lib.stride_tricks.sliding_window_view(values, length)
    mean, std = views.mean(axis=1), views.std(axis=1, ddof=1) if length > 1 else np.nan
    return {
        windows.window_mean: lambda: mean,
        windows.window_std: lambda: std,
        windows.window_zscore: lambda: (values[length - 1 :] - mean) / std,
    }[statistic]()


@every_statistic
@settings(max_examples=25, deadline=None)
@given(length=st.integers(min_value=2, max_value=700))
def test_equals_the_textbook(statistic: Statistic, expression: object, length: int) -> None:
    ours = statistic(VALUES[:3000], length)
    assert np.isnan(ours[: length - 1]).all()
    expected = textbook(statistic, VALUES[:3000], length)
    np.testing.assert_allclose(ours[length - 1 :], expected, rtol=1e-9, atol=1e-9)


@every_statistic
@settings(max_examples=25, deadline=None)
@given(
    length=st.integers(min_value=2, max_value=700),
    begin=st.integers(min_value=0, max_value=COUNT // 2),
    end=st.integers(min_value=COUNT // 2 + 1000, max_value=COUNT),
)
def test_the_slice_changes_no_bit(
    statistic: Statistic, expression: object, length: int, begin: int, end: int
) -> None:
    whole = statistic(GAPPY, length)[begin + length - 1 : end]
    part = statistic(GAPPY[begin:end], length)[length - 1 :]
    assert np.array_equal(whole, part, equal_nan=True)


@every_statistic
@pytest.mark.parametrize("length", [2, 3, 20, 288, 512, 9000])
def test_the_expression_works_in_blocks_and_gives_the_same_bits(
    statistic: Statistic, expression: Callable[[pl.Expr, int], pl.Expr], length: int
) -> None:
    frame = pl.DataFrame({"value": pl.Series(GAPPY, nan_to_null=True)})
    column = frame.select(expression(pl.col("value"), length))["value"]
    assert np.array_equal(column.to_numpy(), statistic(GAPPY, length), equal_nan=True)
    assert column.is_nan().sum() == 0


@every_statistic
def test_a_missing_value_makes_exactly_the_windows_over_it_missing(
    statistic: Statistic, expression: object
) -> None:
    values = VALUES[:100].copy()
    values[50] = np.nan
    missing = np.flatnonzero(np.isnan(statistic(values, 7)))
    assert missing.tolist() == [*range(6), *range(50, 57)]


@pytest.mark.parametrize("length", [2, 5, 14, 20, 288])
@pytest.mark.parametrize("value", [0.1, 1e-9, 123456.789])
def test_a_constant_window_has_its_value_as_mean_and_no_deviation(
    length: int, value: float
) -> None:
    values = np.full(600, value)
    assert set(windows.window_mean(values, length)[length - 1 :]) == {value}
    assert set(windows.window_std(values, length)[length - 1 :]) == {0.0}
    assert np.isnan(windows.window_zscore(values, length)).all()


def test_a_window_of_one_value_is_the_value() -> None:
    assert np.array_equal(windows.window_mean(VALUES, 1), VALUES)
