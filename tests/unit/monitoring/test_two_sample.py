"""Distances, and the windows of the past that they are judged by."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from scipy.stats import ks_2samp

from cryptoml_assets.monitoring.two_sample import (
    Distances,
    Sample,
    Windows,
    choose_windows,
    distances,
    judge,
    population_stability,
)

START = datetime(2024, 1, 1, tzinfo=UTC)
DAY, HOUR, BAR = timedelta(days=1), timedelta(hours=1), timedelta(minutes=15)
PAST = Windows(START, START + 40 * DAY, DAY)


def sample(values: np.ndarray, start: datetime = START) -> Sample:
    first = np.datetime64(start.replace(tzinfo=None), "us")
    return Sample(first + np.arange(len(values)) * np.timedelta64(BAR), values)


def found(past: np.ndarray, recent: np.ndarray, windows: Windows = PAST) -> Distances:
    measured = distances(sample(past), sample(recent, windows.end), windows)
    assert measured is not None
    return measured


@pytest.mark.parametrize(
    ("days", "age", "significance", "longest", "width", "independent"),
    [
        (48, 60, 0.05, 7 * DAY, DAY, 24),
        (400, 401, 0.05, 7 * DAY, 7 * DAY, 28),
        (8, 9, 0.05, 7 * DAY, 5 * HOUR, 19),
        (48, 60, 0.01, 7 * DAY, 5 * HOUR, 115),
        # The newest training set: what the recent window holds is cut from it.
        (60, 60, 0.05, 7 * DAY, DAY, 29),
        (39, 39, 0.05, 7 * DAY, DAY, 19),
        (38.9, 38.9, 0.05, 7 * DAY, 23 * HOUR, 19),
    ],
)
def test_windows_are_as_long_as_the_level_allows(  # noqa: PLR0917 - a table of cases
    days: float, age: float, significance: float, longest: timedelta, width: timedelta,
    independent: int,
) -> None:  # fmt: skip
    end, now = START + days * DAY, START + age * DAY
    windows = choose_windows(START, end, now, significance=significance, longest=longest)
    assert windows is not None
    assert (windows.width, windows.independent) == (width, independent)
    assert windows.end == min(end, now - width)
    # The smallest p-value there can be reaches the level.
    assert 1 / (1 + windows.independent) <= significance


def test_a_past_too_short_has_no_windows() -> None:
    end = START + timedelta(minutes=30)
    assert choose_windows(START, end, end, significance=0.05, longest=DAY) is None


def test_the_index_equals_its_definition_on_known_shares() -> None:
    reference = np.arange(1000.0)
    current = np.concatenate([np.full(550, 50.0), np.arange(550.0, 1000.0)])
    shares = np.array([0.55, 0, 0, 0, 0, 0.05, 0.1, 0.1, 0.1, 0.1]).clip(1e-4)
    expected = float(((shares - 0.1) * np.log(shares / 0.1)).sum())
    assert population_stability(reference, current) == pytest.approx(expected, rel=0.02)
    assert population_stability(current, current) == 0.0


@pytest.mark.parametrize("other", [-1.0, 0.5, 1.0])
def test_a_value_that_holds_most_rows_is_a_bin_of_its_own(other: float) -> None:
    reference = np.array([0.0] * 900 + [1.0] * 100)
    assert population_stability(reference, reference) == 0.0
    assert 0.25 < population_stability(reference, np.full(100, other)) < 20


def test_distances_are_those_of_kolmogorov_and_smirnov() -> None:
    random = np.random.default_rng(0)
    past, recent = random.standard_normal(40 * 96), 1.5 * random.standard_normal(96) + 0.3
    measured = found(past, recent)
    exact = (
        ks_2samp(past, recent).statistic,
        ks_2samp(np.abs(past - np.median(past)), np.abs(recent - np.median(past))).statistic,
    )
    # A grid of 40 quantiles misses the largest distance by at most what lies between two.
    assert measured.recent == pytest.approx(exact, abs=1 / 40)
    assert (measured.recent <= np.array(exact) + 1e-12).all()
    assert measured.rows == 96


def test_a_past_window_is_compared_with_the_half_it_is_not_in() -> None:
    half = np.concatenate([np.zeros(20 * 96), np.ones(20 * 96)])
    measured = found(half, np.zeros(96))
    # Every window of either half differs wholly from the other half, and from its own not at all.
    assert (measured.past[:, 0] == 1.0).all()
    assert len(measured.past) == 2 * (20 * 8 - 7)


def test_of_fewer_rows_the_distance_counts_less_and_of_half_of_them_not_at_all() -> None:
    past = np.random.default_rng(0).standard_normal(40 * 96)
    # The last of the grid's 40 bins is open.
    farthest = 39 / 40
    assert found(past, np.full(96, 9.0)).recent[0] == pytest.approx(farthest)
    assert found(past, np.full(72, 9.0)).recent[0] == pytest.approx(farthest * np.sqrt(0.75))
    assert distances(sample(past), sample(np.full(47, 9.0), PAST.end), PAST) is None
    # Of the past too: here one day in two is missing, then nearly all of it.
    holed = sample(past).times.astype("datetime64[D]").astype(int) % 2 == 0
    there = Sample(sample(past).times[holed], past[holed])
    assert distances(there, sample(np.zeros(96), PAST.end), PAST) is not None
    few = Sample(sample(past).times[:300], past[:300])
    assert distances(few, sample(np.zeros(96), PAST.end), PAST) is None


def test_means_of_few_values_tell_apart_what_their_ranks_cannot() -> None:
    random = np.random.default_rng(2)
    past = random.standard_normal(40 * 96)
    windows = past.reshape(-1, 96).mean(axis=1)
    both = [
        distances(sample(past), sample(np.full(96, far), PAST.end), PAST, level=True)
        for far in (9.0, 90.0)
    ]
    near, far = (each for each in both if each is not None)
    assert (near.recent[:2] == far.recent[:2]).all()
    assert far.recent[2] == pytest.approx(0.8 * abs(90.0 - past.mean()) / past.std())
    # The first window of the past beside the half that it is not in.
    apart = abs(windows[0] - past[20 * 96 :].mean()) / past.std()
    assert near.past[0, 2] == pytest.approx(apart)
    assert near.past.shape == (2 * (20 * 8 - 7), 3)
    constant = distances(sample(np.ones(3840)), sample(np.ones(96), PAST.end), PAST, level=True)
    assert constant is not None
    assert constant.recent[2] == 0.0


@pytest.mark.parametrize(("shortest", "there"), [(3, True), (4, False)])
def test_windows_shorter_than_the_least_are_none(shortest: int, *, there: bool) -> None:
    end = START + 237 * DAY
    windows = choose_windows(
        START, end, end, significance=0.025, longest=7 * DAY, shortest=shortest * DAY
    )
    assert (windows is not None) == there


def test_the_largest_distance_of_all_pairs_is_what_the_past_is_asked_about() -> None:
    random = np.random.default_rng(1)
    pairs = [found(random.standard_normal(3840), random.standard_normal(96)) for _ in range(30)]
    (alone,) = judge(pairs[:1], 19)
    together = judge(pairs, 19)[0]
    assert together.statistic == alone.statistic
    assert together.p_value == alone.p_value == alone.adjusted_p_value
    shifted = found(random.standard_normal(3840), random.standard_normal(96) + 2)
    last = judge([*pairs, shifted], 19)
    assert last[-1].adjusted_p_value == last[-1].p_value == pytest.approx(1 / 20)
    # That one has moved says nothing of the others: each keeps its own p-value.
    assert [each.adjusted_p_value for each in last[:-1]] == [each.p_value for each in last[:-1]]
    assert judge([], 19) == []


def test_what_no_past_window_of_a_pair_reached_others_may_have() -> None:
    usual = np.tile([[0.08], [0.12]], (50, 2))
    farther = usual.copy()
    farther[:10] = 0.9
    one = Distances(1.0, np.full(2, 0.16), usual, 288)
    other = Distances(1.0, np.full(2, 0.1), farther, 288)
    (alone,) = judge([one], 19)
    assert alone.p_value == alone.adjusted_p_value == 1 / 20
    assert alone.statistic == pytest.approx((0.16 - 0.1) / 0.02)
    # A tenth of the past windows of the other were about 3 of its deviations away.
    less = replace(one, recent=np.full(2, 0.14))
    assert judge([less], 19)[0].adjusted_p_value == 1 / 20
    first, _ = judge([less, other], 19)
    assert first.p_value == 1 / 20
    assert first.adjusted_p_value == pytest.approx((1 + 38 * 0.1) / 20)


def test_a_constant_that_changes_stands_out_and_one_row_of_it_does_not() -> None:
    constant = np.full(3840, 2.0)
    changed, same, hardly = np.full(96, 1.0), np.full(96, 2.0), np.full(96, 2.0)
    hardly[0] = 3.0
    statistics = [
        judge([found(constant, each)], 19)[0].statistic for each in (changed, same, hardly)
    ]
    assert statistics[0] > 30
    assert statistics[1] == 0.0
    assert statistics[2] < 1
