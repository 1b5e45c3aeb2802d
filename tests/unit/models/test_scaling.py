from __future__ import annotations

import numpy as np
import pytest

from cryptoml_assets.models.predictor import standardise
from cryptoml_assets.models.scaling import fit_scaling


def columns(*values: list[float]) -> np.ndarray:
    return np.array(values, np.float32).T


def test_missing_values_become_the_training_median() -> None:
    scaling = fit_scaling(columns([1.0, 2.0, 9.0, np.nan]))
    filled = standardise(scaling, columns([np.nan, 2.0]))
    assert scaling.median[0] == 2.0
    assert filled[0] == filled[1]


def test_values_far_beyond_the_training_quantiles_are_clipped() -> None:
    values = np.linspace(-1.0, 1.0, 1001, dtype=np.float32)[:, None]
    scaling = fit_scaling(values)
    far, beyond, edge = np.asarray(standardise(scaling, columns([1e9, 2.0, 1.0])))
    assert far == beyond > edge
    assert np.isfinite(np.asarray(standardise(scaling, columns([np.inf, -np.inf])))).all()


def test_training_values_come_out_centred_with_unit_spread() -> None:
    values = np.random.default_rng(0).normal(5.0, 3.0, (4000, 2)).astype(np.float32)
    scaled = np.asarray(standardise(fit_scaling(values), values))
    assert scaled.mean(axis=0) == pytest.approx([0.0, 0.0], abs=1e-4)
    assert scaled.std(axis=0) == pytest.approx([1.0, 1.0], abs=1e-4)


def test_a_column_without_values_is_named_and_says_nothing() -> None:
    scaling = fit_scaling(columns([np.nan, np.nan], [1.0, 3.0]))
    assert scaling.unseen.tolist() == [True, False]
    assert np.asarray(standardise(scaling, columns([np.nan, 0.0], [1.0, 1.0])))[:, 0].tolist() == [
        0.0,
        0.0,
    ]


def test_a_constant_column_does_not_divide_by_zero() -> None:
    scaling = fit_scaling(columns([0.1, 0.1, 0.1]))
    assert np.asarray(standardise(scaling, columns([0.1, 5.0]))).tolist() == [[0.0], [0.0]]


def test_a_positive_skewed_size_is_read_by_its_logarithm() -> None:
    rng = np.random.default_rng(0)
    sizes = np.exp(rng.normal(size=5000)).astype(np.float32)
    scaling = fit_scaling(np.column_stack([sizes, sizes - 1.0, rng.normal(9.0, 1.0, 5000)]))
    assert scaling.logarithmic.tolist() == [True, False, False]
    one, two, four, zero = np.asarray(
        standardise(scaling, np.array([[1, 0, 0], [2, 0, 0], [4, 0, 0], [0, 0, 0]], np.float32))
    )[:, 0]
    assert four - two == pytest.approx(two - one, rel=1e-5)
    assert np.isfinite(zero)
    assert zero < one
