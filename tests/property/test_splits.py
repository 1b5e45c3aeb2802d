"""No label reaches from one part of a split into a later one, whatever the settings."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from cryptoml_assets.errors import TrainingDataError
from cryptoml_assets.models.splits import Split, purged_before, split

START = np.datetime64("2024-01-01T00:00", "us")
MINUTE = np.timedelta64(1, "m")
PARTS = ("fit", "validation", "calibration", "test")


@st.composite
def rows(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Events of several symbols with gaps, in any order, each label at its own distance."""
    minutes = draw(st.lists(st.integers(0, 3000), min_size=20, max_size=400))
    reach = draw(st.lists(st.integers(0, 180), min_size=len(minutes), max_size=len(minutes)))
    events = START + np.array(minutes) * MINUTE
    return events, events + np.array(reach) * MINUTE


def attempt(
    events: np.ndarray, label_times: np.ndarray, test_share: float, embargo: timedelta
) -> Split:
    try:
        return split(events, label_times, test_share=test_share, embargo=embargo)
    except TrainingDataError:
        reject()


@given(
    rows=rows(),
    test_share=st.floats(0.01, 0.89),
    embargo=st.integers(0, 120).map(lambda minutes: timedelta(minutes=minutes)),
)
def test_no_label_reaches_into_a_later_part(
    rows: tuple[np.ndarray, np.ndarray], test_share: float, embargo: timedelta
) -> None:
    events, label_times = rows
    parts = attempt(events, label_times, test_share, embargo)
    masks = [getattr(parts, name) for name in PARTS]
    for index, earlier in enumerate(masks):
        for later in masks[index + 1 :]:
            assert not (earlier & later).any()
            reach = label_times[earlier].max() + np.timedelta64(embargo)
            assert reach <= events[later].min()


@given(rows=rows(), test_share=st.floats(0.01, 0.89))
def test_every_instant_falls_into_one_part_and_the_newest_are_the_test(
    rows: tuple[np.ndarray, np.ndarray], test_share: float
) -> None:
    events, label_times = rows
    parts = attempt(events, label_times, test_share, timedelta(0))
    assert (parts.test == (events >= parts.test_start)).all()
    assert parts.test.sum() >= int(len(events) * test_share)
    assert (parts.training <= purged_before(label_times, parts.test_start, 0 * MINUTE)).all()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_too_few_rows_are_refused(count: int) -> None:
    events = START + np.arange(count) * MINUTE
    with pytest.raises(TrainingDataError):
        split(events, events + 10 * MINUTE, test_share=0.2)


def test_an_embargo_longer_than_the_history_is_refused() -> None:
    events = START + np.arange(500) * MINUTE
    with pytest.raises(TrainingDataError, match="embargo"):
        split(events, events + 10 * MINUTE, test_share=0.2, embargo=timedelta(days=2))
