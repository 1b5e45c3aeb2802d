"""The closed forms against scipy and against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, stats

from cryptoml_assets.models import student

REFERENCE = stats.t(student.DEGREES)


def test_distribution_and_density_are_scipys() -> None:
    z = np.linspace(-6.0, 6.0, 41)
    assert student.cdf(z) == pytest.approx(REFERENCE.cdf(z), abs=1e-12)
    assert student.density(z) == pytest.approx(REFERENCE.pdf(z), abs=1e-12)
    assert pytest.approx(REFERENCE.ppf(0.95)) == student.QUANTILE_95


@pytest.mark.parametrize("observed", [-2.0, 0.3, 1.7])
def test_crps_is_the_integral_that_defines_it(observed: float) -> None:
    def gap(x: float) -> float:
        return float((REFERENCE.cdf((x - 0.1) / 0.7) - (x >= observed)) ** 2)

    pieces = ((-400.0, observed), (observed, 400.0))
    integral = sum(integrate.quad(gap, low, high)[0] for low, high in pieces)
    score = student.crps(np.array([observed]), np.array([0.1]), np.array([0.7]))
    assert score[0] == pytest.approx(integral, abs=1e-6)


def test_empirical_crps_is_the_mean_distance_less_half_the_spread() -> None:
    rng = np.random.default_rng(1)
    sample, observed = rng.normal(size=200), np.array([-3.0, 0.2, sample_edge(rng), 9.0])
    spread = np.abs(sample[:, None] - sample).mean() / 2
    expected = [np.abs(sample - value).mean() - spread for value in observed]
    assert student.empirical_crps(observed, sample) == pytest.approx(expected)


def sample_edge(rng: np.random.Generator) -> float:
    return float(rng.normal())
