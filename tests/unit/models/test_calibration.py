from __future__ import annotations

import numpy as np
import pytest

from cryptoml_assets.models.calibration import calibrate, conformal_factor

COUNT = 20_000
HELD_OUT = np.arange(COUNT) >= COUNT // 2


def world(slope: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Locations, scales and labels where a location is worth ``slope`` of itself."""
    rng = np.random.default_rng(seed)
    scale = np.exp(rng.normal(size=COUNT) * 0.3)
    location = 0.3 * rng.normal(size=COUNT)
    return location, scale, slope * location + scale * rng.standard_t(4, COUNT)


@pytest.mark.parametrize("truth", [0.4, 1.0])
def test_slope_finds_how_much_of_a_move_is_real(truth: float) -> None:
    calibration = calibrate(*world(truth), HELD_OUT)
    assert calibration.slope == pytest.approx(truth, abs=0.12)
    assert calibration.steepness > 0.1


def test_a_location_that_points_the_wrong_way_is_not_believed_at_all() -> None:
    calibration = calibrate(*world(-0.5), HELD_OUT)
    assert (calibration.slope, calibration.steepness) == (0.0, 0.0)


def test_an_exaggerated_location_is_not_stretched() -> None:
    assert calibrate(*world(3.0), HELD_OUT).slope == 1.0


def test_the_interval_covers_ninety_percent() -> None:
    location, scale, labels = world(0.5)
    calibration = calibrate(location, scale, labels, HELD_OUT)
    expected = calibration.base_mean + calibration.slope * (location - calibration.centre)
    inside = np.abs(labels - expected) <= calibration.interval_factor * scale
    assert inside[~HELD_OUT].mean() == pytest.approx(0.9, abs=0.015)


def test_only_held_out_rows_decide_the_factor() -> None:
    location, scale, labels = world(0.0)
    wild = np.where(HELD_OUT, labels, labels * 1.0001 + 1e-4)
    first, second = (calibrate(location, scale, values, HELD_OUT) for values in (labels, wild))
    assert second.interval_factor == pytest.approx(first.interval_factor, rel=0.1)


def test_the_conformal_rank_counts_the_new_row() -> None:
    assert conformal_factor(np.arange(1.0, 20.0)) == 18.0
    assert conformal_factor(np.array([3.0, 1.0])) == 3.0


def test_a_constant_location_is_harmless() -> None:
    labels = np.random.default_rng(3).normal(size=100)
    calibration = calibrate(np.zeros(100), np.ones(100), labels, np.arange(100) > 50)
    assert (calibration.slope, calibration.steepness) == (0.0, 0.0)
