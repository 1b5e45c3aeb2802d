"""Networks that read a window compute what their papers say, step by step."""

from __future__ import annotations

import numpy as np
import pytest
from flax import nnx
from scipy.optimize import minimize

from cryptoml_assets.models import student
from cryptoml_assets.models.families.family import Inputs, inputs_of, network
from cryptoml_assets.models.families.linear import fit_linear
from cryptoml_assets.models.families.tcn import KERNEL

#: Two channels of sixteen steps, one of them newest first among the columns, beside four others.
WINDOW = (tuple(range(19, 3, -1)), tuple(range(20, 36)))
INPUTS = Inputs(36, WINDOW)


def rows(count: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, 36)).astype(np.float32)


def with_heads(family: str) -> nnx.Module:
    """A network whose heads let through what is before them."""
    model = nnx.merge(*network(family, INPUTS, (8, 6), 3))
    model.heads.head.kernel[...] = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    return model


def silu(values: np.ndarray) -> np.ndarray:
    return values / (1 + np.exp(-values))


def steps(row: np.ndarray) -> np.ndarray:
    """The window of a row, shape (steps, channels), oldest first."""
    return np.array([[row[column] for column in channel] for channel in WINDOW]).T


def finish(model: nnx.Module, newest: np.ndarray, row: np.ndarray) -> float:
    mixed = np.concatenate([newest, row]) @ model.mixer.kernel[...] + model.mixer.bias[...]
    return float((silu(np.asarray(mixed)) @ model.heads.head.kernel[...])[0])


def test_the_convolution_is_the_newest_output_of_dilated_causal_ones() -> None:
    model = with_heads("tcn")
    location, _ = model(rows(5))
    for row, answer in zip(rows(5), location, strict=True):
        values, dilation = steps(row), 1
        for layer in model.convolutions:
            kernel = np.asarray(layer.kernel[...]).reshape(KERNEL, values.shape[1], -1)
            after = np.full((len(values), kernel.shape[2]), np.nan)
            for t in range((KERNEL - 1) * dilation, len(values)):
                seen = [values[t - dilation * (KERNEL - 1 - tap)] for tap in range(KERNEL)]
                after[t] = sum(seen[tap] @ kernel[tap] for tap in range(KERNEL))
            values, dilation = silu(after + np.asarray(layer.bias[...])), dilation * KERNEL
        assert finish(model, values[-1], row) == pytest.approx(float(answer), abs=2e-5)


def test_the_state_space_is_a_recurrence_run_over_the_window() -> None:
    model = with_heads("state_space")
    location, _ = model(rows(5))
    pace = -np.exp(np.asarray(model.log_decay[...])) + 1j * np.asarray(model.turn[...])
    for row, answer in zip(rows(5), location, strict=True):
        state = np.zeros(6, complex)
        for values in steps(row):
            state = np.exp(pace) * state + values @ np.asarray(model.drive[...])
        newest = silu(state.real)
        assert finish(model, newest, row) == pytest.approx(float(answer), abs=2e-5)


@pytest.mark.parametrize("family", ["mlp", "tcn", "state_space"])
def test_networks_start_from_the_unconditional_distribution(family: str) -> None:
    model = nnx.merge(*network(family, INPUTS, (8, 6), 3))
    location, log_scale = model(rows(4))
    assert not np.asarray(location).any()
    assert not np.asarray(log_scale).any()


def test_a_window_of_other_lengths_or_of_no_inputs_is_refused() -> None:
    with pytest.raises(ValueError, match="channels of"):
        _ = Inputs(4, ((0, 1), (2,))).window_shape
    with pytest.raises(ValueError, match="power of 4"):
        network("tcn", Inputs(6, ((0, 1, 2, 3, 4, 5),)), (4,), 0)
    with pytest.raises(ValueError, match="reads b"):
        inputs_of(["a"], [["a", "b"]])


def linear_world(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    inputs = random.normal(size=(count, 3)).astype(np.float32)
    scale = np.exp(0.5 * inputs[:, 1])
    labels = 0.4 * inputs[:, 0] + scale * random.standard_t(student.DEGREES, count)
    return inputs, labels.astype(np.float32)


def test_the_lines_find_the_direction_the_size_and_the_odds() -> None:
    parts = [linear_world(60_000, 0), linear_world(20_000, 1)]
    up = [labels > 0 for _, labels in parts]
    model = nnx.merge(*fit_linear(parts[0], parts[1], (up[0], up[1])))
    kernel, bias = np.asarray(model.lines.kernel[...]), np.asarray(model.lines.bias[...])
    assert kernel[:, 0] == pytest.approx([0.4, 0, 0], abs=0.03)
    assert kernel[:, 1] == pytest.approx([0, 0.5, 0], abs=0.05)
    assert bias[1] == pytest.approx(0.0, abs=0.05)
    inputs, labels = parts[0]

    def loss(weights: np.ndarray) -> float:
        odds = inputs @ weights[:3] + weights[3]
        return float((np.logaddexp(0, odds) - (labels > 0) * odds).mean())

    best = minimize(loss, np.zeros(4)).x
    assert [*kernel[:, 2], bias[2]] == pytest.approx(best, abs=0.01)


def test_an_input_that_never_varies_gets_no_slope() -> None:
    inputs, labels = linear_world(2000, 2)
    inputs[:, 2] = 0.0
    part = (inputs, labels)
    model = nnx.merge(*fit_linear(part, part, (labels > 0, labels > 0)))
    assert np.isfinite(np.asarray(model.lines.kernel[...])).all()
    assert not np.asarray(model.lines.kernel[...])[2].any()
