"""Numbers and drawings of the page."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cryptoml_serving.api.page import figures
from cryptoml_serving.api.page.charts import HEIGHT, WIDTH, Bar, Scale, Track
from cryptoml_serving.runtime.lake_tables import Point

NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.00123, "+12.3"),
        (-0.00123, "\u221212.3"),
        (0.0, "0.0"),
        (-0.000001, "0.0"),
        (0.5, "+5000.0"),
        (None, "\u2014"),
    ],
)
def test_returns_are_told_in_basis_points(value: float | None, text: str) -> None:
    assert figures.basis_points(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (17270.0, "17,270"),
        (0.015179045, "0.01518"),
        (0.001997502, "0.001998"),
        (-16.2914, "\u221216.29"),
        (0.000183331, "1.83e\u22124"),
        (1e-6, "1e\u22126"),
        (0.0, "0"),
        (999.96, "1000"),
    ],
)
def test_figures_of_any_size_take_four_digits(value: float, text: str) -> None:
    assert figures.figure(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "\u2014"),
        (-3.0, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (7200, "2 h"),
        (7860, "2 h 11 min"),
        (86400 * 3, "3 d"),
        (86400 * 3 + 7200, "3 d 2 h"),
    ],
)
def test_ages_have_two_units_at_most(seconds: float | None, text: str) -> None:
    assert figures.age(seconds) == text


@pytest.mark.parametrize(
    ("largest", "end"), [(0.0, 1), (0.0001, 1), (0.00871, 100), (0.0126, 150), (0.5, 5000)]
)
def test_the_axis_ends_at_the_next_round_number(largest: float, end: float) -> None:
    assert Scale.over([0.0, -largest]).most * 1e4 == pytest.approx(end)


def test_a_bar_lies_where_its_returns_are() -> None:
    scale = Scale(0.01)
    bar = Bar.of(scale, -0.005, 0.0, 0.01)
    assert (bar.left, bar.width, bar.point) == (25.0, 75.0, 50.0)
    beyond = Bar.of(scale, -1.0, -1.0, 1.0)
    assert (beyond.left, beyond.width, beyond.point) == (0.0, 100.0, 0.0)


def test_a_track_stays_in_its_frame_and_parts_what_was_held() -> None:
    realised = [0.0, 0.02, None]
    points = [
        Point(NOON + timedelta(minutes=5 * i), 0.001, -0.01, 0.01, came)
        for i, came in enumerate(realised)
    ]
    track = Track.of(points)
    assert track is not None
    assert (len(track.inside), len(track.outside)) == (1, 1)
    xs = [x for x, _ in (*track.inside, *track.outside, track.end)]
    ys = [y for _, y in (*track.inside, *track.outside, track.end)]
    assert min(xs) >= 0
    assert max(xs) <= WIDTH
    assert min(ys) >= 0
    assert max(ys) <= HEIGHT
    assert track.inside[0][1] == track.zero
    # What came above the interval is drawn above the line.
    assert track.outside[0][1] < track.end[1] < track.zero
    assert Track.of(points[:1]) is None
